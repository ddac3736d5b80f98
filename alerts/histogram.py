"""Log-linear latency buckets: counts that add up over replicas and seconds, and are exact to 3 %.

Each power of two is cut into `_PARTS` equal parts, as HdrHistogram does; bucket 0 begins at `_SMALLEST`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_SMALLEST = 2.0**-13
"""Seconds; 0.12 ms. What is faster counts as this."""
_OCTAVES = 24
_PARTS = 32
BUCKETS = _OCTAVES * _PARTS
"""The last one takes all that is slower than 2,048 s."""


def bucket_of(seconds: float) -> int:
    """Return the bucket of a latency."""
    if not seconds > _SMALLEST:
        return 0
    if math.isinf(seconds):
        return BUCKETS - 1
    mantissa, exponent = math.frexp(seconds / _SMALLEST)
    return min(BUCKETS - 1, int((exponent - 1) * _PARTS + (mantissa * 2 - 1) * _PARTS))


def buckets_of(seconds: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Return the bucket of each latency of an array."""
    mantissa, exponent = np.frexp(np.maximum(seconds, _SMALLEST) / _SMALLEST)
    place = (exponent - 1) * _PARTS + ((mantissa * 2 - 1) * _PARTS).astype(np.int64)
    return np.minimum(place, BUCKETS - 1).astype(np.int64)


def upper_edge(bucket: int) -> float:
    """Return where a bucket ends, in seconds."""
    octave, part = divmod(bucket + 1, _PARTS)
    return _SMALLEST * 2.0**octave * (1 + part / _PARTS)


def quantile(counts: Mapping[int, float], q: float) -> float | None:
    """Return the upper edge of the bucket in which the *q*-quantile lies, in seconds; None without counts."""
    left = q * sum(counts.values())
    if not counts or not left:
        return None
    for bucket in sorted(counts):
        left -= counts[bucket]
        if left <= 0:
            return upper_edge(bucket)
    return upper_edge(max(counts))


def quantile_limit(counts: NDArray[np.float64], q: float, z: float) -> NDArray[np.float64]:
    """Return an upper confidence limit of the *q*-quantile of histograms (..., BUCKETS), in seconds; NaN: no counts.

    By order statistics: the quantile of rank ``q + z sqrt(q (1 - q) / n)`` (David and Nagaraja 2003, section 7.1).
    """
    n = counts.sum(-1)
    rank = np.minimum(1.0, q + z * np.sqrt(q * (1 - q) / np.maximum(n, 1)))
    place = (np.cumsum(counts, -1) < (rank * n)[..., None] - 1e-9).sum(-1)
    return np.where(n > 0, _EDGES[np.minimum(place, BUCKETS - 1)], np.nan)


_EDGES = np.array([upper_edge(bucket) for bucket in range(BUCKETS)])
