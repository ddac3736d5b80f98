"""How slow control's users may find it: the moving limit that the candidate's p95 is compared with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from alerts.histogram import BUCKETS, quantile_limit

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

_KEPT_A_TICK = 0.5 ** (1 / 1800)
"""Half an hour ago weighs half."""
_MIN_REQUESTS = 200.0
_Z = 3.0


class Relative(msgspec.Struct, frozen=True):
    """How the candidate's p95 is held against control's."""

    ratio: float
    """Times control's p95."""
    baseline_p95_seconds: float = math.nan
    """Stands for control's where it has too little traffic; NaN: there is no baseline."""


class ControlLatency(msgspec.Struct, kw_only=True):
    """Control's latencies of late."""

    counts: Array
    """(r, BUCKETS), the older the less they weigh"""

    @classmethod
    def none(cls, runs: int = 1) -> ControlLatency:
        """Return that nothing is known."""
        return cls(counts=np.zeros((runs, BUCKETS)))

    def add(self, counts: Array, ticks: float) -> None:
        """Add, in place, the latencies (r, BUCKETS) of the last *ticks* seconds."""
        self.counts = self.counts * _KEPT_A_TICK**ticks + counts

    def limit(self, ratio: float, otherwise: float = math.nan) -> Array:
        """Return *ratio* times the upper confidence limit of the p95 (r,), in seconds.

        *otherwise* stands for that limit where too little is known: the baseline's; NaN: there is none.
        """
        known = self.counts.sum(-1) >= _MIN_REQUESTS
        return ratio * np.where(known, quantile_limit(self.counts, 0.95, _Z), otherwise)


def as_counts(latency: Mapping[int, int]) -> Array:
    """Return a histogram (1, BUCKETS)."""
    counts = np.zeros((1, BUCKETS))
    for bucket, count in latency.items():
        counts[0, bucket] += count
    return counts
