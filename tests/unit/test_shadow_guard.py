"""What the guard makes of shadows: from pairs of orders, through the counts of a replica, to a breach or none."""

from __future__ import annotations

import random
import statistics
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from alerts.agreement import agreement_of
from alerts.guardrails import Value, default_guardrails
from alerts.judge import Judge
from alerts.quality import order_of
from alerts.signals import GROUPS, Signals, tick_of
from flags.vocabulary import Arm
from proxy.exposure import Attempt, Outcome, Role
from proxy.guarding import guardrails_of
from proxy.quality_settings import Shadow
from proxy.settings import Settings
from proxy.shadow import Shadowed
from proxy.shadow_metrics import OverlapCount
from tests.unit.test_signal_observer import observer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

DAY = 86_400.0
SHARE = np.array([0.05])
ATTEMPT = Attempt(role=Role.CANDIDATE, model="m", outcome=Outcome.OK, started_at=0.0, seconds=0.1)


def two_rerankers(chance: random.Random, *, is_reversed: float = 0.0) -> tuple[list[int], list[int]]:
    """Return two orders of 25 documents by one truth with noise of each arm's own; some of the candidate's reversed."""
    truth = [chance.gauss(0, 1) for _ in range(25)]
    control, candidate = ([score + chance.gauss(0, 0.5) for score in truth] for _ in range(2))
    if chance.random() < is_reversed:
        candidate = [-score for score in candidate]
    return order_of(control), order_of(candidate)


def expected() -> float:
    """Return the mean overlap of the two while both are well."""
    chance = random.Random(1)  # noqa: S311 - the same pairs in every run, no secret
    return statistics.mean(agreement_of(*two_rerankers(chance)).overlap_at_5 or 0.0 for _ in range(20_000))


EXPECTED = expected()


def pairs_to_breach(
    expected_overlap: float, make: Callable[[random.Random], tuple[Sequence[int], Sequence[int]]], most: int, seed: int
) -> int | None:
    """Return after how many pairs, one a second, the guard breaches; None: not after *most*."""
    chance = random.Random(seed)  # noqa: S311 - likewise
    judge = Judge(default_guardrails(0.6, expected_overlap), DAY, 0.01)
    place = [each.name for each in judge.guardrails].index("overlap")
    state, seen = judge.begin(), observer()
    count = OverlapCount(seen.count_value, chance.random)
    before: Signals | None = None
    for number in range(1, most + 1):
        agreement = agreement_of(*make(chance))
        group = chance.randrange(GROUPS)
        count.shadowed(
            Shadowed(
                arm=Arm.CONTROL,
                attempt=ATTEMPT,
                was_known=False,
                agreement=agreement,
                request_id="r",
                scores=(),
                user_group=group,
                traceparent=None,
            )
        )
        told = msgspec.convert(msgspec.to_builtins(seen.signals), Signals, strict=False)
        judge.step(state, tick_of(told, before), SHARE)
        before = told
        if state.has_breached[0, place]:
            return number
    assert not state.has_breached.any()
    return None


def test_orders_that_are_reversed_now_and_then_breach_within_a_few_hundred_pairs() -> None:
    needed = [
        pairs_to_breach(EXPECTED, lambda chance: two_rerankers(chance, is_reversed=0.25), 2000, seed)
        for seed in range(7)
    ]
    assert None not in needed
    assert statistics.median(number or 0 for number in needed) <= 300


def test_orders_that_are_always_reversed_breach_within_fifty_pairs() -> None:
    found = pairs_to_breach(EXPECTED, lambda chance: two_rerankers(chance, is_reversed=1.0), 200, 3)
    assert found is not None
    assert found <= 50


def test_two_good_rerankers_that_agree_as_expected_breach_nothing() -> None:
    assert pairs_to_breach(EXPECTED, two_rerankers, 3000, 5) is None


def test_the_same_arm_twice_breaches_nothing_though_all_is_expected_of_it() -> None:
    def same(chance: random.Random) -> tuple[list[int], list[int]]:
        order, _ = two_rerankers(chance)
        return order, order

    assert pairs_to_breach(1.0, same, 1000, 5) is None


@pytest.mark.parametrize(
    ("shadow", "is_judged"),
    [
        (Shadow(is_on=True, expected_overlap=0.6), True),
        (Shadow(is_on=True), False),
        (Shadow(expected_overlap=0.6), False),
    ],
    ids=["said what is expected", "not said", "no shadows"],
)
def test_overlap_is_judged_only_where_somebody_said_what_is_expected(shadow: Shadow, *, is_judged: bool) -> None:
    found = guardrails_of(Settings(shadow=shadow))
    assert (Value.OVERLAP in {each.signal for each in found.values()}) is is_judged
    if is_judged:
        assert found["overlap"].floor == pytest.approx(0.58)
