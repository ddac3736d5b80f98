"""How many requests of alike users are worth one independent request: the design effect, measured.

A user's requests are alike, so a test by request takes chance among users for evidence. With groups of users
the variance of sums over that of independent requests is the design effect (Kish 1965, section 8.2), estimated
between random groups (Wolter 2007, "Introduction to variance estimation", chapter 2):

    deff = sum_g (k_g - p n_g)^2 / sum_g n_g v,     v = p (1 - p), or the variance of a value

It grows with the time that is looked at: within a minute most requests come from different users, over a day
they do not. So it is measured over windows of several lengths, and each bet of a detector, which remembers only
as far back as it needs to decide, is weighed by the one of its own length: a sudden fault is found as fast as
if the requests were independent, a slow drift is doubted as much as it deserves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from alerts.guardrails import EVENTS, VALUES
from alerts.signals import ARMS, GROUPS, LEVEL_VALUES, LEVELS, STREAMS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alerts.signals import Tick

    Array = NDArray[np.float64]

WINDOW_TICKS = (60, 600, 3600)
SCALES = len(WINDOW_TICKS) + 1
"""The last one is all of the stage so far."""
_KEPT = (0.95, 0.9, 0.8)
"""What an older window weighs, by scale, for each newer one."""
_PRIOR = 2.0
"""Bad events with a design effect of 1, before any were seen."""


class Spread(msgspec.Struct, kw_only=True):
    """Sums by group in windows of growing length, and what came of the windows that are over."""

    trials: list[Array]
    """By scale: (r, arms, streams, groups)"""
    bad: list[Array]
    ticks: list[int]
    """By scale: how much of the window is over."""
    surplus: Array
    """(scales, r, arms, streams): squared deviations of finished windows."""
    expected: Array
    """(scales, r, arms, streams): what they were to be, of independent requests."""
    levels: Array
    """(r, values, levels): of the stage, for the variance of the values."""
    effect: Array
    """(r, arms, streams, scales): the newest estimate, at least 1, not falling with the scale."""


def no_spread(runs: int = 1) -> Spread:
    """Return what is known at the beginning of a stage: nothing, so every effect is 1."""
    shape = (runs, ARMS, STREAMS, GROUPS)
    return Spread(
        trials=[np.zeros(shape) for _ in range(SCALES)],
        bad=[np.zeros(shape) for _ in range(SCALES)],
        ticks=[0] * SCALES,
        surplus=np.zeros((SCALES, *shape[:-1])),
        expected=np.zeros((SCALES, *shape[:-1])),
        levels=np.zeros((runs, len(VALUES), LEVELS)),
        effect=np.ones((*shape[:-1], SCALES)),
    )


def forget(spread: Spread, which: NDArray[np.bool_]) -> None:
    """Forget, in place, what was of other users: of the runs *which* (r,)."""
    for scale in range(SCALES):
        spread.trials[scale][which] = 0
        spread.bad[scale][which] = 0
    spread.surplus[:, which] = 0
    spread.expected[:, which] = 0
    spread.levels[which] = 0
    spread.effect[which] = 1


def add(spread: Spread, tick: Tick) -> bool:
    """Add one tick in place; tell whether `effect` is new. A full window goes into the next longer one."""
    spread.trials[0] += tick.group_trials
    spread.bad[0] += tick.group_bad
    spread.levels += tick.values
    spread.ticks[0] += 1
    if spread.ticks[0] < WINDOW_TICKS[0]:
        return False
    for target in (1, SCALES - 1):
        spread.trials[target] += spread.trials[0]
        spread.bad[target] += spread.bad[0]
        spread.ticks[target] += spread.ticks[0]
    _finish(spread, 0)
    if spread.ticks[1] >= WINDOW_TICKS[1]:
        spread.trials[2] += spread.trials[1]
        spread.bad[2] += spread.bad[1]
        spread.ticks[2] += spread.ticks[1]
        _finish(spread, 1)
        if spread.ticks[2] >= WINDOW_TICKS[2]:
            _finish(spread, 2)
    spread.effect = _effect(spread)
    return True


def _finish(spread: Spread, scale: int) -> None:
    surplus, expected = _deviations(spread, scale)
    spread.surplus[scale] = spread.surplus[scale] * _KEPT[scale] + surplus
    spread.expected[scale] = spread.expected[scale] * _KEPT[scale] + expected
    spread.trials[scale] = np.zeros_like(spread.trials[scale])
    spread.bad[scale] = np.zeros_like(spread.bad[scale])
    spread.ticks[scale] = 0


def _deviations(spread: Spread, scale: int) -> tuple[Array, Array]:
    """Return squared deviations of the groups' sums from their share, and what independent requests would have."""
    n, k = spread.trials[scale], spread.bad[scale]
    total = n.sum(-1)
    share = k.sum(-1) / np.maximum(total, 1e-9)
    variance = share * (1 - share)
    variance[..., len(EVENTS) :] = np.minimum(variance[..., len(EVENTS) :], _value_variance(spread.levels)[:, None, :])
    return ((k - share[..., None] * n) ** 2).sum(-1), total * variance


def _value_variance(levels: Array) -> Array:
    n = np.maximum(levels.sum(-1), 1e-9)
    mean = (levels * LEVEL_VALUES).sum(-1) / n
    variance: Array = (levels * LEVEL_VALUES**2).sum(-1) / n - mean**2
    return np.maximum(variance, 1e-6)


def _effect(spread: Spread) -> Array:
    last = SCALES - 1
    spread.surplus[last], spread.expected[last] = _deviations(spread, last)
    prior = np.full(STREAMS, _PRIOR)
    prior[len(EVENTS) :] *= 0.25  # the variance of a value is that much smaller than that of a coin, at the least
    found = np.empty_like(spread.effect)
    for scale in range(SCALES):
        source = scale if (spread.expected[scale] > 0).any() else last
        found[..., scale] = (spread.surplus[source] + prior) / (spread.expected[source] + prior)
    return np.maximum.accumulate(np.maximum(found, 1.0), axis=-1)
