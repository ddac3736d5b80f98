"""What a leader makes of what the replicas tell, second by second."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from alerts.guardrails import default_guardrails
from alerts.judge import Judge
from alerts.judging import Judging
from alerts.relative_limit import Relative
from alerts.signals import Signals
from alerts.verdict import Finding, HoldReason, Judgement
from flags.ramp import Ramp, Verdict, move
from flags.record import RampRecord

if TYPE_CHECKING:
    from alerts.report import Report

AT_5 = RampRecord(ramp=move(Ramp(rollout_id="r", group_id="g"), 5, 0.0), version=3)


def judging(record: RampRecord = AT_5) -> Judging:
    work = Judging(Judge(default_guardrails(0.6), 86_400.0, 0.01), Relative(1.25), None, None, None)
    work.follow(record)
    return work


def told(at: float, candidate: int = 0, not_ready: int = 0, control: int = 0) -> dict[str, str]:
    signals = Signals(at=at, started_at=0.0, not_ready=not_ready)
    signals.arms[0].requests, signals.arms[1].requests = control, candidate
    return {"a": msgspec.json.encode(signals).decode()}


def holds_after(work: Judging, counts: list[tuple[int, int]], record: RampRecord = AT_5) -> list[HoldReason]:
    """Return what says to wait after seconds in which so many had the candidate, or could not."""
    candidate, not_ready, found = 0, 0, list[HoldReason]()
    for second, (served, refused) in enumerate([(0, 0), *counts]):
        candidate, not_ready = candidate + served, not_ready + refused
        tick = work.read(told(second + 1.0, candidate, not_ready), second + 1.0)
        found = work.judge_tick(tick, record, second + 1.0)
    return found


@pytest.mark.parametrize(
    ("counts", "is_held"),
    [
        ([(0, 3)] * 5, True),
        ([(0, 3)] * 4, False),
        ([(0, 3), (0, 0)] * 5, True),
        ([(0, 3)] * 9 + [(5, 1)], False),
    ],
    ids=["nobody for five seconds", "only just", "seconds without requests say nothing", "most have it again"],
)
def test_a_candidate_that_is_not_ready_holds_under_that_name(counts: list[tuple[int, int]], is_held: bool) -> None:  # noqa: FBT001 - a parameter
    assert (HoldReason.NOT_READY in holds_after(judging(), counts)) is is_held


def test_somebody_has_the_candidate_where_the_share_says_nobody() -> None:
    at_0 = msgspec.structs.replace(AT_5, ramp=msgspec.structs.replace(AT_5.ramp, share_percent=0, stage=None))
    work = judging(at_0)
    holds_after(work, [(3, 0)], at_0)
    assert work.has_candidate
    holds_after(work, [(3, 0)] + [(0, 0)] * 61, at_0)
    assert not work.has_candidate


def test_what_was_found_of_one_stage_says_nothing_of_the_next() -> None:
    work = judging()
    before = work.report(None, "a", AT_5, [], 1.0)
    passed = Finding(
        guardrail="errors",
        words="",
        test=default_guardrails(0.6)[0].test,
        is_enforced=True,
        is_breached=False,
        is_passed=True,
        evidence=0.0,
        threshold=1.0,
        trials=1.0,
        bad=0.0,
        estimate=0.0,
        lower=0.0,
        upper=0.0,
        limit=0.0,
        recent_seconds=0.0,
        recent_trials=0.0,
        recent_bad=0.0,
        design_effect=1.0,
        seconds_to_detect=None,
        seconds_to_pass=None,
    )
    known = msgspec.structs.replace(before, findings=[passed], findings_at=1.0)
    assert verdict(work, known, AT_5) is Verdict.ADVANCE
    at_25 = msgspec.structs.replace(AT_5, ramp=move(AT_5.ramp, 25, 2.0), version=4)
    work.follow(at_25)
    found = work.report(known, "a", at_25, [], 2.0)
    assert (found.judgement.verdict, found.findings, found.findings_at) == (Verdict.HOLD, [], 0.0)


def verdict(work: Judging, known: Report, record: RampRecord) -> Verdict:
    found: Judgement = work.report(known, "a", record, [], 1.5).judgement
    return found.verdict
