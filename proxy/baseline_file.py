"""The baseline as it is saved: what control's traffic came to, and what the guard compares with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from proxy.errors import InvalidFile

if TYPE_CHECKING:
    from pathlib import Path

BASELINE_NAME = "baseline.json"
VERSION = 1


Positive = Annotated[float, Meta(gt=0, le=1e6)]


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that callers of control waited, failures and fallbacks included."""

    mean: float
    p50: float
    p95: float
    p99: float
    p95_upper: Positive | None
    """Upper confidence limit of the p95, as the guard takes it of control; None: too few requests."""


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Dollars."""

    per_query: float
    per_thousand: float
    per_month: float | None
    """None: the traffic seen is too short to say, as it is of `queries_per_month`."""
    queries_per_month: float | None
    assumption: str
    """What the month was made of, or why there is none."""


class Hour(msgspec.Struct, frozen=True, kw_only=True):
    """One hour of the period."""

    at: float
    """Its beginning, Unix seconds."""
    requests: int
    """Of all users."""
    control_requests: int
    p50: float | None
    """Seconds, of control; None: it served nobody."""
    p95: float | None
    dollars: float
    """That control cost."""


class Measure(msgspec.Struct, frozen=True, kw_only=True):
    """One measure of the judged queries."""

    name: str
    value: float | None
    """Mean over `queries`; None: no query can tell."""
    queries: int
    note: str = ""


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """How well control ranks judged queries."""

    file: str
    queries: int
    not_ranked: int
    """Queries that control gave no order for."""
    models: list[str]
    measures: list[Measure]


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """The report, as it is saved."""

    version: int = VERSION
    made_at: float
    since: float
    """Unix seconds, as `until` is."""
    until: float
    events: str
    """Where the log was read."""
    requests: int
    """Of control."""
    all_requests: int
    users: int
    """Of control; distinct hashes."""
    outcomes: dict[str, int]
    models: dict[str, int]
    documents: float
    """Mean of a request."""
    latency: Latency
    cost: Cost
    hours: list[Hour]
    histogram: dict[int, int]
    """Bucket of `alerts.histogram` → requests of control."""
    quality: Quality | None = None


def read_baseline(file: Path) -> Baseline:
    """Return a baseline that was saved.

    Raises:
        InvalidFile: it cannot be read, is none, or was saved by a newer version.

    """
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Baseline)
    except OSError as exc:
        raise InvalidFile(file, f"cannot be read: {exc}") from exc
    except (msgspec.MsgspecError, UnicodeError) as exc:
        raise InvalidFile(file, f"is no baseline: {exc}") from exc
    if found.version > VERSION:
        raise InvalidFile(
            file, f"was saved by a newer rerank-canary (version {found.version}; this one reads {VERSION})"
        )
    return found
