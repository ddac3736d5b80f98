"""The folder of a mined set: there as a whole, or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from typing import TYPE_CHECKING
from uuid import uuid4

import msgspec

from proxy.errors import InvalidFile
from proxy.learning.words import normalised, word_set
from proxy.offline.training_data import TrainingList

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from proxy.learning.mining_plan import MiningReport

TRAIN, HELD_OUT, REPORT = "train.jsonl", "held_out.jsonl", "report.json"


@contextlib.contextmanager
def scratch(out: Path) -> Iterator[Path]:
    """Give an empty folder beside *out*, which goes afterwards whatever happens.

    Raises:
        InvalidFile: *out* is there and is no mined set, or its disk cannot be written or is full.

    """
    if out.exists() and not (out / REPORT).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidFile(out, "is there, and is no mined set that could be replaced")
    folder = out.absolute().parent / f".{out.name}.{uuid4().hex[:12]}.tmp"
    try:
        folder.mkdir(parents=True)
        with _held(folder) as is_ours:
            assert is_ours
            _delete_left(folder, f".{out.name}.*.tmp")
            yield folder
    except OSError as exc:
        raise InvalidFile(out, f"cannot be written ({exc.strerror or exc}); what was there is as it was") from exc
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Lock *folder* as long as the process lives; tells whether another has."""
    number = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(number)


def _delete_left(ours: Path, pattern: str) -> None:
    """Delete what runs left that were killed; those under way hold theirs."""
    for found in ours.parent.glob(pattern):
        with contextlib.suppress(OSError), _held(found) as is_left:
            if is_left and found != ours:
                shutil.rmtree(found, ignore_errors=True)


class ListFile:
    """A file of lists whose weights become 1 on average once all are there."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._raw = file.with_suffix(".raw")
        self._out = self._raw.open("wb")
        self._sum = 0.0
        self.count = 0

    def add(self, row: TrainingList) -> None:
        """Append one."""
        self._out.write(msgspec.json.encode(row) + b"\n")
        self._sum += row.weight
        self.count += 1

    def finish(self) -> None:
        """Write the file; on the disk by then."""
        self._out.close()
        decoder = msgspec.json.Decoder(TrainingList)
        with self._raw.open("rb") as raw, self._file.open("wb") as out:
            for line in raw:
                row = decoder.decode(line)
                weight = round(row.weight * self.count / self._sum, 6)
                out.write(msgspec.json.encode(msgspec.structs.replace(row, weight=weight)) + b"\n")
            out.flush()
            os.fsync(out.fileno())
        self._raw.unlink()

    def close(self) -> None:
        """Give the file back where it is not finished."""
        self._out.close()

    def queries(self) -> Iterator[str]:
        """Yield the queries of a finished file."""
        decoder = msgspec.json.Decoder(TrainingList)
        with self._file.open("rb") as lines:
            for line in lines:
                yield decoder.decode(line).query


def check_leakage(train: Iterable[str], held_out: Iterable[str]) -> None:
    """Pass where no query, normalised, and no near-duplicate of one, is in both parts.

    Raises:
        AssertionError: one is; says how many. It would be a fault of this program.

    """
    known = {word_set(normalised(query)) for query in train}
    leaked = sum(word_set(normalised(query)) in known for query in held_out)
    if leaked:
        raise AssertionError(f"{leaked} held-out queries are in the training part: the split is at fault")


def publish(made: Path, out: Path, report: MiningReport) -> None:
    """Make the files of *made* the mined set at *out*.

    Raises:
        OSError: they cannot be moved there; what was there is there still.

    """
    (made / REPORT).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    if not out.exists():
        made.rename(out)
        return
    aside = made.with_name("replaced")
    out.rename(aside)
    try:
        made.rename(out)
    except OSError:
        aside.rename(out)
        raise
