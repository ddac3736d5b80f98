"""How good an order of judged documents is. Pure.

As trec_eval has them (`ndcg_cut`, `recall`, `recip_rank`): gain is the grade, discount log2 (Järvelin and Kekäläinen
2002, "Cumulated gain-based evaluation of IR techniques", eq. 2), relevant is every grade above 0.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """How good one order is; each from 0 to 1."""

    ndcg_at_10: float
    ndcg_at_25: float
    recall_at_5: float
    recall_at_25: float | None
    """None: there are no more than 25 documents, and every order has the same."""
    rr_at_10: float


def order_of(scores: Sequence[float]) -> list[int]:
    """Return the places of *scores*, the highest first; ties in the order received."""
    return sorted(range(len(scores)), key=lambda place: -scores[place])


def quality_of(judgements: Mapping[int, int], scores: Sequence[float]) -> Quality:
    """Return how good the order is that *scores* make; *judgements* are grades by place, one at least above 0."""
    gains = [judgements.get(place, 0) for place in order_of(scores)]
    grades = list(judgements.values())
    return Quality(
        ndcg_at_10=ndcg(gains, grades, 10),
        ndcg_at_25=ndcg(gains, grades, 25),
        recall_at_5=recall(gains, grades, 5),
        recall_at_25=recall(gains, grades, 25) if len(gains) > 25 else None,
        rr_at_10=reciprocal_rank(gains, 10),
    )


def ndcg(gains: Sequence[int], grades: Iterable[int], depth: int) -> float:
    """Return nDCG@*depth* of *gains*, the grades in the order ranked, among all *grades*; 0 where none is above 0."""
    best = _dcg(sorted(grades, reverse=True)[:depth])
    return _dcg(gains[:depth]) / best if best > 0 else 0.0


def recall(gains: Sequence[int], grades: Iterable[int], depth: int) -> float:
    """Return which share of the relevant documents is among the first *depth*; 0 where none is relevant."""
    relevant = sum(grade > 0 for grade in grades)
    return sum(gain > 0 for gain in gains[:depth]) / relevant if relevant else 0.0


def reciprocal_rank(gains: Sequence[int], depth: int) -> float:
    """Return 1 over the rank of the first relevant document; 0 where none is among the first *depth*."""
    return next((1 / rank for rank, gain in enumerate(gains[:depth], 1) if gain > 0), 0.0)


def _dcg(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains, 1))
