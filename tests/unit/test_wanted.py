"""Which alerts there should be in which state of things, and what a person reads in them."""

from __future__ import annotations

import re

import msgspec
import pytest

from alerts import guardrails
from alerts.alarms import changes
from alerts.alert import Alert, Severity
from alerts.report import Evidence, Report
from alerts.signals import Example
from alerts.verdict import GRACE_SECONDS, Finding, HoldReason, Judgement
from alerts.wanted import Links, Situation, wanted
from flags.ramp import DEFAULT_PLAN, Phase, Ramp, Verdict, roll_back
from flags.record import REVERTED_BY, RampRecord

NOW = 1_800_000_000.0
LINKS = Links(dashboard="https://ops/", traces="https://traces/{trace_id}", runbook="https://docs/runbooks/")
FINDING = Finding(
    guardrail="errors",
    words="at most 1 % of the candidate's requests fail",
    test=guardrails.Method.SHARE,
    is_enforced=True,
    is_breached=True,
    is_passed=False,
    evidence=25.3,
    threshold=20.7,
    trials=480,
    bad=31,
    estimate=31 / 480,
    lower=0.034,
    upper=0.11,
    limit=0.01,
    recent_seconds=12.0,
    recent_trials=30,
    recent_bad=29,
    design_effect=1.0,
    seconds_to_detect=60.0,
    seconds_to_pass=None,
)
EVIDENCE = Evidence(
    finding=FINDING,
    candidate_requests=480,
    candidate_users=120,
    stage_seconds=7300,
    examples=[Example(at=NOW, request_id="req-1", trace_id="0af7651916cd43dd", seconds=0.9, outcome="error")],
)


def ramp(**fields: object) -> Ramp:
    base = Ramp(rollout_id="swap", group_id="swap", stage=0, share_percent=5, entered_at=NOW - 3600)
    return msgspec.structs.replace(base, **fields)


def record(state: Ramp | None = None, **fields: object) -> RampRecord:
    return msgspec.structs.replace(RampRecord(ramp=state or ramp(), version=7), **fields)


def rolled_back(actor: str = "guard", evidence: str = "") -> RampRecord:
    return record(roll_back(ramp(), "rb-1", NOW - 20, actor=actor, reason="it failed", evidence=evidence))


def report(**fields: object) -> Report:
    base = Report(
        at=NOW,
        leader="a",
        rollout="swap",
        share_percent=5,
        has_candidate=True,
        judgement=Judgement(verdict=Verdict.HOLD, reason="not proved yet", hold=HoldReason.INCONCLUSIVE),
        holds=[],
        held_seconds={},
        findings=[msgspec.structs.replace(FINDING, is_breached=False, seconds_to_pass=7200.0)],
        findings_at=NOW,
        candidate_requests=480,
        control_requests=9000,
        candidate_users=120,
        relative_limit_seconds=None,
        invalid={},
    )
    return msgspec.structs.replace(base, **fields)


def told(**fields: object) -> dict[str, Alert]:
    """Return the alerts of a situation in which nothing is wrong but *fields*."""
    base = Situation(flag="swap", record=record(), report=report())
    return wanted(msgspec.structs.replace(base, **fields), LINKS, NOW)


def facts(alert: Alert) -> dict[str, str]:
    return dict(alert.facts)


def test_nothing_is_told_where_nothing_is_wrong() -> None:
    assert told() == {}
    assert told(record=None, report=None) == {}


def test_a_rollback_of_the_guard_is_a_page_with_all_that_is_needed_at_3_am() -> None:
    alert = told(record=rolled_back(evidence=msgspec.json.encode(EVIDENCE).decode()))["rollback:rb-1"]
    assert (alert.severity, alert.kind, alert.starts_at) == (Severity.PAGE, "rolled_back", NOW - 32)
    assert alert.title == "swap: the candidate was taken out at 5 % by guard."
    found = facts(alert)
    assert "29 of 30 (97%) in the last 12 s" in found["Why"]
    assert found["Touched"] == "480 requests of up to 120 users were the candidate's in the 2 h 1 min at 5 %"
    assert found["Examples"] == "req-1"
    assert "everybody to control" in found["Done already"]
    assert "rearm" in found["Next"]
    assert alert.links == (
        ("dashboard", "https://ops"),
        ("trace 0af76519", "https://traces/0af7651916cd43dd"),
        ("runbook", "https://docs/runbooks/RerankCanaryRolledBack.md"),
    )
    assert alert.details["guardrail"] == "errors"


def test_our_own_dashboard_has_a_page_for_each_rollback() -> None:
    links = msgspec.structs.replace(LINKS, dashboard="https://canary.example.com/ui/")
    situation = Situation(flag="swap", record=rolled_back(), report=None, silent_seconds=60)
    found = {alert.kind: dict(alert.links)["dashboard"] for alert in wanted(situation, links, NOW).values()}
    assert found.pop("rolled_back") == "https://canary.example.com/ui/incidents/rb-1"
    assert set(found.values()) <= {"https://canary.example.com/ui"}


@pytest.mark.parametrize("evidence", ["", "{"], ids=["none", "unreadable"])
def test_a_rollback_without_numbers_is_told_with_its_reason(evidence: str) -> None:
    alert = told(record=rolled_back(evidence=evidence))["rollback:rb-1"]
    assert facts(alert)["Why"] == "it failed"
    assert facts(alert)["Touched"].startswith("5 %")


def test_a_rollback_by_a_person_wakes_nobody() -> None:
    assert told(record=rolled_back(actor="olga"))["rollback:rb-1"].severity is Severity.WARNING


def test_a_flag_that_cannot_be_written_after_a_rollback_is_a_page_that_says_what_to_do_by_hand() -> None:
    pending = msgspec.structs.replace(rolled_back(), is_pending=True)
    found = told(record=pending, flag_error="the admin token may not", flag_behind_seconds=11)
    alert = found["flag_not_written:swap"]
    assert alert.severity is Severity.PAGE
    assert facts(alert)["Next"].startswith("Set swap to 0 % in Unleash by hand")
    assert "could NOT be set to 0: the admin token may not" in facts(found["rollback:rb-1"])["Done already"]
    assert facts(found["rollback:rb-1"])["Next"].startswith("Set the flag to 0 by hand")


def test_a_flag_that_is_only_just_behind_is_no_matter() -> None:
    assert "flag_not_written:swap" not in told(flag_error="busy", flag_behind_seconds=9)
    assert told(flag_error="busy", flag_behind_seconds=11)["flag_not_written:swap"].severity is Severity.WARNING


def test_a_rollback_that_the_store_does_not_know_says_so() -> None:
    found = told(record=rolled_back(), is_undelivered=True)["rollback:rb-1"]
    assert "the others follow" in facts(found)["Done already"]


@pytest.mark.parametrize("reason", [r for r in HoldReason if r in GRACE_SECONDS])
def test_each_reason_to_hold_is_told_under_its_own_name_after_its_own_grace(reason: HoldReason) -> None:
    grace = GRACE_SECONDS[reason]
    assert told(report=report(holds=[reason], held_seconds={reason: grace - 1})) == {}
    [alert] = told(report=report(holds=[reason], held_seconds={reason: grace})).values()
    assert (alert.key, alert.kind, alert.starts_at) == (f"hold:swap:{reason}", reason, NOW - grace)
    assert alert.severity is Severity.WARNING


def test_replicas_that_are_to_blame_are_named() -> None:
    invalid = report(holds=[HoldReason.INVALID], held_seconds={HoldReason.INVALID: 99}, invalid={"r7": "falls"})
    assert facts(told(report=invalid)["hold:swap:invalid_counts"])["Replicas"] == "r7"
    stale = report(holds=[HoldReason.FLAG_STALE], held_seconds={HoldReason.FLAG_STALE: 99})
    assert facts(told(report=stale, stale=("r1", "r2"))["hold:swap:flag_stale"])["Replicas"] == "r1, r2"


def test_a_guard_that_judges_nothing_is_a_page() -> None:
    assert "no_guard:swap" not in told(silent_seconds=29)
    alert = told(silent_seconds=31)["no_guard:swap"]
    assert (alert.severity, alert.kind, alert.starts_at) == (Severity.PAGE, "no_guard", NOW - 31)


def test_nothing_is_held_that_nobody_has() -> None:
    at_0 = report(share_percent=0, has_candidate=False, held_seconds={HoldReason.NO_DATA: 99})
    assert told(record=record(ramp(stage=None, share_percent=0)), report=at_0) == {}


def test_a_stage_whose_time_is_over_unproved_says_what_is_missing_and_how_long_it_takes() -> None:
    over = record(ramp(entered_at=NOW - DEFAULT_PLAN[0].bake_seconds - 60))
    [alert] = told(record=over).values()
    assert alert.key == "hold:swap:inconclusive:5"
    assert facts(alert)["errors"] == "needs about 2 h more at today's traffic"
    never = report(findings=[msgspec.structs.replace(FINDING, seconds_to_pass=None)])
    assert "cannot be proved" in facts(told(record=over, report=never)["hold:swap:inconclusive:5"])["errors"]


@pytest.mark.parametrize(
    "state",
    [ramp(), ramp(phase=Phase.HELD, entered_at=0.0), ramp(stage=None, share_percent=7, entered_at=0.0)],
    ids=["not over yet", "held", "no stage"],
)
def test_a_stage_whose_time_is_not_over_is_not_late(state: Ramp) -> None:
    assert told(record=record(state)) == {}


def test_a_passed_stage_tells_ops_what_to_type() -> None:
    [alert] = told(record=record(ramp(is_ready=True, entered_at=0.0))).values()
    assert (alert.kind, alert.severity) == ("ready_to_advance", Severity.INFO)
    assert "ready to advance to 25 %" in alert.title
    assert "rerank-canary advance" in facts(alert)["Next"]


def test_a_stage_that_went_back_is_told_for_an_hour() -> None:
    back = record(ramp(entered_at=NOW - 3590), actor=REVERTED_BY, reason="not proved yet: errors")
    assert next(iter(told(record=back).values())).kind == "reverted"
    long_ago = record(ramp(entered_at=NOW - 3601), actor=REVERTED_BY)
    assert told(record=long_ago) == {}


def test_a_spent_fallback_budget_is_told_even_after_a_rollback() -> None:
    words = "the fallback budget of $10 an hour is spent"
    assert told(budget=words)["fallback_budget:swap"].title == f"swap: {words}."
    assert set(told(budget=words, record=rolled_back())) == {"fallback_budget:swap", "rollback:rb-1"}


def test_no_label_that_a_receiver_knows_it_by_changes_while_it_lasts() -> None:
    held = {HoldReason.NO_DATA: 40.0}
    first = told(report=report(holds=[HoldReason.NO_DATA], held_seconds=held))
    later = wanted(
        Situation(
            flag="swap", record=record(), report=report(holds=[HoldReason.NO_DATA], held_seconds={"no_data": 70.0})
        ),
        LINKS,
        NOW + 30,
    )
    assert changes(later, first, NOW + 30) == []


def test_what_is_no_longer_wanted_is_over_once() -> None:
    known = told(budget="spent")
    [over] = changes({}, known, NOW + 5)
    assert (over.ends_at, over.version) == (NOW + 5, 2)
    assert changes({}, {over.key: over}, NOW + 9) == []


def test_what_begins_again_is_news_to_the_outbox() -> None:
    known = told(budget="spent")
    [over] = changes({}, known, NOW + 5)
    [again] = changes(known, {over.key: over}, NOW + 9)
    assert (again.is_over, again.version) == (False, 3)


def test_what_the_dispatcher_says_of_receivers_is_not_ended_by_the_guard() -> None:
    own = Alert(key="undelivered:x", kind="undelivered", severity=Severity.PAGE, flag="swap", title="x", starts_at=NOW)
    assert changes({}, {own.key: own}, NOW) == []


def test_no_alert_names_a_user_or_a_number_in_its_key() -> None:
    found = told(record=rolled_back(evidence=msgspec.json.encode(EVIDENCE).decode()), budget="spent")
    assert all(re.fullmatch(r"[a-z_]+:[a-z0-9:_-]+", key) for key in found)
