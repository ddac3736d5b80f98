"""Whether a new model may enter the registry: it beats or ties the one that serves, on every set, in time.

A model is let in where nothing shows that it is worse: on no set is the mean difference, query by query, below zero by
more than chance (95 % interval by resampling queries, and Fisher's randomisation test), or below `TOLERANCE` whatever
chance says; and its p95 is within the limit. Whether it is any better is said, too: a tie is kept, but nobody needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from proxy.learning.card import Comparison
from proxy.offline.significance import intervals, randomisation_p

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

TOLERANCE = 0.01
"""Of nDCG or recall: more is not lost for want of queries."""
LEARNED_BY_HEART = 0.02
FEWEST_QUERIES = 20


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the gate says."""

    comparisons: list[Comparison]
    p95_milliseconds: float | None
    p95_limit_milliseconds: float | None
    reasons: list[str]
    """Why it is refused; none: it is not."""

    @property
    def is_let_in(self) -> bool:
        """Whether it beats or ties the current one, in time."""
        return not self.reasons

    @property
    def beats(self) -> list[str]:
        """Sets on which it is better by more than chance."""
        return [each.name for each in self.comparisons if each.is_better]


def compare(
    name: str, measure: str, current: NDArray[np.float64], candidate: NDArray[np.float64], *, seed: int = 1
) -> Comparison:
    """Return how two models did on the same queries; both of shape (queries,)."""
    differences = (candidate - current)[:, None]
    [(low, high)] = intervals(differences, seed=seed)
    [p] = randomisation_p(differences, seed=seed)
    return Comparison(
        name=name,
        measure=measure,
        queries=len(current),
        current=float(current.mean()),
        candidate=float(candidate.mean()),
        low=low,
        high=high,
        p=p,
    )


def judge(
    comparisons: Sequence[Comparison],
    *,
    training: Comparison | None = None,
    p95_milliseconds: float | None = None,
    p95_limit_milliseconds: float | None = None,
) -> Verdict:
    """Return the verdict.

    Args:
        comparisons: on sets that it was not trained on.
        training: on some lists that it was trained on; only says why it is refused, if it is.
        p95_milliseconds: of 25 documents; None: not measured.
        p95_limit_milliseconds: the most that is allowed.

    """
    reasons = [reason for each in comparisons if (reason := _reason(each))]
    if reasons and training is not None and training.difference > LEARNED_BY_HEART:
        rise = f"{training.measure} rose by {training.difference:.3f}"
        reasons.append(f"it overfits: on the lists it was trained on {rise}, not here")
    if (
        p95_milliseconds is not None
        and p95_limit_milliseconds is not None
        and p95_milliseconds > p95_limit_milliseconds
    ):
        limit = f"at most {p95_limit_milliseconds or 0:.0f} are allowed"
        reasons.append(f"25 documents take {p95_milliseconds:.0f} ms (p95), {limit}")
    return Verdict(
        comparisons=list(comparisons),
        p95_milliseconds=p95_milliseconds,
        p95_limit_milliseconds=p95_limit_milliseconds,
        reasons=reasons,
    )


def _reason(found: Comparison) -> str | None:
    if found.queries < FEWEST_QUERIES:
        return f"{found.name}: {found.queries} queries tell nothing, it takes {FEWEST_QUERIES}"
    words = f"{found.name}: {found.measure} falls from {found.current:.4f} to {found.candidate:.4f}"
    if found.is_worse:
        return f"{words}, more than by chance (p {found.p:.4f})"
    if found.difference < -TOLERANCE:
        return f"{words}, by more than {TOLERANCE}"
    return None
