"""Makes one order of several. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

RRF_K = 60
"""As the paper has it: how little the first places are set apart from those after them."""


def fused(orders: Sequence[Sequence[int]], k: int = RRF_K) -> list[tuple[int, float]]:
    """Return (document, score) of every document of *orders*, the best first; ties as the earlier order has them.

    Reciprocal rank fusion: the sum of ``1 / (k + rank)`` over the orders that have the document, ranks from 1 on
    (Cormack, Clarke and Buettcher 2009, "Reciprocal rank fusion outperforms Condorcet and individual rank learning
    methods", section 2).

    Args:
        orders: documents, each once in an order, the best first.
        k: the constant of the formula.

    """
    scores: dict[int, float] = {}
    for order in orders:
        for rank, document in enumerate(order, start=1):
            scores[document] = scores.get(document, 0.0) + 1 / (k + rank)
    return sorted(scores.items(), key=lambda found: -found[1])
