"""Rules in use elsewhere, on the same traffic: what they decide from one look a minute.

As their defaults and their documentation's examples have them: success rate of at least 99 %, the p95
limit, on windows of a minute. None of them knows that it looks often.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np

from alerts.guardrails import SLOW_SHARE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alerts.simulation.traffic import Minute

    Array = NDArray[np.float64]
    Decided = NDArray[np.bool_]

_ERRORS = 0.01
_FALLBACKS = 0.10
_HOUR_MINUTES = 60
_KAYENTA_Z = 2.326
"""Two-sided level of 2 %."""
_FIXED_Z = 2.326
"""One-sided level of 1 %."""


class Rival(Protocol):
    """One rule."""

    name: str

    def look(self, minute: Minute) -> Decided:
        """Return which runs (r,) it rolls back after this minute."""


def rivals(runs: int, p95_seconds: float) -> tuple[Rival, ...]:
    """Return all of them, for *runs* runs."""
    del p95_seconds
    return Argo(runs), Flagger(runs), Kayenta(runs), FixedWindow(runs)


def _is_over_a_limit(minute: Minute) -> Decided:
    """Return where this minute's candidate is over a threshold, as it was measured."""
    n = minute.requests[:, 1]
    some = n > 0
    n = np.maximum(n, 1)
    slow = minute.slow[:, 1] / n > SLOW_SHARE
    return some & (slow | (minute.errors[:, 1] / n > _ERRORS) | (minute.fallbacks[:, 1] / n > _FALLBACKS))


class Argo:
    """Argo Rollouts' analysis: failureLimit 0, the default, ends at the first failed measurement."""

    name = "argo"

    def __init__(self, runs: int) -> None:
        del runs

    def look(self, minute: Minute) -> Decided:
        """Decide."""
        return _is_over_a_limit(minute)


class Flagger:
    """Flagger: five failed checks, at an interval of a minute, as in its documentation's examples."""

    name = "flagger"
    _THRESHOLD = 5

    def __init__(self, runs: int) -> None:
        self._failed = np.zeros(runs)

    def look(self, minute: Minute) -> Decided:
        """Decide."""
        self._failed += _is_over_a_limit(minute)
        return self._failed >= self._THRESHOLD


class Kayenta:
    """Kayenta's judge: Mann-Whitney of an hour's minutes against control's, at a two-sided level of 2 %, each hour.

    Latency (mean of the minute) and error share; the effect has to be 5 % at least.
    """

    name = "kayenta"

    def __init__(self, runs: int) -> None:
        self._minutes: list[Array] = []
        self._runs = runs

    def look(self, minute: Minute) -> Decided:
        """Decide, once an hour."""
        n = np.maximum(minute.requests, 1)
        self._minutes.append(np.stack([minute.latency_seconds / n, minute.errors / n]))
        if len(self._minutes) < _HOUR_MINUTES:
            return np.zeros(self._runs, dtype=bool)
        hour = np.stack(self._minutes)  # minutes, metrics, r, arms
        self._minutes = []
        return _rank_sum_is_higher(hour[:, 0]) | _rank_sum_is_higher(hour[:, 1])


class FixedWindow:
    """A two-proportion z-test at a level of 1 % on five minutes, again and again."""

    name = "fixed-window"
    _MINUTES = 5

    def __init__(self, runs: int) -> None:
        self._seen = np.zeros((3, runs, 2))
        self._count = 0

    def look(self, minute: Minute) -> Decided:
        """Decide."""
        self._seen += np.stack([minute.requests, minute.errors, minute.slow])
        self._count += 1
        if self._count % self._MINUTES:
            return np.zeros(self._seen.shape[1], dtype=bool)
        (requests, errors, slow), self._seen = self._seen, np.zeros_like(self._seen)
        n = np.maximum(requests, 1)
        pooled = errors.sum(-1) / n.sum(-1)
        spread = np.sqrt(np.maximum(pooled * (1 - pooled) * (1 / n).sum(-1), 1e-12))
        error_z = (errors[:, 1] / n[:, 1] - errors[:, 0] / n[:, 0]) / spread
        slow_z = (slow[:, 1] / n[:, 1] - SLOW_SHARE) / np.sqrt(SLOW_SHARE * (1 - SLOW_SHARE) / n[:, 1])
        return (requests[:, 1] > 0) & ((error_z > _FIXED_Z) | (slow_z > _FIXED_Z))


def _rank_sum_is_higher(hour: Array) -> Decided:
    """Return where the candidate's minutes (minutes, r, arms) are higher than control's, by Mann-Whitney's U."""
    control, candidate = hour[:, :, 0], hour[:, :, 1]
    above = (candidate[:, None] > control[None]).sum((0, 1)) + 0.5 * (candidate[:, None] == control[None]).sum((0, 1))
    m = len(hour)
    z = (above - m * m / 2) / np.sqrt(m * m * (2 * m + 1) / 12)
    is_large = candidate.mean(0) > 1.05 * control.mean(0)
    return (z > _KAYENTA_Z) & is_large
