"""One rollback told again: moments in their order, from what the trail, the store and the outbox kept."""

from __future__ import annotations

from typing import Any

import msgspec

from alerts.delivery import Delivery
from alerts.guardrails import Method
from alerts.report import Evidence
from alerts.signals import Example
from alerts.trend import ArmPoint, Point
from alerts.verdict import Finding
from flags.ramp import Phase
from flags.record import AuditEntry, Through
from proxy.dashboard.incident import incident_of
from proxy.dashboard.recorder import Incident

AT = 1000.0
FINDING = Finding(
    guardrail="p95",
    words="95 of 100 candidate requests take at most 0.6 s",
    test=Method.SHARE,
    is_enforced=True,
    is_breached=True,
    is_passed=False,
    evidence=20.0,
    threshold=10.0,
    trials=100.0,
    bad=30.0,
    estimate=0.3,
    lower=0.2,
    upper=0.4,
    limit=0.05,
    recent_seconds=4.0,
    recent_trials=12.0,
    recent_bad=12.0,
    design_effect=1.0,
    seconds_to_detect=3.0,
    seconds_to_pass=None,
)
EXAMPLE = Example(at=AT - 3, request_id="r1", trace_id="t1", seconds=2.0, outcome="ok")
EVIDENCE = Evidence(
    finding=FINDING, candidate_requests=100.0, candidate_users=40.0, stage_seconds=90.0, examples=[EXAMPLE]
)


def entry(action: str, at: float, version: int, **fields: Any) -> AuditEntry:
    given: dict[str, Any] = {"actor": "guard", "through": Through.GUARD, "from_share_percent": 25}
    given |= {"to_share_percent": 0, "phase": Phase.ROLLED_BACK}
    return AuditEntry(at=at, action=action, version=version, **given | fields)


def rolled_back(**fields: Any) -> AuditEntry:
    evidence = msgspec.json.encode(EVIDENCE).decode()
    return entry("rollback", AT, 5, **{"rollback_id": "abc", "reason": "late", "evidence": evidence} | fields)


def test_moments_stand_in_the_order_in_which_they_happened() -> None:
    entries = [
        entry("rearm", AT + 60, 7, actor="adam", reason="mended", phase=Phase.RAMPING),
        entry("flag_written", AT + 0.4, 6, flag_event_id="77"),
        rolled_back(),
    ]
    kept = Incident(rollback_id="abc", candidate_at=AT - 0.1, points=[])
    told = Delivery(receiver="pager", alert_key="rollback:abc", told_at=AT + 0.9, acknowledged_at=AT + 30)
    found = incident_of("abc", entries, kept, {told.id: told}, [], AT)
    assert found is not None
    assert [round(each.at - AT, 1) for each in found.moments] == [-4.0, -3.0, -0.1, 0.0, 0.4, 0.9, 30.0, 60.0]
    assert [each.kind for each in found.moments[-3:]] == ["told", "told", "over"]
    assert "event 77" in found.moments[4].words
    assert found.is_over
    assert found.touched == "100 requests of 40 users had the candidate in the 1 min 30 s of this stage"
    assert (found.finding, found.examples) == (FINDING, [EXAMPLE])


def test_what_a_person_decided_needs_no_evidence() -> None:
    found = incident_of("abc", [rolled_back(actor="olga", evidence="")], None, {}, [], AT)
    assert found is not None
    assert [each.kind for each in found.moments] == ["verdict"]
    assert (found.finding, found.examples, found.is_over) == (None, [], False)
    assert found.touched == "how many had the candidate is not kept any more"
    assert found.is_growing


def test_whom_a_person_took_the_candidate_from_is_counted_since_the_share_was_given() -> None:
    ramped = entry("ramp", AT - 20, 4, from_share_percent=5, to_share_percent=50)
    points = [
        Point(at=AT + seconds, seconds=5, share_percent=50, arms=(ArmPoint(), ArmPoint(requests=10, users=4)))
        for seconds in (-30, -15, -10, -5, 0, 60)
    ]
    found = incident_of("abc", [rolled_back(actor="olga", evidence=""), ramped], None, {}, points, AT + 1000)
    assert found is not None
    assert found.touched == "about 40 requests of 16 new users had the candidate in the 20 s before"
    assert not found.is_growing


def test_evidence_of_another_version_costs_the_evidence_only() -> None:
    found = incident_of("abc", [rolled_back(evidence='{"finding": 5}')], None, {}, [], AT)
    assert found is not None
    assert found.finding is None


def test_what_was_written_after_the_rearm_is_not_of_this_rollback() -> None:
    entries = [
        entry("flag_written", AT + 70, 8, to_share_percent=5),
        entry("rearm", AT + 60, 7),
        rolled_back(),
    ]
    found = incident_of("abc", entries, None, {}, [], AT)
    assert found is not None
    assert not any("the flag says" in each.words for each in found.moments)


def test_each_receiver_is_said_to_be_as_far_as_it_is() -> None:
    key = "rollback:abc"
    deliveries = [
        Delivery(receiver="a", alert_key=key, told_at=AT + 1),
        Delivery(receiver="b", alert_key=key, failing_since=AT, attempts=4, last_error="503"),
        Delivery(receiver="c", alert_key=key, told_at=AT + 1, acknowledged_at=AT + 2, acknowledged_by="ann"),
        Delivery(receiver="d", alert_key=key, attempts=1),
        Delivery(receiver="e", alert_key="rollback:other", told_at=AT),
    ]
    found = incident_of("abc", [rolled_back()], None, {each.id: each for each in deliveries}, [], AT)
    assert found is not None
    assert [(each.receiver, each.state) for each in found.told] == [
        ("a", "delivered"),
        ("b", "failing"),
        ("c", "acknowledged"),
        ("d", "waiting"),
    ]


def test_an_unknown_rollback_is_none() -> None:
    assert incident_of("xyz", [rolled_back()], None, {}, [], AT) is None
