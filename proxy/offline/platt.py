"""Platt's map from raw scores to probabilities, fitted to judgements, and how well scores mean what they say. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from proxy.errors import InvalidModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEPS = 100
_BINS = 10


class Reliability(msgspec.Struct, frozen=True):
    """How far probabilities are from what was judged."""

    log_loss: float
    """Mean, natural logarithm."""
    calibration_error: float
    """Expected calibration error over ten equal bins of probability (Naeini et al. 2015)."""
    bins: list[tuple[float, float, int]]
    """Of each bin that is not empty: mean probability, share that is relevant, how many."""


def fit_platt(logits: NDArray[np.float64], labels: NDArray[np.bool_]) -> tuple[float, float]:
    """Return slope and intercept that minimise the log loss of sigmoid(slope * logit + intercept).

    With Platt's smoothed targets (Platt 1999, section 2.2), by Newton's method with a line search (Lin, Lin and Weng
    2007, algorithm 1).

    Raises:
        InvalidModel: one class is missing, or higher scores do not mean more relevant.

    """
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        raise InvalidModel("scores cannot be calibrated: the judged pairs are all relevant, or none is")
    target = np.where(labels, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    spread = float(logits.std()) or 1.0
    design = np.stack([(logits - logits.mean()) / spread, np.ones_like(logits)], axis=1)
    weights = np.array([0.0, np.log((positives + 1) / (negatives + 1))])
    loss = _loss(design @ weights, target)
    for _ in range(_STEPS):
        chance = _sigmoid(design @ weights)
        gradient = design.T @ (chance - target)
        if float(np.abs(gradient).max()) < 1e-9 * len(logits):
            break
        hessian = (design * (chance * (1 - chance))[:, None]).T @ design + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-10 and _loss(design @ (weights - size * step), target) > loss:
            size /= 2
        weights = weights - size * step
        loss = _loss(design @ weights, target)
    slope = float(weights[0] / spread)
    if slope <= 0:
        raise InvalidModel("scores cannot be calibrated: higher ones are not more often relevant")
    return slope, float(weights[1] - weights[0] * logits.mean() / spread)


def reliability(chances: NDArray[np.float64], labels: NDArray[np.bool_]) -> Reliability:
    """Return how far *chances* are from *labels*."""
    sure = np.clip(chances, 1e-12, 1 - 1e-12)
    loss = float(-np.where(labels, np.log(sure), np.log(1 - sure)).mean())
    places = np.minimum((chances * _BINS).astype(int), _BINS - 1)
    bins = [
        (float(chances[inside].mean()), float(labels[inside].mean()), int(inside.sum()))
        for place in range(_BINS)
        if (inside := places == place).any()
    ]
    error = sum(count * abs(mean - share) for mean, share, count in bins) / len(chances)
    return Reliability(loss, error, bins)


def _sigmoid(z: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(-np.logaddexp(0.0, -z))


def _loss(z: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    return float((np.logaddexp(0.0, z) - target * z).sum())
