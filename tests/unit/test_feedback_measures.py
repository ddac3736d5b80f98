"""Click-recall, reciprocal rank and the correction for position bias, against values worked out by hand."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from proxy.feedback.measures import placed

ORDER = (4, 2, 0, 7, 1, 9, 3, 5, 6, 8, 10, 11)


def test_ranks_are_counted_from_one_in_the_order_served() -> None:
    assert placed(ORDER, [4, 9, 11]).ranks == (1, 6, 12)
    assert placed(ORDER, [30]).ranks == (None,)


@pytest.mark.parametrize(
    ("chosen", "at_5", "at_10", "reciprocal_rank"),
    [
        ([4], 1, 1, 1),
        ([9], 0, 1, 1 / 6),
        ([2, 9, 11], 1 / 3, 2 / 3, 1 / 2),
        ([30], 0, 0, 0),
        ([30, 0], 0.5, 0.5, 1 / 3),
    ],
)
def test_recall_and_reciprocal_rank(chosen: list[int], at_5: float, at_10: float, reciprocal_rank: float) -> None:
    found = placed(ORDER, chosen)
    assert found.recall_at(5) == pytest.approx(at_5)
    assert found.recall_at(10) == pytest.approx(at_10)
    assert found.reciprocal_rank == pytest.approx(reciprocal_rank)


def test_a_choice_stands_for_those_who_did_not_look_so_far() -> None:
    found = placed(ORDER, [4, 0, 11, 30])
    assert found.weights(1.0, 100) == [1, 3, 12, 13]
    assert found.weights(0.5, 100) == pytest.approx([1, 3**0.5, 12**0.5, 13**0.5])
    assert found.weights(0.0, 100) == [1, 1, 1, 1]
    assert found.weights(1.0, 10) == [1, 3, 10, 10]


def test_the_correction_finds_the_recall_that_clicks_hide() -> None:
    """Users who click one relevant document of twelve if they look that far, at rank r with a probability of 1/r."""
    dice = random.Random(1)  # noqa: S311 - a simulation
    clicks: Counter[int] = Counter()
    for _ in range(60_000):
        rank = dice.choice([2, 8])  # half of the relevant documents stand at rank 2, half at rank 8
        clicks[rank] += dice.random() < 1 / rank
    weight = {rank: placed(tuple(range(12)), [rank - 1]).weights(1.0, 100)[0] * n for rank, n in clicks.items()}
    assert clicks[2] / sum(clicks.values()) > 0.75  # what the clicks alone say
    assert weight[2] / sum(weight.values()) == pytest.approx(0.5, abs=0.02)
