"""One request out of the event log, for when nobody remembers it any more. Needs pyarrow and fsspec."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from flags.vocabulary import Arm, Assignment, Reason
from proxy.dashboard.recent import SeenRequest
from proxy.events.reading import EventReader, Period
from proxy.events.records import Kind
from proxy.exposure import Attempt, Exposure, Outcome, Role

if TYPE_CHECKING:
    from collections.abc import Mapping

_HOUR = 3600.0
_HOURS = 48
"""That are looked through, the newest first."""


def find_logged(url: str, request_id: str, now: float) -> SeenRequest | None:
    """Return a request of the last two days; None: the log has none of that id. Reads files: not for an event loop.

    Raises:
        UnreadableEvents: a part of the log cannot be read.

    """
    reader = EventReader(url)
    columns = reader.columns(Kind.EXPOSURES)
    for back in range(_HOURS):
        until = (now // _HOUR + 1 - back) * _HOUR
        hour = Period(until - _HOUR, until)
        ids = reader.table(Kind.EXPOSURES, hour, ["request_id"])
        place = pc.index(ids["request_id"], request_id).as_py() if len(ids) else -1
        if place >= 0:
            return _seen(reader.table(Kind.EXPOSURES, hour, columns).slice(place, 1).to_pylist()[0])
    return None


def _seen(row: Mapping[str, Any]) -> SeenRequest:
    started_at = row["at"].timestamp()
    exposure = Exposure(
        request_id=row["request_id"],
        traceparent=None,
        route=row["route"] or "",
        dialect=row["dialect"] or "",
        flag=row["flag"],
        assignment=Assignment(Arm(row["arm"]), Reason(row["reason"]), row["bucket"], row["share_percent"]),
        outcome=Outcome(row["outcome"]),
        served_by=Role(row["served_by"]),
        model=row["model"],
        status=row["status"],
        user_hash=row["user_hash"] or "",
        user_group=row["user_group"] or 0,
        user_source=row["user_source"] or "",
        is_forced=bool(row["is_forced"]),
        documents=row["document_count"],
        started_at=started_at,
        seconds=row["seconds"],
        attempts=tuple(_attempt(each, started_at) for each in row["attempts"] or ()),
        error_code=row["error_code"],
    )
    scores = tuple(zip(row["order"] or (), row["scores"] or (), strict=False))
    return SeenRequest(exposure=exposure, replica=row["instance_id"], scores=scores)


def _attempt(found: Mapping[str, Any], started_at: float) -> Attempt:
    return Attempt(
        role=Role(found["role"]),
        model=found["model"],
        kind=found["kind"] or "",
        outcome=Outcome(found["outcome"]),
        started_at=started_at,
        seconds=found["seconds"],
        queue_seconds=found["queue_seconds"] or 0.0,
        inference_seconds=found["inference_seconds"] or 0.0,
        cost_dollars=found["cost_dollars"] or 0.0,
        tokens=found["tokens"] or 0,
        output_tokens=found["output_tokens"] or 0,
        statistic=found["statistic"],
    )
