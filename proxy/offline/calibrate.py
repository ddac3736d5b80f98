"""Fits what a candidate's scores mean, and when to doubt them, to judged queries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from proxy.engine.calibration import Calibration, Statistic, StatisticRange
from proxy.errors import InvalidModel
from proxy.offline.measures import values_of
from proxy.offline.platt import Reliability, fit_platt, reliability
from proxy.offline.thresholds import PLANS_THRESHOLD, STATISTICS, Case, Fit, Point, Target, fit, point_at

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from proxy.offline.benchmark import Run
    from proxy.offline.judged import Judged

QUALITY = "nDCG@10"


class Wanted(msgspec.Struct, frozen=True):
    """What to fit."""

    target: Target
    statistic: Statistic
    """The one that the proxy doubts by."""
    margin_k: int = 2
    """Of the statistic `margin`."""
    min_grade: int = 1
    """From which on a passage counts as relevant."""
    seed: int = 1
    """Of the resamples."""


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """What one arm's scores mean, before and after."""

    model: str
    slope: float
    intercept: float
    before: Reliability
    """By what is configured, or comes with the model."""
    after: Reliability
    pairs: int
    relevant: int
    stand_in: str | None


class PlansRule(msgspec.Struct, frozen=True):
    """What the plan's ``mean score < 6.5`` would have done."""

    by_logits: Point
    by_probabilities: Point
    """For models whose scores are a sigmoid's, as bge-reranker's are by default."""
    highest_mean_logit: float


class CalibrationReport(msgspec.Struct, frozen=True, kw_only=True):
    """All that a calibration says."""

    collection: str
    queries: int
    model: str
    """Model, revision and engine: what it holds for."""
    legacy_model: str | None
    target: Target
    statistic: Statistic
    """The one that is in use."""
    margin_k: int
    fits: dict[Statistic, Fit]
    scores: list[Scores]
    candidate_quality: float
    legacy_quality: float | None
    plans_rule: PlansRule
    stand_in: str | None
    notes: tuple[str, ...]

    def calibrations(self) -> dict[str, Calibration]:
        """Return what the proxy is to serve by, by model; nothing of a stand-in's.

        Raises:
            InvalidModel: no threshold of the statistic in use keeps to the target short of always falling back.

        """
        chosen = self.fits[self.statistic].chosen
        if chosen is None or chosen.threshold > self.fits[self.statistic].high:
            raise InvalidModel(
                f"no threshold of `{self.statistic}` keeps to the target; only always falling back might"
            )
        ranges = {
            name: StatisticRange(_round(found.low), _round(found.high), _threshold(found))
            for name, found in self.fits.items()
        }
        found = {self.model: Calibration(self.scores[0].slope, self.scores[0].intercept, ranges)}
        for each in self.scores[1:]:
            if each.stand_in is None:
                found[each.model] = Calibration(each.slope, each.intercept)
        return found


def calibrate(
    judged: Judged, candidate: Run, legacy: Run | None, wanted: Wanted, known: Mapping[str, Calibration]
) -> CalibrationReport:
    """Fit scores and thresholds.

    Args:
        judged: the queries that both ranked.
        candidate: what the model made of them.
        legacy: what the fallback did; None: a target in share only.
        wanted: what to fit.
        known: how scores are mapped now, by the runs' names; none: by the plain sigmoid.

    Raises:
        InvalidModel: the judgements do not allow it, or an arm failed on a query.

    """
    for run in (candidate, *([legacy] if legacy else [])):
        if failed := [ranked.error for ranked in run.ranked.values() if ranked.error]:
            raise InvalidModel(
                f"{run.model}: did not rank {len(failed)} of {len(run.ranked)} queries ({failed[0]}): nothing can be "
                "fitted to that"
            )
    notes = list(judged.notes)
    scores = [_scores(judged, candidate, known.get(candidate.name, Calibration()), wanted.min_grade)]
    if legacy is not None:
        try:
            scores.append(_scores(judged, legacy, known.get(legacy.name, Calibration()), wanted.min_grade))
        except InvalidModel as exc:
            notes.append(f"{legacy.model}: {exc}")
    fitted = Calibration(scores[0].slope, scores[0].intercept)
    cases = cases_of(judged, candidate, legacy, wanted.min_grade)
    return CalibrationReport(
        collection=judged.name,
        queries=len(cases),
        model=candidate.model,
        legacy_model=legacy.model if legacy else None,
        target=wanted.target,
        statistic=wanted.statistic,
        margin_k=wanted.margin_k,
        fits={
            kind: fit(kind, cases, fitted, wanted.target, margin_k=wanted.margin_k, seed=wanted.seed)
            for kind in STATISTICS
        },
        scores=scores,
        candidate_quality=float(np.mean([case.candidate for case in cases])),
        legacy_quality=float(np.mean([case.legacy for case in cases])) if legacy else None,
        plans_rule=plans_rule(cases, fitted),
        stand_in=legacy.stand_in if legacy else None,
        notes=tuple(notes),
    )


def cases_of(judged: Judged, candidate: Run, legacy: Run | None, min_grade: int = 1) -> list[Case]:
    """Return a case for each judged query."""

    def quality(run: Run, query: str) -> float:
        ids = judged.candidates[query]
        return values_of([ids[i] for i in run.ranked[query].order], judged.grades[query], min_grade)[QUALITY]

    return [
        Case(
            tuple(ranked.logits),
            quality(candidate, query),
            quality(legacy, query) if legacy else None,
            legacy.ranked[query].dollars if legacy else None,
        )
        for query, ranked in candidate.ranked.items()
        if ranked.logits
    ]


def plans_rule(cases: Sequence[Case], calibration: Calibration) -> PlansRule:
    """Return what ``mean < 6.5`` does to raw logits, and to probabilities."""
    as_chances = [
        Case(tuple(map(calibration.probability, case.logits)), case.candidate, case.legacy, case.legacy_dollars)
        for case in cases
    ]
    return PlansRule(
        point_at("mean", cases, calibration, 2, PLANS_THRESHOLD),
        point_at("mean", as_chances, calibration, 2, PLANS_THRESHOLD),
        max(sum(case.logits) / len(case.logits) for case in cases),
    )


def _scores(judged: Judged, run: Run, known: Calibration, min_grade: int) -> Scores:
    logits, labels = [], []
    for query, ranked in run.ranked.items():
        if ranked.logits:
            logits += ranked.logits
            labels += [judged.grades[query].get(name, 0) >= min_grade for name in judged.candidates[query]]
    found, relevant = np.array(logits), np.array(labels, dtype=np.bool_)
    slope, intercept = (round(x, 5) for x in fit_platt(found, relevant))
    after = Calibration(slope, intercept)
    return Scores(
        model=run.model,
        slope=slope,
        intercept=intercept,
        before=reliability(np.array([known.probability(z) for z in logits]), relevant),
        after=reliability(np.array([after.probability(z) for z in logits]), relevant),
        pairs=len(logits),
        relevant=int(relevant.sum()),
        stand_in=run.stand_in,
    )


def _threshold(found: Fit) -> float | None:
    """Return what is written; None where only always falling back would do, which is no threshold."""
    if found.chosen is None or found.chosen.threshold > found.high:
        return None
    return _round(found.chosen.threshold)


def _round(value: float) -> float:
    return float(f"{value:.6g}")
