"""How many requests of alike users are worth one independent request: the design effect, measured.

A user's requests are alike, so a test by request takes chance among users for evidence. With groups of users
the variance of sums over that of independent requests is the design effect (Kish 1965, section 8.2), estimated
between random groups (Wolter 2007, "Introduction to variance estimation", chapter 2):

    deff = sum_g (k_g - p n_g)^2 / sum_g n_g v,     v = p (1 - p), or the variance of a value

It grows with the time that is looked at: within a minute most requests come from different users, over a day
they do not. So it is measured over windows of several lengths, and each bet of a detector, which remembers only
as far back as it needs to decide, is weighed by the one of its own length: a sudden fault is found as fast as
if the requests were independent, a slow drift is doubted as much as it deserves.

An e-value to the power 1/deff is one for independent requests (Jensen); for users who are alike it is the usual
approximation by an effective sample size, and the bar is the simulation that has such users in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from alerts.guardrails import EVENTS, VALUES
from alerts.signals import ARMS, GROUPS, LEVEL_VALUES, LEVELS, STREAMS

if TYPE_CHECKING:
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
    ticks: NDArray[np.int64]
    """(scales, r): how much of the window is over."""
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
        ticks=np.zeros((SCALES, runs), dtype=np.int64),
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
    spread.ticks[:, which] = 0
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
    full = spread.ticks[0] >= WINDOW_TICKS[0]
    if not full.any():
        return False
    _hand_on(spread, 0, SCALES - 1, full)
    _hand_on(spread, 0, 1, full)
    _finish(spread, 0, full)
    for scale in range(1, len(WINDOW_TICKS)):
        full = spread.ticks[scale] >= WINDOW_TICKS[scale]
        if scale + 1 < len(WINDOW_TICKS):
            _hand_on(spread, scale, scale + 1, full)
        _finish(spread, scale, full)
    spread.effect = _effect(spread)
    return True


def _hand_on(spread: Spread, scale: int, target: int, full: NDArray[np.bool_]) -> None:
    spread.trials[target][full] += spread.trials[scale][full]
    spread.bad[target][full] += spread.bad[scale][full]
    spread.ticks[target][full] += spread.ticks[scale][full]


def _finish(spread: Spread, scale: int, full: NDArray[np.bool_]) -> None:
    if not full.any():
        return
    surplus, expected = _deviations(spread, scale)
    kept = _KEPT[scale]
    spread.surplus[scale][full] = spread.surplus[scale][full] * kept + surplus[full]
    spread.expected[scale][full] = spread.expected[scale][full] * kept + expected[full]
    spread.trials[scale][full] = 0
    spread.bad[scale][full] = 0
    spread.ticks[scale][full] = 0


def _deviations(spread: Spread, scale: int) -> tuple[Array, Array]:
    """Return squared deviations of the groups' sums from their share, and what independent requests would have.

    The share is estimated from the same sums, which takes ``sum n_g^2 / N`` of the trials' worth of variance away.
    """
    n, k = spread.trials[scale], spread.bad[scale]
    total = n.sum(-1)
    share = k.sum(-1) / np.maximum(total, 1e-9)
    variance = share * (1 - share)
    variance[..., len(EVENTS) :] = np.minimum(variance[..., len(EVENTS) :], _value_variance(spread.levels)[:, None, :])
    free = total - (n**2).sum(-1) / np.maximum(total, 1e-9)
    return ((k - share[..., None] * n) ** 2).sum(-1), free * variance


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
    for scale in range(SCALES):  # before the first window of a length is over, all that is known is used
        is_known = spread.expected[scale] > 0
        surplus = np.where(is_known, spread.surplus[scale], spread.surplus[last])
        expected = np.where(is_known, spread.expected[scale], spread.expected[last])
        found[..., scale] = (surplus + prior) / (expected + prior)
    return np.maximum.accumulate(np.maximum(found, 1.0), axis=-1)
