"""How good an order of judged documents is: hand-computed, and as ir-measures has it."""

from __future__ import annotations

import importlib.util
import random
from math import log2
from typing import TYPE_CHECKING

import pytest

from alerts.quality import ndcg, order_of, quality_of, recall, reciprocal_rank
from tests.conftest import require_part

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MEASURES = {
    "nDCG@10": "ndcg_at_10",
    "nDCG@25": "ndcg_at_25",
    "R@5": "recall_at_5",
    "R@25": "recall_at_25",
    "RR@10": "rr_at_10",
}


@pytest.mark.parametrize(
    ("judgements", "scores", "ndcg_at_10", "recall_at_5"),
    [
        ({1: 2, 3: 1}, [0, 9, 1, 8], 1.0, 1.0),
        ({1: 2, 3: 1}, [9, 8, 7, 6], 0.643322, 1.0),
        ({0: 1, 3: 2}, [0.5, 0.9, 0.2, 0.1], 0.567207, 1.0),
        ({6: 1}, [7, 6, 5, 4, 3, 2, 1], 0.333333, 0.0),
        ({0: 1, 1: 1, 6: 3}, [1, 2, 3, 4, 5, 6, 0], 0.421953, 1 / 3),
        ({10: 1}, list(range(11, 0, -1)), 0.0, 0.0),
    ],
    ids=["best", "as received", "graded", "seventh", "several", "eleventh"],
)
def test_an_order_is_measured_as_computed_once_by_ir_measures(
    judgements: dict[int, int], scores: Sequence[float], ndcg_at_10: float, recall_at_5: float
) -> None:
    found = quality_of(judgements, scores)
    assert found.ndcg_at_10 == pytest.approx(ndcg_at_10, abs=1e-6)
    assert found.recall_at_5 == pytest.approx(recall_at_5)


def test_each_measure_by_hand() -> None:
    """Twelve documents, best first; relevant are the third (grade 2), the sixth and the twelfth (1 each)."""
    found = quality_of({2: 2, 5: 1, 11: 1}, list(range(12, 0, -1)))
    best = 2 / log2(2) + 1 / log2(3) + 1 / log2(4)
    assert found.ndcg_at_10 == pytest.approx((2 / log2(4) + 1 / log2(7)) / best)
    assert found.ndcg_at_25 == pytest.approx((2 / log2(4) + 1 / log2(7) + 1 / log2(13)) / best)
    assert (found.recall_at_5, found.recall_at_25, found.rr_at_10) == (1 / 3, None, 1 / 3)


def test_a_recall_that_no_order_could_change_is_none() -> None:
    assert quality_of({24: 1}, [0.0] * 25).recall_at_25 is None
    assert quality_of({25: 1}, list(range(26))).recall_at_25 == 1
    assert quality_of({0: 1}, list(range(26))).recall_at_25 == 0


def test_ties_fall_in_the_order_received() -> None:
    assert order_of([1, 2, 1, 2]) == [1, 3, 0, 2]
    assert quality_of({0: 1}, [1, 1, 1]).ndcg_at_10 == 1
    assert quality_of({2: 1}, [1, 1, 1]).ndcg_at_10 == pytest.approx(0.5)


def test_where_nothing_is_relevant_every_measure_is_zero() -> None:
    assert (ndcg([0, 0], [0], 10), recall([0, 0], [], 5), reciprocal_rank([0, 0], 10)) == (0, 0, 0)


def by_ir_measures(judgements: Mapping[int, int], scores: Sequence[float]) -> dict[str, float]:
    import ir_measures  # noqa: PLC0415 - a part that may be missing

    qrels = {"q": {f"d{place:03}": grade for place, grade in judgements.items()}}
    run = {"q": {f"d{place:03}": float(score) for place, score in enumerate(scores)}}
    parsed = [ir_measures.parse_measure(name) for name in MEASURES]
    return {str(name): value for name, value in ir_measures.calc_aggregate(parsed, qrels, run).items()}


@pytest.mark.parametrize("seed", range(30))
def test_every_measure_is_that_of_ir_measures(seed: int) -> None:
    require_part("ir_measures", found=importlib.util.find_spec("ir_measures") is not None)
    chance = random.Random(seed)  # noqa: S311 - the same cases in every run, no secret
    count = chance.choice([2, 7, 25, 26, 40])
    scores = [chance.gauss(0, 3) for _ in range(count)]
    judged = chance.sample(range(count), chance.randint(1, min(count, 12)))
    judgements = {place: chance.choice([0, 0, 1, 2, 3]) for place in judged} | {judged[0]: 1}
    found, expected = quality_of(judgements, scores), by_ir_measures(judgements, scores)
    for name, field in MEASURES.items():
        if (value := getattr(found, field)) is not None:
            assert value == pytest.approx(expected[name], abs=1e-6), name
