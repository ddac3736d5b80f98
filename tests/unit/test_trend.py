"""Points of a plot, made of what replicas tell: additive, exact for their own period, and never below zero."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from alerts.guardrails import EVENTS, VALUES, Event, Value
from alerts.histogram import bucket_of, quantile
from alerts.signals import ArmSignals, Signals, Unjudged
from alerts.trend import ArmPoint, Counts, Point, money_of, point_of

SLOW, ERROR = EVENTS.index(Event.SLOW), EVENTS.index(Event.ERROR)


def told(control: ArmSignals, candidate: ArmSignals, **fields: Any) -> Counts:
    """Return what is read of signals as a replica writes them."""
    text = msgspec.json.encode(Signals(at=1.0, arms=(control, candidate), **fields))
    return msgspec.json.decode(text, type=Counts)


def arm(seconds: list[float], **fields: Any) -> ArmSignals:
    latency: dict[int, int] = {}
    for each in seconds:
        latency[bucket_of(each)] = latency.get(bucket_of(each), 0) + 1
    return ArmSignals(requests=len(seconds), latency=latency, **fields)


def point(now: dict[str, Counts], before: dict[str, Counts], **fields: Any) -> Point:
    given: dict[str, Any] = {"at": 10.0, "seconds": 5.0, "share_percent": 5, "evidence": {}} | fields
    return point_of(now, before, **given)


def test_a_point_is_what_all_replicas_added() -> None:
    before = {"a": told(arm([1.0]), arm([0.1]))}
    now = {"a": told(arm([1.0, 2.0]), arm([0.1])), "b": told(arm([3.0]), arm([0.2, 0.2]))}
    found = point(now, before)
    assert [each.requests for each in found.arms] == [2, 2]
    assert found.arms[0].p50_seconds == quantile({bucket_of(2.0): 1, bucket_of(3.0): 1}, 0.5)
    assert found.arms[1].p95_seconds == quantile({bucket_of(0.2): 2}, 0.95)


def test_nothing_added_has_no_latency_and_no_mean() -> None:
    same = {"a": told(arm([1.0]), arm([0.1]), values=[{3: 4} for _ in VALUES])}
    found = point(same, same)
    assert found.arms == (ArmPoint(), ArmPoint())
    assert found.values == {}


def test_a_replica_whose_sums_fell_is_left_out() -> None:
    before = {"a": told(arm([1.0, 1.0]), arm([])), "b": told(arm([1.0]), arm([]))}
    now = {"a": told(arm([1.0]), arm([])), "b": told(arm([1.0, 1.0]), arm([]))}
    assert point(now, before).arms[0].requests == 1


def test_what_the_flag_had_no_choice_in_is_shown_too() -> None:
    unjudged = Unjudged(requests=3, fallbacks=1, dollars=0.5, latency={bucket_of(2.0): 3})
    found = point({"a": told(ArmSignals(unjudged=unjudged, dollars=0.25), ArmSignals())}, {})
    control = found.arms[0]
    assert (control.requests, control.fallbacks, control.dollars) == (3, 1, 0.75)
    assert control.p50_seconds == quantile({bucket_of(2.0): 3}, 0.5)


def test_errors_are_of_what_counts_for_the_tests() -> None:
    trials, bad = [0] * len(EVENTS), [0] * len(EVENTS)
    trials[ERROR], bad[ERROR], trials[SLOW] = 10, 2, 99
    found = point({"a": told(ArmSignals(requests=50, trials=trials, bad=bad), ArmSignals())}, {})
    assert (found.arms[0].errors, found.arms[0].trials) == (2, 10)


def test_values_are_means_of_what_was_added() -> None:
    values: list[dict[int, int]] = [{} for _ in VALUES]
    values[VALUES.index(Value.OVERLAP)] = {64: 3, 0: 1}
    before: list[dict[int, int]] = [{} for _ in VALUES]
    before[VALUES.index(Value.OVERLAP)] = {64: 1}
    now = {"a": told(ArmSignals(), ArmSignals(), values=values)}
    found = point(now, {"a": told(ArmSignals(), ArmSignals(), values=before)})
    assert found.values["overlap"].mean == pytest.approx(2 / 3)
    assert found.values["overlap"].count == 3
    assert found.values.keys() == {"overlap"}


def test_evidence_for_nothing_is_not_kept() -> None:
    assert point({}, {}, evidence={"p95": 2.34567, "errors": 0.0}).evidence == {"p95": 2.346}


def at(second: float, control: ArmPoint, candidate: ArmPoint) -> Point:
    return Point(at=second, seconds=5.0, arms=(control, candidate))


def test_saved_is_what_the_candidates_requests_would_have_cost_under_control() -> None:
    control = ArmPoint(requests=10, dollars=1.0, p50_seconds=2.0)
    candidate = ArmPoint(requests=20, dollars=0.5, p50_seconds=0.5)
    found = money_of([at(5, control, candidate)])
    assert found.saved_dollars == pytest.approx(1.5)
    assert (found.control_dollars, found.candidate_dollars) == (1.0, 0.5)
    assert found.seconds_saved == pytest.approx(30.0)


def test_when_control_is_asked_no_more_its_last_price_counts() -> None:
    points = [at(5, ArmPoint(requests=4, dollars=2.0), ArmPoint()), at(10, ArmPoint(), ArmPoint(requests=10))]
    assert money_of(points).saved_dollars == pytest.approx(5.0)


def test_requests_before_any_price_was_known_count_by_the_first_one() -> None:
    points = [at(5, ArmPoint(), ArmPoint(requests=10)), at(10, ArmPoint(requests=4, dollars=2.0), ArmPoint())]
    assert money_of(points).saved_dollars == pytest.approx(5.0)


def test_without_control_nobody_knows_what_was_saved() -> None:
    found = money_of([at(5, ArmPoint(), ArmPoint(requests=10, p50_seconds=0.1))])
    assert (found.saved_dollars, found.seconds_saved) == (None, None)
