"""The gate to the registry: what is worse by more than chance, or late, stays outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from proxy.learning.gate import compare, judge

if TYPE_CHECKING:
    from numpy.typing import NDArray

DICE = np.random.default_rng(7)
BEFORE = DICE.uniform(0.2, 1.0, 300)


def moved(by: float, spread: float = 0.1, queries: int = 300) -> NDArray[np.float64]:
    return BEFORE[:queries] + np.random.default_rng(3).normal(by, spread, queries)


def test_a_model_that_is_better_is_let_in_and_said_to_be() -> None:
    verdict = judge([compare("held-out", "nDCG@10", BEFORE, moved(0.03))])
    assert verdict.is_let_in
    assert verdict.beats == ["held-out"]
    [found] = verdict.comparisons
    assert found.low < found.difference < found.high
    assert found.queries == 300


def test_a_tie_is_let_in_and_beats_nothing() -> None:
    verdict = judge([compare("held-out", "nDCG@10", BEFORE, BEFORE.copy())])
    assert (verdict.is_let_in, verdict.beats) == (True, [])


def test_a_model_that_is_worse_on_one_set_is_refused_whatever_the_other_says() -> None:
    better = compare("held-out", "nDCG@10", BEFORE, moved(0.05))
    worse = compare("probes", "nDCG@10", BEFORE, moved(-0.03))
    verdict = judge([better, worse])
    assert not verdict.is_let_in
    assert len(verdict.reasons) == 1
    assert verdict.reasons[0].startswith("probes: nDCG@10 falls from ")
    assert "more than by chance" in verdict.reasons[0]


def test_a_loss_that_few_queries_cannot_prove_is_refused_all_the_same() -> None:
    after = BEFORE[:30].copy()
    after[0] -= 0.6  # one query of 30
    found = compare("probes", "nDCG@10", BEFORE[:30], after)
    assert not found.is_worse
    assert "by more than 0.01" in judge([found]).reasons[0]


def test_too_few_queries_tell_nothing() -> None:
    assert (
        "19 queries tell nothing"
        in judge([compare("probes", "nDCG@10", BEFORE[:19], moved(0.1, queries=19))]).reasons[0]
    )


def test_a_model_that_learned_its_lists_by_heart_is_told_so() -> None:
    worse = compare("held-out", "nDCG@10", BEFORE, moved(-0.03))
    training = compare("training", "nDCG@10", BEFORE, moved(0.2))
    assert judge([worse], training=training).reasons[1].startswith("it overfits")
    assert len(judge([worse], training=compare("training", "nDCG@10", BEFORE, BEFORE)).reasons) == 1
    assert judge([compare("held-out", "nDCG@10", BEFORE, moved(0.02))], training=training).is_let_in


@pytest.mark.parametrize(("milliseconds", "is_let_in"), [(599.0, True), (601.0, False), (None, True)])
def test_a_model_that_is_late_is_refused(milliseconds: float | None, is_let_in: bool) -> None:  # noqa: FBT001
    verdict = judge(
        [compare("held-out", "nDCG@10", BEFORE, moved(0.03))],
        p95_milliseconds=milliseconds,
        p95_limit_milliseconds=600.0,
    )
    assert verdict.is_let_in is is_let_in
    assert all("601 ms (p95)" in reason for reason in verdict.reasons)
