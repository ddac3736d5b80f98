"""Is a difference between two rerankers more than the luck of which queries were asked? Pure, but for seeded dice.

Queries are the unit: both rerankers ranked the same ones, so the differences query by query are what is resampled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

RESAMPLES = 10_000
_CHUNK_CELLS = 4_000_000
"""Cells of one chunk of resamples, so that memory stays bounded however many queries there are."""


def intervals(values: NDArray[np.float64], *, seed: int, level: float = 0.95) -> list[tuple[float, float]]:
    """Return an interval for the mean of each column: the percentile bootstrap (Efron and Tibshirani 1993, ch. 13).

    Args:
        values: (queries, columns), at least one query.
        seed: the same seed, the same interval.
        level: how often such intervals hold the mean.

    """
    dice = np.random.default_rng(seed)
    queries = len(values)
    means = np.concatenate(
        [
            dice.multinomial(queries, np.full(queries, 1 / queries), size).astype(np.float64) @ values / queries
            for size in _chunks(queries)
        ]
    )
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


def randomisation_p(differences: NDArray[np.float64], *, seed: int) -> list[float]:
    """Return for each column how often chance alone makes a mean difference as far from 0 as the one seen.

    Fisher's randomisation test, two-sided, paired by query (Smucker, Allan and Carterette 2007, section 3.1): under
    the null the sign of each query's difference is a toss. All assignments of signs where there are no more of them
    than `RESAMPLES`, else that many at random, the one seen counted among them (Phipson and Smyth 2010, eq. 2).
    """
    queries = len(differences)
    seen = np.abs(differences.sum(axis=0)) * (1 - 1e-12)
    if 2**queries <= RESAMPLES:
        every = (np.arange(2**queries)[:, None] >> np.arange(queries)) & 1
        found = np.abs((2.0 * every - 1) @ differences) >= seen
        return [float(p) for p in found.mean(axis=0)]
    dice = np.random.default_rng(seed)
    count = np.zeros(differences.shape[1])
    for size in _chunks(queries):
        signs = 2.0 * dice.integers(0, 2, (size, queries), dtype=np.int8) - 1
        count += (np.abs(signs @ differences) >= seen).sum(axis=0)
    return [float(p) for p in (count + 1) / (RESAMPLES + 1)]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values that may be read side by side: Holm 1979, step down."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def _chunks(queries: int) -> Iterator[int]:
    size = max(1, min(RESAMPLES, _CHUNK_CELLS // queries))
    for start in range(0, RESAMPLES, size):
        yield min(size, RESAMPLES - start)
