"""The verdict: the worst finding wins, and every reason to wait has its own name."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.guardrails import Method as Kind
from alerts.verdict import DEADLINE_STAGES, GRACE_SECONDS, Finding, HoldReason, Judgement, judge, sentence
from flags.ramp import Verdict

HOLDS = list(HoldReason)


def finding(name: str = "errors", **fields: Any) -> Finding:
    told: dict[str, Any] = {
        "guardrail": name,
        "words": "at most 5 % fail",
        "test": Kind.SHARE,
        "is_enforced": True,
        "is_breached": False,
        "is_passed": True,
        "evidence": 0.0,
        "threshold": 10.0,
        "trials": 200.0,
        "bad": 40.0,
        "estimate": 0.2,
        "lower": 0.125,
        "upper": 0.3,
        "limit": 0.05,
        "recent_seconds": 90.0,
        "recent_trials": 60.0,
        "recent_bad": 30.0,
        "design_effect": 1.0,
        "seconds_to_detect": 30.0,
        "seconds_to_pass": None,
    }
    return Finding(**{**told, **fields})


PASSED = finding("cost")
UNSURE = finding("recall", is_passed=False)
BREACHED = finding("errors", is_breached=True, is_passed=False, evidence=12.0)


def test_when_every_guardrail_passed_it_advances() -> None:
    found = judge([PASSED, finding("p95")], [])
    assert (found.verdict, found.hold, found.finding) == (Verdict.ADVANCE, None, None)


def test_one_that_is_not_sure_holds_and_is_named() -> None:
    found = judge([PASSED, UNSURE, finding("p95", is_passed=False)], [])
    assert (found.verdict, found.hold) == (Verdict.HOLD, HoldReason.INCONCLUSIVE)
    assert found.reason == "not proved yet: recall, p95"


@pytest.mark.parametrize(
    ("extended", "verdict"),
    [(0.0, Verdict.HOLD), (1.99, Verdict.HOLD), (DEADLINE_STAGES, Verdict.REVERT), (9.0, Verdict.REVERT)],
)
def test_one_that_is_not_sure_goes_back_after_the_deadline(extended: float, verdict: Verdict) -> None:
    found = judge([UNSURE], [], extended_stages=extended)
    assert (found.verdict, found.hold) == (verdict, HoldReason.INCONCLUSIVE)


def test_the_deadline_is_nothing_to_one_who_has_passed() -> None:
    assert judge([PASSED], [], extended_stages=9.0).verdict is Verdict.ADVANCE


@pytest.mark.parametrize("reason", HOLDS)
def test_each_reason_to_wait_holds_under_its_own_name_whatever_has_passed(reason: HoldReason) -> None:
    found = judge([PASSED], [reason], extended_stages=9.0)
    assert (found.verdict, found.hold, found.reason) == (Verdict.HOLD, reason, reason.value)


def test_of_several_reasons_to_wait_the_worst_is_told_whichever_came_first() -> None:
    for better, worse in combinations(reversed(HOLDS), 2):
        for both in ([better, worse], [worse, better]):
            assert judge([UNSURE], both).hold is worse


def test_every_reason_but_the_last_is_told_to_somebody_after_a_while() -> None:
    assert set(GRACE_SECONDS) == set(HOLDS) - {HoldReason.INCONCLUSIVE}
    assert min(GRACE_SECONDS.values()) > 0


@given(
    holds=st.lists(st.sampled_from(HOLDS)),
    others=st.lists(st.sampled_from([PASSED, UNSURE])),
    place=st.integers(0, 5),
    extended=st.floats(0, 10),
)
def test_a_breach_rolls_back_whatever_else_is_wrong(
    holds: list[HoldReason], others: list[Finding], place: int, extended: float
) -> None:
    findings = [*others[:place], BREACHED, *others[place:]]
    found = judge(findings, holds, extended_stages=extended)
    assert (found.verdict, found.finding, found.hold) == (Verdict.ROLLBACK, BREACHED, None)
    assert found.reason == sentence(BREACHED)


def test_of_several_breaches_the_one_furthest_beyond_its_threshold_is_told() -> None:
    far = finding("p95", is_breached=True, evidence=19.0, threshold=10.0)
    high = finding("cost", is_breached=True, evidence=25.0, threshold=20.0)
    for order in ([BREACHED, far, high], [high, far, BREACHED]):
        assert judge(order, []).finding is far


@pytest.mark.parametrize("holds", [[], [HoldReason.SPLIT]])
def test_what_is_only_reported_neither_rolls_back_nor_holds(holds: list[HoldReason]) -> None:
    reported = finding("p95", is_enforced=False, is_breached=True, is_passed=False, evidence=99.0)
    assert judge([PASSED, reported], holds) == judge([PASSED], holds)
    assert judge([UNSURE, reported], holds) == judge([UNSURE], holds)
    assert judge([BREACHED, reported], holds).finding is BREACHED


def test_a_share_is_told_since_the_fault_began_and_of_the_stage() -> None:
    found = finding(evidence=7 * math.log(10), threshold=6.25 * math.log(10))
    assert sentence(found) == (
        "errors: 30 of 60 (50%) in the last 1 min 30 s, but it must hold that at most 5 % fail; "
        "40 of 200 (20.00%) in the whole stage; evidence 10^7.0, where 10^6.2 is enough"
    )


def test_a_test_between_arms_is_told_with_what_would_do() -> None:
    found = finding(test=Kind.BETWEEN, limit=0.0425)
    assert "20.00%, where 4.25% would do in the whole stage" in sentence(found)


def test_a_mean_is_told_with_its_floor() -> None:
    found = finding(test=Kind.MEAN, estimate=0.4321, upper=0.4512, limit=0.48)
    assert "0.500 on average of 60 in the last 1 min 30 s" in sentence(found)


def test_a_judgement_comes_back_from_json_as_it_was() -> None:
    for judgement in (judge([BREACHED], []), judge([UNSURE], [HoldReason.SPLIT]), judge([PASSED], [])):
        assert msgspec.json.decode(msgspec.json.encode(judgement), type=Judgement) == judgement
