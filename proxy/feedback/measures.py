"""What a click, a citation or a vote says of an order, and how much of it is the place's doing. Pure.

A user clicks what he has seen: a document at rank r is examined with a probability of (1/r)^eta, and a click there
stands for 1 / (1/r)^eta = r^eta users who would have clicked (Joachims, Swaminathan and Schnabel 2017, "Unbiased
Learning-to-Rank with Biased Feedback", section 5.1). The weight is clipped, as one click at the bottom would else count
for hundreds, and a share of weights by a sum of weights needs no count of the users who did not click (self-normalised:
Swaminathan and Joachims 2015).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

RECALL_AT = (5, 10)


class Placed(msgspec.Struct, frozen=True):
    """Where the documents stood that a user chose."""

    ranks: tuple[int | None, ...]
    """From 1; None: below what is known of the order."""
    known: int
    """How many places are known."""

    def recall_at(self, k: int) -> float:
        """Return which share of the chosen ones stood among the first *k*: click-recall@k."""
        return sum(rank is not None and rank <= k for rank in self.ranks) / len(self.ranks)

    @property
    def reciprocal_rank(self) -> float:
        """1 / rank of the best of them; 0 where none stood in a known place."""
        best = self.best
        return 1 / best if best is not None else 0.0

    @property
    def best(self) -> int | None:
        """The best rank."""
        return min((rank for rank in self.ranks if rank is not None), default=None)

    def weights(self, eta: float, clip: float) -> list[float]:
        """Return how many users each choice stands for: 1 or more, at most *clip*."""
        return [min((rank or self.known + 1) ** eta, clip) for rank in self.ranks]


def placed(order: Sequence[int], indices: Sequence[int]) -> Placed:
    """Return where *indices*, at least one, stood in *order*."""
    rank_of = {index: place for place, index in enumerate(order, 1)}
    return Placed(tuple(rank_of.get(index) for index in indices), len(order))
