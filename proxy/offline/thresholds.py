"""Where to stop trusting the candidate: the fallback threshold that meets a target, and what each would cost. Pure.

A case is a ranking that the candidate made. Judged ones know how good both arms' orders are; cases of logged traffic
know no more than their scores and what a fallback costs, which is enough for a target in share or dollars.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import msgspec
import numpy as np

from proxy.engine.calibration import Calibration, Statistic, statistic_of
from proxy.offline.significance import intervals

if TYPE_CHECKING:
    from collections.abc import Sequence

STATISTICS: tuple[Statistic, ...] = ("top1", "mean", "margin")
PLANS_THRESHOLD = 6.5
"""The swap-out plan's ``LLM_FALLBACK_THRESHOLD``: the mean score below it goes to GPT."""
_FOLDS = 5


class Case(msgspec.Struct, frozen=True):
    """One ranking of the candidate."""

    logits: tuple[float, ...]
    """Raw scores of its documents, at least one; none where the statistic itself was logged."""
    candidate: float | None = None
    """How good its order is, such as nDCG@10; None: not judged."""
    legacy: float | None = None
    """How good the fallback's is."""
    legacy_dollars: float | None = None
    """What the fallback's answer costs."""


class Target(msgspec.Struct, frozen=True):
    """What a threshold must keep to."""

    kind: Literal["share", "loss", "dollars"]
    """share of requests that fall back; loss of quality against always falling back; dollars a thousand requests."""
    most: float


class Point(msgspec.Struct, frozen=True):
    """What one threshold does to the cases."""

    threshold: float
    share: float
    quality: float | None
    """Mean, each case by the arm that answers it."""
    loss: float | None
    """Mean of the fallback on all cases, minus `quality`."""
    dollars_per_thousand: float | None


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """What one statistic can do for the target."""

    statistic: Statistic
    low: float
    high: float
    chosen: Point | None
    """None: no threshold keeps to the target."""
    loss_low: float | None = None
    loss_high: float | None = None
    """Of the chosen point, with 95 % confidence."""
    held_out: Point | None = None
    """What thresholds fitted on four fifths do to the fifth left out: means; its threshold is that of `chosen`."""
    curve: list[Point]


def curve_of(kind: Statistic, cases: Sequence[Case], calibration: Calibration, margin_k: int = 2) -> list[Point]:
    """Return a point for each way to part *cases* by the statistic, from never to always falling back."""
    return curve_of_values([statistic_of(kind, case.logits, calibration, margin_k) for case in cases], cases)


def curve_of_values(values: Sequence[float], cases: Sequence[Case]) -> list[Point]:
    """Return a point for each way to part *cases* by the *values* of their statistic."""
    order = sorted(range(len(cases)), key=lambda i: values[i])
    points = []
    for doubted in range(len(cases) + 1):
        below = values[order[doubted - 1]] if doubted else values[order[0]]
        above = values[order[doubted]] if doubted < len(cases) else math.inf
        if doubted and below == above:
            continue  # no threshold parts equal values
        threshold = above if not doubted else math.inf if math.isinf(above) else (below + above) / 2
        points.append(_point(threshold, values, cases))
    return points


def point_at(kind: Statistic, cases: Sequence[Case], calibration: Calibration, margin_k: int, at: float) -> Point:
    """Return what the threshold *at* does to *cases*."""
    return _point(at, [statistic_of(kind, case.logits, calibration, margin_k) for case in cases], cases)


def choose(curve: Sequence[Point], target: Target) -> Point | None:
    """Return the point of a curve that falls back most within a share or a sum, or least within a loss."""
    if target.kind == "loss":
        return next((p for p in curve if p.loss is not None and p.loss <= target.most + 1e-12), None)
    within = [p for p in curve if (x := _measured(p, target)) is not None and x <= target.most + 1e-12]
    return within[-1] if within else None


def fit(
    kind: Statistic,
    cases: Sequence[Case],
    calibration: Calibration,
    target: Target,
    *,
    margin_k: int = 2,
    seed: int = 1,
) -> Fit:
    """Return the threshold of one statistic for *target*, how sure its loss is, and what it does to unseen cases."""
    usable = [case for case in cases if len(case.logits) > 1] or list(cases)
    values = [statistic_of(kind, case.logits, calibration, margin_k) for case in usable]
    return fit_values(kind, values, usable, target, seed=seed)


def fit_values(
    kind: Statistic, values: Sequence[float], cases: Sequence[Case], target: Target, *, seed: int = 1
) -> Fit:
    """Return as `fit`, by the *values* of the statistic, one for each of *cases*."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    curve = curve_of_values(values, cases)
    chosen = choose(curve, target)
    low = high = None
    if chosen is not None and chosen.loss is not None:
        [(low, high)] = intervals(_losses(chosen.threshold, values, cases)[:, None], seed=seed)
    return Fit(
        statistic=kind,
        low=min(finite),
        high=max(finite),
        chosen=chosen,
        loss_low=low,
        loss_high=high,
        held_out=_held_out(values, cases, target, chosen),
        curve=curve,
    )


def _held_out(values: Sequence[float], cases: Sequence[Case], target: Target, chosen: Point | None) -> Point | None:
    if chosen is None or len(cases) < 2 * _FOLDS:
        return None
    seen = []
    for fold in range(_FOLDS):
        kept = [i for i in range(len(cases)) if i % _FOLDS != fold]
        found = choose(curve_of_values([values[i] for i in kept], [cases[i] for i in kept]), target)
        if found is None:
            return None
        seen.append(_point(found.threshold, values[fold::_FOLDS], cases[fold::_FOLDS]))
    return Point(
        chosen.threshold,
        float(np.mean([p.share for p in seen])),
        _mean([p.quality for p in seen]),
        _mean([p.loss for p in seen]),
        _mean([p.dollars_per_thousand for p in seen]),
    )


def _point(threshold: float, values: Sequence[float], cases: Sequence[Case]) -> Point:
    doubts = [value < threshold for value in values]
    answered = [case.legacy if doubt else case.candidate for case, doubt in zip(cases, doubts, strict=True)]
    quality, always = _mean(answered), _mean([case.legacy for case in cases])
    paid = [case.legacy_dollars if doubt else 0.0 for case, doubt in zip(cases, doubts, strict=True)]
    dollars = _mean(paid)
    return Point(
        threshold,
        sum(doubts) / len(cases),
        quality,
        None if quality is None or always is None else always - quality,
        None if dollars is None else 1000 * dollars,
    )


def _losses(
    threshold: float, values: Sequence[float], cases: Sequence[Case]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return what each case loses against always falling back."""
    return np.array(
        [
            0.0 if value < threshold else (case.legacy or 0.0) - (case.candidate or 0.0)
            for case, value in zip(cases, values, strict=True)
        ]
    )


def _measured(point: Point, target: Target) -> float | None:
    return point.share if target.kind == "share" else point.dollars_per_thousand


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
