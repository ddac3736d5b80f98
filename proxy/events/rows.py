"""From records to Arrow, on the log's own thread. Needs pyarrow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa

from proxy.events.records import FeedbackEvent, Kind, ServedRanking
from proxy.events.schema import TABLES, VERSION_COLUMN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.events.redaction import Redaction
    from proxy.exposure import Attempt

_MICROSECONDS = 1_000_000


class Encoder:
    """Makes rows of records; what may not be stored ends here."""

    def __init__(self, redaction: Redaction, instance_id: str) -> None:
        self._redaction = redaction
        self._instance_id = instance_id

    def encode(self, kind: Kind, records: Sequence[ServedRanking | FeedbackEvent]) -> pa.RecordBatch:
        """Return a batch of the *records*, all of one *kind*.

        Raises:
            pa.ArrowException, ValueError, TypeError: one of them fits no row.

        """
        table = TABLES[kind]
        common = {VERSION_COLUMN: table.version, "instance_id": self._instance_id}
        rows = [common | self._row(record) for record in records]
        return pa.RecordBatch.from_pylist(rows, schema=table.schema())

    def _row(self, record: ServedRanking | FeedbackEvent) -> dict[str, Any]:
        return self._feedback(record) if isinstance(record, FeedbackEvent) else self._exposure(record)

    def _exposure(self, ranking: ServedRanking) -> dict[str, Any]:
        exposure, results = ranking.exposure, ranking.results
        texts = self._redaction.of_call(ranking.call)
        return {
            "at": _time(exposure.started_at),
            "request_id": exposure.request_id,
            "flag": exposure.flag,
            "arm": exposure.assignment.arm.value,
            "reason": exposure.assignment.reason.value,
            "bucket": exposure.assignment.bucket,
            "share_percent": exposure.assignment.share_percent,
            "outcome": exposure.outcome.value,
            "served_by": exposure.served_by.value,
            "model": exposure.model,
            "status": exposure.status,
            "error_code": exposure.error_code,
            "route": exposure.route,
            "dialect": exposure.dialect,
            "user_hash": exposure.user_hash,
            "user_group": exposure.user_group,
            "user_source": exposure.user_source,
            "is_forced": exposure.is_forced,
            "seconds": exposure.seconds,
            "cost_dollars": exposure.cost_dollars,
            "attempts": [_attempt(each) for each in exposure.attempts],
            "document_count": exposure.documents,
            "query": texts.query,
            "query_hash": texts.query_hash,
            "documents": texts.documents,
            "document_ids": texts.document_ids,
            "order": [each.index for each in results],
            "scores": [each.score for each in results],
            "logits": [each.logit for each in results],
            "sent": ranking.sent,
        }

    def _feedback(self, event: FeedbackEvent) -> dict[str, Any]:
        return {
            "at": _time(event.received_at),
            "served_at": None if event.served_at is None else _time(event.served_at),
            "request_id": event.request_id,
            "arm": event.arm,
            "share_percent": event.share_percent,
            "action": event.action,
            "vote": event.vote,
            "indices": list(event.indices),
            "ranks": list(event.ranks),
            "document_ids": self._redaction.of_ids(event.document_ids),
            "user_hash": event.user_hash,
        }


def _time(seconds: float) -> int:
    return round(seconds * _MICROSECONDS)


def _attempt(attempt: Attempt) -> dict[str, Any]:
    return {
        "role": attempt.role.value,
        "model": attempt.model,
        "kind": attempt.kind,
        "outcome": attempt.outcome.value,
        "seconds": attempt.seconds,
        "queue_seconds": attempt.queue_seconds,
        "inference_seconds": attempt.inference_seconds,
        "cost_dollars": attempt.cost_dollars,
        "tokens": attempt.tokens,
        "output_tokens": attempt.output_tokens,
        "statistic": attempt.statistic,
    }
