"""The event log of one process: a queue, a thread that encodes, a thread that writes. Needs pyarrow and fsspec.

The event loop appends to the queue and does nothing else; a full queue drops and counts. Text that may not be
stored is dropped when a record leaves the queue, a tenth of a second after it came.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING

import structlog

from proxy.events.counts import Counts
from proxy.events.records import FeedbackEvent, Kind, ServedRanking
from proxy.events.rows import Encoder
from proxy.events.storage import Storage, hour_of
from proxy.events.uploader import Part, Uploader

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from proxy.events.redaction import Redaction
    from proxy.quality_settings import Events

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 0.1
_BATCH_ROWS = 16
_PAUSE_SECONDS = 0.0005
"""After each batch: whoever waits for the interpreter gets it now, not at the end of its switch interval."""
_CLOSE_SECONDS = 10.0
_ROW_BYTES = 400
"""Of a record beside its texts, about."""
_DOCUMENT_BYTES = 60


class EventLog:
    """Takes records from the event loop and keeps them."""

    def __init__(self, settings: Events, storage: Storage, redaction: Redaction, instance_id: str) -> None:
        self._settings = settings
        self._instance_id = instance_id
        self._most_bytes = settings.queue_mb * 1_000_000
        self._queue: deque[tuple[Kind, ServedRanking | FeedbackEvent, int]] = deque()
        self._encoder = Encoder(redaction, instance_id)
        self.counts = Counts()
        self._uploader = Uploader(storage, self.counts)
        self._pending: dict[tuple[Kind, int], list[pa.RecordBatch]] = {}
        self._pending_rows = 0
        self._flushed_at = time.monotonic()
        self._number = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="events-encode", daemon=True)

    def observe_ranking(self, ranking: ServedRanking) -> None:
        """Take one. Called on the event loop."""
        call = ranking.call
        texts = len(call.query) + sum(map(len, call.documents))
        self._offer(Kind.EXPOSURES, ranking, _ROW_BYTES + texts + _DOCUMENT_BYTES * len(call.documents))

    def record_feedback(self, event: FeedbackEvent) -> None:
        """Take one. Called on the event loop."""
        self._offer(Kind.FEEDBACK, event, _ROW_BYTES + _DOCUMENT_BYTES * len(event.indices))

    def _offer(self, kind: Kind, record: ServedRanking | FeedbackEvent, size: int) -> None:
        counts = self.counts
        if counts.held_rows >= self._settings.queue_rows or counts.held_bytes + size > self._most_bytes:
            counts.refused[kind] += 1
            return
        counts.offered_rows += 1
        counts.offered_bytes += size
        self._queue.append((kind, record, size))

    def start(self) -> None:
        """Begin, in the background."""
        self._uploader.start()
        self._thread.start()

    def close(self) -> None:
        """Write what is held, for as long as a shutdown may take. Blocks."""
        if not self._thread.is_alive():
            return
        end = time.monotonic() + _CLOSE_SECONDS
        self._stop.set()
        self._thread.join(_CLOSE_SECONDS)
        self._uploader.close(max(0.1, end - time.monotonic()))
        if held := self.counts.held_rows:
            _log.error("events.lost", rows=held, reason="there was no time to write them")

    def _run(self) -> None:
        is_over = False
        while not is_over:
            is_over = self._stop.wait(_LOOK_SECONDS)
            try:
                self._take_all()
                if is_over or self._is_due():
                    self._flush()
            except Exception:  # noqa: BLE001 - whatever one turn meets, the next is tried
                _log.exception("events.failed")

    def _take_all(self) -> None:
        """Encode what is in the queue, a few rows at a time."""
        left = len(self._queue)
        while left > 0:
            taken = [self._queue.popleft() for _ in range(min(left, _BATCH_ROWS))]
            left -= len(taken)
            for kind in Kind:
                if records := [record for of_kind, record, _ in taken if of_kind is kind]:
                    self._encode(kind, records)
            self.counts.taken_bytes += sum(size for _, _, size in taken)
            if self._pending_rows >= self._settings.flush_rows:
                self._flush()
            if not self._stop.is_set():
                time.sleep(_PAUSE_SECONDS)

    def _encode(self, kind: Kind, records: Sequence[ServedRanking | FeedbackEvent]) -> None:
        for hour in dict.fromkeys(map(_hour, records)):
            of_hour = [record for record in records if _hour(record) == hour]
            try:
                batch = self._encoder.encode(kind, of_hour)
            except Exception as exc:  # noqa: BLE001 - one record that fits no row must not cost the others
                if len(of_hour) > 1:
                    for record in of_hour:
                        self._encode(kind, [record])
                    continue
                self.counts.unfit[kind] += 1
                self.counts.unfit_rows += 1
                _log.warning("events.not_encoded", kind=kind.value, error=type(exc).__name__)
                continue
            self._pending.setdefault((kind, hour), []).append(batch)
            self._pending_rows += batch.num_rows
            self.counts.encoded_bytes += batch.nbytes

    def _is_due(self) -> bool:
        return time.monotonic() - self._flushed_at >= self._settings.flush_seconds

    def _flush(self) -> None:
        for (kind, hour), batches in self._pending.items():
            rows = sum(batch.num_rows for batch in batches)
            size = sum(batch.nbytes for batch in batches)
            name = f"part-{self._instance_id}-{self._number}.parquet"
            self._number += 1
            self._uploader.put(Part(kind, hour, name, tuple(batches), rows, size))
        self._pending = {}
        self._pending_rows = 0
        self._flushed_at = time.monotonic()


def _hour(record: ServedRanking | FeedbackEvent) -> int:
    return hour_of(record.received_at if isinstance(record, FeedbackEvent) else record.exposure.started_at)
