"""How far two orders of the same documents agree. Pure.

None of it says which of the two is better: that takes judgements (`alerts.quality`). A measure that no order of so few
documents could change is None rather than 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

PERSISTENCE = 0.9
"""Of `rank_biased_overlap`: the ten best have 86 % of the weight (eq. 21 of its paper)."""
_DEEPEST = 200
"""Ranks that are compared at most; all below them have 1e-9 of the weight."""


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Two orders of the same documents; each from 0 to 1."""

    overlap_at_5: float | None
    """Share of the five best that both have: recall@5 of either arm against the other's five best, too."""
    overlap_at_10: float | None
    rbo: float
    """`rank_biased_overlap`."""
    top_1: float
    """1: both have the same document first."""
    candidate_recall_at_10: float | None
    """Share of control's five best that are among the candidate's ten best."""
    control_recall_at_10: float | None
    """Share of the candidate's five best that are among control's ten best."""


def agreement_of(control: Sequence[int], candidate: Sequence[int]) -> Agreement:
    """Return how far two orders agree: the same two documents or more, the best first, each once."""
    count = len(control)
    return Agreement(
        overlap_at_5=overlap(control, candidate, 5) if count > 5 else None,
        overlap_at_10=overlap(control, candidate, 10) if count > 10 else None,
        rbo=rank_biased_overlap(control, candidate),
        top_1=float(control[0] == candidate[0]),
        candidate_recall_at_10=recall_of_top(control, candidate, top=5, depth=10) if count > 10 else None,
        control_recall_at_10=recall_of_top(candidate, control, top=5, depth=10) if count > 10 else None,
    )


def overlap(one: Sequence[int], other: Sequence[int], depth: int) -> float:
    """Return which share of the *depth* best both have."""
    return recall_of_top(one, other, top=depth, depth=depth)


def recall_of_top(reference: Sequence[int], order: Sequence[int], *, top: int, depth: int) -> float:
    """Return which share of the *top* best of *reference* is among the *depth* best of *order*."""
    wanted = set(reference[:top])
    return len(wanted.intersection(order[:depth])) / len(wanted)


def rank_biased_overlap(one: Sequence[int], other: Sequence[int], persistence: float = PERSISTENCE) -> float:
    """Return RBO_ext of two lists of one length without ties: weighs the top, 1 for equal ones, 0 for disjoint ones.

    ``(X_k / k) p^k + (1 - p) / p  sum_{d=1..k} (X_d / d) p^d`` with X_d documents in common among the first d (Webber,
    Moffat, Zobel 2010, "A similarity measure for indefinite rankings", ACM TOIS 28(4), eq. 32 for lists of one length):
    the agreement at the last depth is taken to go on below it.
    """
    seen: set[int] = set()
    total, common, weight = 0.0, 0, 1.0
    for depth, (a, b) in enumerate(zip(one[:_DEEPEST], other[:_DEEPEST], strict=True), 1):
        common += (a == b) + (a != b and a in seen) + (a != b and b in seen)
        seen.update((a, b))
        weight *= persistence
        total += common / depth * weight
    return total * (1 - persistence) / persistence + common / depth * weight
