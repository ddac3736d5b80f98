"""What control's traffic of a period came to: what a candidate is compared with. Pure but for reading the log."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from alerts.histogram import buckets_of
from alerts.relative_limit import ControlLatency, as_counts
from proxy.baseline_file import Baseline, Cost, Hour, Latency
from proxy.events.records import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from proxy.events.reading import EventReader, Period

    Array = NDArray[Any]

HOUR_SECONDS = 3600.0
MONTH_DAYS = 30
COLUMNS = (
    "at",
    "arm",
    "is_forced",
    "status",
    "outcome",
    "model",
    "user_hash",
    "seconds",
    "cost_dollars",
    "document_count",
)


class NoTraffic(Exception):
    """Control served nobody in the period; the message says what there was instead."""


class _Traffic(msgspec.Struct, frozen=True):
    """Columns of the log, row by row the same request."""

    at: Array
    seconds: Array
    dollars: Array
    documents: Array
    is_control: Array
    outcomes: Counter[str]
    models: Counter[str]
    users: set[str]


def baseline_of(reader: EventReader, period: Period, *, events: str, now: float) -> Baseline:
    """Return what the log of *period* comes to. Testers' forced requests and callers' own mistakes are left out.

    Raises:
        NoTraffic: control served nobody.
        UnreadableEvents: the log cannot be read.

    """
    traffic = _read(reader, period)
    control = traffic.is_control
    if not control.any():
        others = f"{len(control)} requests of the candidate" if len(control) else "no requests at all"
        raise NoTraffic(f"{events}: control served nobody in this period: there are {others}")
    seconds = traffic.seconds[control]
    buckets, counts = np.unique(buckets_of(seconds), return_counts=True)
    histogram = dict(zip(map(int, buckets), map(int, counts), strict=True))
    return Baseline(
        made_at=now,
        since=period.since,
        until=period.until,
        events=events,
        requests=int(control.sum()),
        all_requests=len(control),
        users=len(traffic.users),
        outcomes=dict(traffic.outcomes.most_common()),
        models=dict(traffic.models.most_common()),
        documents=float(traffic.documents[control].mean()),
        latency=_latency(seconds, histogram),
        cost=_cost(float(traffic.dollars[control].mean()), traffic.at),
        hours=_hours(traffic),
        histogram=histogram,
    )


def _read(reader: EventReader, period: Period) -> _Traffic:
    """Read batch by batch: what is kept of a request is a few numbers."""
    parts: list[tuple[Array, ...]] = []
    outcomes, models, users = Counter[str](), Counter[str](), set[str]()
    for batch in reader.batches(Kind.EXPOSURES, period, COLUMNS):
        found: dict[str, Array] = {
            name: batch.column(name).to_numpy(zero_copy_only=False) for name in COLUMNS if name != "at"
        }
        found["at"] = batch.column("at").cast("int64").to_numpy() / 1e6
        is_mistake = (found["status"] >= 400) & (found["status"] < 500) & (found["outcome"] != "overloaded")
        counts = ~(found["is_forced"].astype(bool) | is_mistake)
        kept = {name: column[counts] for name, column in found.items()}
        is_control = kept["arm"] == "control"
        names = ("at", "seconds", "cost_dollars", "document_count")
        parts.append((*(kept[name].astype(float) for name in names), is_control))
        outcomes.update(kept["outcome"][is_control])
        models.update(kept["model"][is_control])
        users.update(kept["user_hash"][is_control])
    parts = parts or [(*[np.zeros(0)] * 4, np.zeros(0, dtype=bool))]
    at, seconds, dollars, documents, control = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _Traffic(at, seconds, dollars, documents, control, outcomes, models, users)


def _latency(seconds: Array, histogram: dict[int, int]) -> Latency:
    known = ControlLatency.none()
    known.add(as_counts(histogram), 0)
    upper = float(known.limit(1.0)[0])
    p50, p95, p99 = (float(each) for each in np.quantile(seconds, (0.5, 0.95, 0.99)))
    return Latency(
        mean=float(seconds.mean()), p50=p50, p95=p95, p99=p99, p95_upper=None if math.isnan(upper) else upper
    )


def _cost(per_query: float, at: Array) -> Cost:
    """Extrapolate: a month of traffic like that between the first and the last request, all of it control's."""
    span = max(float(at.max() - at.min()), 1.0)
    if span < HOUR_SECONDS:
        assumption = f"there is none of {words_of(span)} of traffic: it takes an hour at the least"
        return Cost(
            per_query=per_query,
            per_thousand=1000 * per_query,
            per_month=None,
            queries_per_month=None,
            assumption=assumption,
        )
    queries = len(at) / span * MONTH_DAYS * 86400
    assumption = (
        f"{MONTH_DAYS} days of traffic like that of the {words_of(span)} from the first request to the last, "
        "all of it answered by control"
    )
    if span < 86400:
        assumption += "; that is less than a day, so that the daily swing is not in it"
    return Cost(
        per_query=per_query,
        per_thousand=1000 * per_query,
        per_month=per_query * queries,
        queries_per_month=queries,
        assumption=assumption,
    )


def words_of(seconds: float) -> str:
    """Return a length of time for people."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _hours(traffic: _Traffic) -> list[Hour]:
    """Return every hour from the first request to the last, those without any too."""
    numbers = (traffic.at // HOUR_SECONDS).astype(int)
    order = np.argsort(numbers, kind="stable")
    all_hours = range(int(numbers.min()), int(numbers.max()) + 1)
    ends = np.searchsorted(numbers[order], all_hours, side="right")
    return [_hour(number, traffic, rows) for number, rows in zip(all_hours, np.split(order, ends[:-1]), strict=True)]


def _hour(number: int, traffic: _Traffic, rows: Array) -> Hour:
    control = rows[traffic.is_control[rows]]
    p50, p95 = map(float, np.quantile(traffic.seconds[control], (0.5, 0.95))) if len(control) else (None, None)
    return Hour(
        at=number * HOUR_SECONDS,
        requests=len(rows),
        control_requests=len(control),
        p50=p50,
        p95=p95,
        dollars=float(traffic.dollars[control].sum()),
    )


def by_hour_of_day(hours: Sequence[Hour]) -> list[float | None]:
    """Return the mean number of requests of each hour of the day (UTC, 24 of them); None: none was seen."""
    seen: dict[int, list[int]] = {}
    for hour in hours:
        seen.setdefault(int(hour.at // HOUR_SECONDS) % 24, []).append(hour.requests)
    return [sum(found) / len(found) if (found := seen.get(hour)) else None for hour in range(24)]
