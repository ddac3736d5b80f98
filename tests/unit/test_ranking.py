from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.arms.base import ArmAnswer
from proxy.errors import InvalidScores
from proxy.ranking import as_received, check_scores, distinct, rank

if TYPE_CHECKING:
    from proxy.wire.canonical import Ranked

documents = st.lists(st.sampled_from(["", " ", "\n\t", "a", "b", "c", "ab", "\0", "🙂", "א"]) | st.text(max_size=3))
logits = st.floats(-50, 50)


def scored(texts: list[str], scores: list[float]) -> tuple[list[Ranked], list[float]]:
    shown = distinct(texts)
    found = [scores[i % len(scores)] for i in range(len(shown.texts))]
    return rank(shown, found, [1 / (1 + math.exp(-z)) for z in found]), found


@given(documents, st.lists(logits, min_size=1))
def test_every_document_comes_back_exactly_once(texts: list[str], scores: list[float]) -> None:
    ranked, _ = scored(texts, scores)
    assert sorted(r.index for r in ranked) == list(range(len(texts)))


@given(documents, st.lists(logits, min_size=1))
def test_scores_are_in_bounds_and_strictly_fall(texts: list[str], scores: list[float]) -> None:
    ranked, _ = scored(texts, scores)
    found = [r.score for r in ranked]
    assert all(0 <= score <= 1 for score in found)
    assert all(above > below for above, below in itertools.pairwise(found))


@given(documents, st.lists(logits, min_size=1))
def test_raw_scores_never_rise_with_the_rank_and_are_finite(texts: list[str], scores: list[float]) -> None:
    ranked, _ = scored(texts, scores)
    found = [r.logit for r in ranked]
    assert all(map(math.isfinite, found))
    assert found == sorted(found, reverse=True)


def test_a_thousand_certain_documents_still_have_scores_that_fall() -> None:
    texts = [str(i) for i in range(1000)]
    found = [r.score for r in rank(distinct(texts), [9.0] * 1000, [1.0] * 1000)]
    assert found[0] == 1.0
    assert len(set(found)) == 1000


def test_blank_documents_are_never_shown_and_come_last() -> None:
    shown = distinct(["", "a", "  ", "b", "\n"])
    assert shown.texts == ["a", "b"]
    ranked = rank(shown, [-9.0, -8.0], [0.0001, 0.0003])
    assert [r.index for r in ranked] == [3, 1, 0, 2, 4]


def test_equal_documents_are_shown_once_and_stay_as_received() -> None:
    shown = distinct(["x", "y", "x"])
    assert shown.texts == ["x", "y"]
    assert [r.index for r in rank(shown, [1.0, 2.0], [0.7, 0.9])] == [1, 0, 2]


def test_ties_keep_the_order_received() -> None:
    assert [r.index for r in rank(distinct(["b", "a"]), [1.0, 1.0], [0.7, 0.7])] == [0, 1]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_the_order_received_claims_nothing_but_itself(count: int) -> None:
    ranked = as_received(distinct(["d"] * count))
    assert [r.index for r in ranked] == list(range(count))
    assert all(0 < r.score < 1 for r in ranked)


@pytest.mark.parametrize(
    ("raw", "chances"),
    [([math.nan, 1.0], [0.5, 0.5]), ([1.0, math.inf], [0.5, 0.5]), ([1.0, 1.0], [0.5, math.nan]), ([1.0], [0.5, 0.5])],
    ids=["NaN", "infinite", "NaN probability", "one short"],
)
def test_scores_that_cannot_be_ranked_are_refused(raw: list[float], chances: list[float]) -> None:
    with pytest.raises(InvalidScores):
        check_scores(ArmAnswer(logits=tuple(raw), probabilities=tuple(chances), model="m"), 2)
