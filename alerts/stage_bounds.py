"""What is known of each guardrail in a stage: estimates, and bounds that hold at any time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from alerts.evidence import mean_bounds, share_bounds
from alerts.guardrails import EVENTS, VALUES, Guardrail, Method
from alerts.judge_state import Bounds
from alerts.signals import LEVEL_VALUES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alerts.judge import Judge
    from alerts.judge_state import State

    Array = NDArray[np.float64]

BOUND_ALPHA = 0.05
"""Each bound of a stage fails with at most this probability, at any time."""
_COLUMNS = ("trials", "bad", "estimate", "lower", "upper", "harm_limit", "is_passed")


def stage_bounds(judge: Judge, state: State, alpha: float = BOUND_ALPHA) -> Bounds:
    """Return estimates and bounds of the stage."""
    found = [
        _of_mean(each, judge.effect(place, state)[:, -1], state, alpha)
        if each.test is Method.MEAN
        else _of_share(each, judge.effect(place, state)[:, -1], state, alpha)
        for place, each in enumerate(judge.guardrails)
    ]
    columns = zip(_COLUMNS, zip(*found, strict=True), strict=True)
    return Bounds(**{name: np.stack(column, -1) for name, column in columns})


def _of_mean(guardrail: Guardrail, deff: Array, state: State, alpha: float) -> tuple[NDArray[Any], ...]:
    counts = state.stage.values[:, VALUES.index(guardrail.signal)]
    n = counts.sum(-1)
    total = (counts * LEVEL_VALUES).sum(-1)
    lower, upper = mean_bounds(counts / deff[:, None], LEVEL_VALUES, alpha)
    limit = np.full_like(n, guardrail.floor)
    return n, total, total / np.maximum(n, 1e-9), lower, upper, limit, (n > 0) & (lower >= limit)


def _of_share(guardrail: Guardrail, deff: Array, state: State, alpha: float) -> tuple[NDArray[Any], ...]:
    event = EVENTS.index(guardrail.signal)
    bad, trials = state.stage.bad[:, :, event], state.stage.trials[:, :, event]
    estimate = bad[:, 1] / np.maximum(trials[:, 1], 1e-9)
    each_alpha = alpha / 2 if guardrail.test is Method.BETWEEN else alpha  # two bounds may fail
    lower, upper = share_bounds(bad[:, 1] / deff, trials[:, 1] / deff, each_alpha)
    limit = np.full_like(estimate, guardrail.share_limit)
    if guardrail.test is Method.BETWEEN:
        effect = state.spread.effect[:, 0, event, -1]
        least, _ = share_bounds(bad[:, 0] / effect, trials[:, 0] / effect, each_alpha)
        limit = least + guardrail.limit
    is_passed = (trials[:, 1] > 0) & (upper <= limit)
    if guardrail.test is Method.BETWEEN:
        requests = state.stage.requests
        # nobody is left in control, but for those who were on their way when the stage began
        is_passed |= (requests[:, 0] <= 0.01 * requests[:, 1]) & (requests[:, 1] > 0)
    return trials[:, 1], bad[:, 1], estimate, lower, upper, limit, is_passed
