"""The embedded gate: a flag file in Unleash's format, decided by Unleash's own engine."""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from flags.engine import engine_of
from flags.gate import GateState
from flags.rollout import ROLLOUT_STRATEGY, InvalidFlags, Rollout, assign, read_rollout
from flags.tasks import end

if TYPE_CHECKING:
    from yggdrasil_engine.engine import UnleashEngine

    from flags.vocabulary import Assignment, FlagContext

_log = structlog.get_logger(__name__)


class FileGate:
    """Follows a flag file. One that cannot be read, or that the engine refuses, changes nothing."""

    def __init__(self, path: Path, flag: str, poll_seconds: float = 0.5) -> None:
        self._path = path
        self._flag = flag
        self._poll_seconds = poll_seconds
        self._engine: UnleashEngine | None = None
        self._rollout: Rollout | None = None
        self._signature: tuple[int, int, int] | None = None
        self._fresh_at: float | None = None
        self._changed_at: float | None = None
        self._error: str | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def state(self) -> GateState:
        """What the file said last."""
        return GateState("file", self._flag, self._rollout, self._fresh_at, self._changed_at, self._error)

    def assign(self, context: FlagContext) -> Assignment:
        """Return the arm of *context*. Never raises, never blocks."""
        engine = self._engine
        is_on = engine is not None and engine.check_enabled(self._flag, context.as_unleash()).is_enabled
        return assign(is_on=is_on, rollout=self._rollout, was_seen=self._fresh_at is not None, context=context)

    async def start(self) -> None:
        """Read the file, and read it again whenever it changes."""
        self.reload()
        self._task = asyncio.create_task(self._follow(), name="flag-file")

    async def close(self) -> None:
        """Stop looking at the file."""
        await end(self._task)

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._poll_seconds)
            self.reload()

    def reload(self) -> None:
        """Take the file's state if it changed and can be read; note the error otherwise."""
        try:
            found = self._path.stat()
            signature = (found.st_mtime_ns, found.st_size, found.st_ino)
            if signature != self._signature:
                self._take(self._path.read_text(encoding="utf-8"))
                self._signature = signature
            self._error = None
            self._fresh_at = time.time()
        except (OSError, UnicodeError, InvalidFlags) as exc:
            self._fail(f"{self._path}: {exc}")

    def _take(self, text: str) -> None:
        rollout = read_rollout(text, self._flag)
        self._engine = engine_of(text, self._flag)
        self._rollout = rollout
        self._changed_at = time.time()
        _log.info("flag.loaded", source="file", flag=self._flag, share_percent=rollout and rollout.share_percent)

    def _fail(self, error: str) -> None:
        if error != self._error:
            _log.error("flag.unreadable", error=error, kept=self._rollout is not None)
        self._error = error


def flag_document(flag: str, share_percent: int) -> dict[str, Any]:
    """Return a document in Unleash's format with one flag and one flexibleRollout strategy."""
    strategy = {
        "name": ROLLOUT_STRATEGY,
        "constraints": [],
        "parameters": {"rollout": str(share_percent), "stickiness": "userId", "groupId": flag},
    }
    feature = {"name": flag, "type": "release", "enabled": True, "strategies": [strategy]}
    return {"version": 2, "features": [feature]}


def write_flag_file(path: Path, flag: str, share_percent: int) -> None:
    """Write a flag file with one flexibleRollout strategy, replacing what was there in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(flag_document(flag, share_percent)), indent=2) + b"\n")
    Path(name).replace(path)
