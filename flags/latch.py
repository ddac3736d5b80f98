"""What one replica knows of the rollout: the newest record it saw, and a rollback that the store does not know yet.

It is asked at every request and so holds all in memory; a copy on disk makes a restart keep it where the
store cannot be reached.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import structlog

from flags.ramp import Phase, Rollback
from flags.record import RampRecord, wins

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger(__name__)


class _Kept(msgspec.Struct, frozen=True):
    record: RampRecord | None = None
    undelivered: Rollback | None = None


class Latch:
    """Set while a rollback holds; while it is, nobody may be given to the candidate."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._kept = _read(file)
        self._has_heard = False
        self.opened_at: float | None = None
        """Unix seconds when this process last learned that it was opened; None: never."""
        self._listeners: list[Callable[[], None]] = []

    @property
    def record(self) -> RampRecord | None:
        """The newest record seen; None: none was ever."""
        return self._kept.record

    @property
    def undelivered(self) -> Rollback | None:
        """A rollback that was decided here and is not in the store yet."""
        return self._kept.undelivered

    @property
    def is_set(self) -> bool:
        """Whether nobody may be given to the candidate."""
        return self._kept.undelivered is not None or (
            self._kept.record is not None and self._kept.record.is_rolled_back
        )

    @property
    def is_known(self) -> bool:
        """Whether it was ever known if a rollback holds; until then one may."""
        return self._has_heard or self._kept.record is not None

    @property
    def is_retired(self) -> bool:
        """Whether everybody is to be given to the candidate, the old arm being a fallback only."""
        record = self._kept.record
        return not self.is_set and record is not None and record.ramp.phase is Phase.RETIRED

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call *listener* after each change."""
        self._listeners.append(listener)

    def hear(self) -> None:
        """Take note that the store answered, if only that it has no record."""
        self._has_heard = True

    def decide(self, rollback: Rollback) -> None:
        """Set the latch here and now; that it reaches the store is seen to afterwards."""
        if self._kept.undelivered is None:
            self._keep(_Kept(self._kept.record, rollback))

    def forget(self, rollback: Rollback) -> None:
        """Drop a rollback that was decided here: the store says that it was done, and ended, before."""
        if self._kept.undelivered == rollback:
            self._keep(_Kept(self._kept.record))

    def take(self, record: RampRecord) -> bool:
        """Follow *record*, unless it is older than the one at hand; tell whether it is followed.

        A rollback decided here is delivered once a record is rolled back, or has it in its past.
        """
        mine = self._kept.record
        if mine is not None and wins(mine, record):
            return False
        undelivered = self._kept.undelivered
        if undelivered is not None and (record.is_rolled_back or record.knows(undelivered.rollback_id)):
            undelivered = None
        kept = _Kept(record, undelivered)
        if kept != self._kept:
            self._keep(kept)
        return True

    def _keep(self, kept: _Kept) -> None:
        was_set, before = self.is_set, self._kept.record
        self._kept = kept
        if not self.is_set and (was_set or _has_missed_rollback(before, kept.record)):
            self.opened_at = time.time()
        if was_set != self.is_set:
            _log.warning("latch.set" if self.is_set else "latch.cleared")
        for listener in self._listeners:
            listener()
        if self._file is not None:
            _write(self._file, kept)


def _has_missed_rollback(before: RampRecord | None, after: RampRecord | None) -> bool:
    """Tell whether there was a rollback that was ended before this replica heard of it."""
    return before is not None and after is not None and not set(after.rollback_ids) <= set(before.rollback_ids)


def _read(file: Path | None) -> _Kept:
    if file is None:
        return _Kept()
    try:
        return msgspec.json.decode(file.read_bytes(), type=_Kept)
    except FileNotFoundError:
        return _Kept()
    except (OSError, msgspec.MsgspecError) as exc:
        _log.warning("latch.unreadable", path=str(file), error=str(exc))
        return _Kept()


def _write(path: Path, kept: _Kept) -> None:
    """Replace the copy in one step; a disk that is full or read-only costs the next start, not this process."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.encode(kept))
        Path(name).replace(path)
    except OSError as exc:
        _log.warning("latch.not_written", path=str(path), error=str(exc))
