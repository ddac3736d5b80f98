"""Writes parts, one after the other, each again and again until it is there."""

from __future__ import annotations

import threading
from queue import SimpleQueue
from typing import TYPE_CHECKING

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import structlog

from proxy.events.records import Kind

if TYPE_CHECKING:
    from proxy.events.counts import Counts
    from proxy.events.storage import Storage

_log = structlog.get_logger(__name__)

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0


class Part(msgspec.Struct, frozen=True):
    """Rows of one hour that become one file."""

    kind: Kind
    hour: int
    name: str
    batches: tuple[pa.RecordBatch, ...]
    rows: int
    held_bytes: int


class Uploader:
    """A thread of its own: a slow disk or store keeps nobody from encoding."""

    def __init__(self, storage: Storage, counts: Counts) -> None:
        self._storage = storage
        self._counts = counts
        self._parts: SimpleQueue[Part | None] = SimpleQueue()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="events-upload", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, part: Part) -> None:
        """Take a part."""
        self._parts.put(part)

    def close(self, timeout_seconds: float) -> None:
        """Give every part that is left one more try, and wait for that."""
        self._is_closing.set()
        self._parts.put(None)
        self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while (part := self._parts.get()) is not None:
            done = self._counts.written if self._upload(part) else self._counts.lost
            done[part.kind] += part.rows
            self._counts.settled_rows += part.rows
            self._counts.settled_bytes += part.held_bytes
        if self._counts.error is not None and (left := sum(self._counts.lost.values())):
            _log.error("events.lost", rows=left, reason=self._counts.error)

    def _upload(self, part: Part) -> bool:
        """Write a part; False: it is no file, or the process ends before it could be written."""
        pause = _FIRST_PAUSE_SECONDS
        try:
            data = encoded(part.batches)
        except Exception as exc:  # noqa: BLE001 - one part must not end the thread that writes all others
            _log.error("events.not_encoded", kind=part.kind.value, rows=part.rows, error=type(exc).__name__)
            return False
        while True:
            is_last = self._is_closing.is_set()
            try:
                self._storage.put(self._storage.folder(part.kind, part.hour), part.name, data)
            except Exception as exc:  # noqa: BLE001 - each store's client has errors of its own; the next try may pass
                self._failed(exc)
            else:
                self._succeeded()
                return True
            if is_last:
                return False
            self._is_closing.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def _failed(self, exc: Exception) -> None:
        self._counts.failures += 1
        if self._counts.error is None:
            _log.warning("events.not_written", error=type(exc).__name__, reason=str(exc), held=self._counts.held_rows)
        self._counts.error = f"{type(exc).__name__}: {exc}"

    def _succeeded(self) -> None:
        self._counts.files += 1
        if self._counts.error is not None:
            self._counts.error = None
            _log.info("events.written_again", failures=self._counts.failures)


def encoded(batches: tuple[pa.RecordBatch, ...]) -> bytes:
    """Return a Parquet file of the batches, which are of one schema; other threads run meanwhile."""
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_batches(list(batches)), sink, compression="zstd")
    return bytes(memoryview(sink.getvalue()))
