"""Fallback thresholds: what each does to judged rankings, and which one keeps to a target. And Platt's map."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.engine.calibration import Calibration, Statistic, statistic_of
from proxy.errors import InvalidModel
from proxy.offline.calibrate import plans_rule
from proxy.offline.platt import fit_platt, reliability
from proxy.offline.thresholds import STATISTICS, Case, Target, choose, curve_of, fit, point_at

PLAIN = Calibration()


def case(best: float, candidate: float = 0.8, legacy: float = 0.9, dollars: float = 0.001) -> Case:
    return Case((best, best - 3, -8.0), candidate, legacy, dollars)


CASES = [case(4, 1.0, 0.9), case(3, 0.9, 0.9), case(1, 0.5, 0.8), case(-1, 0.2, 0.9), case(2, 0.9, 0.8)]


def test_a_curve_goes_from_never_to_always_falling_back() -> None:
    curve = curve_of("top1", CASES, PLAIN)
    assert [point.share for point in curve] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert curve[0].quality == pytest.approx(0.7)
    assert curve[0].dollars_per_thousand == 0
    assert curve[1].quality == pytest.approx((1.0 + 0.9 + 0.5 + 0.9 + 0.9) / 5)
    assert curve[-1].loss == pytest.approx(0)
    assert curve[-1].dollars_per_thousand == pytest.approx(1.0)
    assert PLAIN.probability(-1) < curve[1].threshold < PLAIN.probability(1)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.sampled_from(STATISTICS))
def test_each_point_is_what_its_threshold_does(bests: list[int], kind: Statistic) -> None:
    cases = [Case((best, best / 2, -8.0), 0.5, 0.9, 0.001) for best in bests]
    values = [statistic_of(kind, one.logits, PLAIN, 2) for one in cases]
    curve = curve_of(kind, cases, PLAIN)
    for point in curve:
        assert point.share == sum(value < point.threshold for value in values) / len(cases)
    assert len({point.share for point in curve}) == len(curve) == len(set(values)) + 1


@pytest.mark.parametrize(
    ("target", "share"),
    [
        (Target("share", 0.5), 0.4),
        (Target("share", 0.4), 0.4),
        (Target("share", 0.1), 0.0),
        (Target("dollars", 0.65), 0.6),
        (Target("dollars", 0.0), 0.0),
        (Target("loss", 0.03), 0.2),
        (Target("loss", 0.2), 0.0),
        (Target("loss", -0.03), 0.4),
        (Target("loss", -0.5), None),
    ],
)
def test_the_threshold_that_keeps_to_a_target_is_chosen(target: Target, share: float | None) -> None:
    found = choose(curve_of("top1", CASES, PLAIN), target)
    assert (found.share if found else None) == share


def test_cases_of_traffic_need_no_judgements() -> None:
    cases = [Case(one.logits, None, None, 0.001) for one in CASES]
    found = fit("top1", cases, PLAIN, Target("share", 0.4))
    assert found.chosen is not None
    assert found.chosen.share == 0.4
    assert found.chosen.quality is None
    assert found.loss_low is None
    assert choose(found.curve, Target("dollars", 0.2)) is not None
    assert choose(found.curve, Target("loss", 0.1)) is None


def test_a_ranking_of_one_document_has_no_margin_and_does_not_count() -> None:
    found = fit("margin", [*CASES, Case((1.0,), 1.0, 1.0, 0.001)], PLAIN, Target("share", 1.0))
    assert math.isfinite(found.high)
    assert found.curve[-1].share == 1.0


def test_unseen_cases_are_judged_by_thresholds_fitted_without_them() -> None:
    dice = np.random.default_rng(1)
    cases = [case(float(best), float(dice.random()), 0.9) for best in dice.normal(0, 3, 400)]
    found = fit("top1", cases, PLAIN, Target("share", 0.25))
    assert found.held_out is not None
    assert found.chosen is not None
    assert found.held_out.share == pytest.approx(0.25, abs=0.06)
    assert found.loss_low is not None
    assert found.loss_high is not None
    assert found.chosen.loss is not None
    assert found.loss_low < found.chosen.loss < found.loss_high


def test_the_case_that_a_threshold_is_fitted_by_is_unseen_in_its_turn() -> None:
    found = fit("top1", [case(float(best)) for best in range(10)], PLAIN, Target("share", 0.0))
    assert found.chosen is not None
    assert found.chosen.share == 0.0
    assert found.held_out is not None
    assert found.held_out.share == pytest.approx(0.1)  # the lowest of all is one of the two of its fifth


def test_the_plans_rule_sends_everything_to_the_language_model() -> None:
    perfect = [Case((9.0, *[-8.0] * 24), 1.0, 0.5, 0.001)]
    rule = plans_rule(perfect, PLAIN)
    assert rule.by_logits.share == rule.by_probabilities.share == 1.0
    assert rule.by_logits.quality == 0.5
    assert rule.highest_mean_logit < 0
    lone = point_at("mean", [Case((9.0,), 1.0, 0.5, 0.001)], PLAIN, 2, 6.5)
    assert lone.share == 0.0


def test_platts_map_is_found_again_and_nothing_near_it_is_better() -> None:
    dice = np.random.default_rng(7)
    logits = dice.normal(-3, 4, 40_000)
    labels = dice.random(40_000) < 1 / (1 + np.exp(-(0.6 * logits - 0.9)))
    slope, intercept = fit_platt(logits, labels)
    assert slope == pytest.approx(0.6, abs=0.03)
    assert intercept == pytest.approx(-0.9, abs=0.06)

    def loss(a: float, b: float) -> float:
        return float((np.logaddexp(0, a * logits + b) - labels * (a * logits + b)).sum())

    for da, db in ((0.01, 0), (-0.01, 0), (0, 0.02), (0, -0.02)):
        assert loss(slope, intercept) < loss(slope + da, intercept + db)


def test_scores_that_tell_nothing_cannot_be_calibrated() -> None:
    with pytest.raises(InvalidModel, match="all relevant"):
        fit_platt(np.array([1.0, 2.0]), np.array([True, True]))
    with pytest.raises(InvalidModel, match="higher ones"):
        fit_platt(np.array([1.0, 2.0, 3.0, 4.0]), np.array([True, True, False, False]))


def test_separable_scores_keep_a_finite_slope() -> None:
    slope, intercept = fit_platt(np.array([1.0, 2.0, 3.0, 4.0]), np.array([False, False, True, True]))
    assert 0 < slope < 100
    assert math.isfinite(intercept)


def test_reliability_is_what_is_counted_by_hand() -> None:
    found = reliability(np.array([0.25, 0.25, 0.85, 1.0]), np.array([True, False, True, True]))
    assert found.bins == [(0.25, 0.5, 2), (0.85, 1.0, 1), (1.0, 1.0, 1)]
    assert found.calibration_error == pytest.approx((2 * 0.25 + 0.15) / 4)
    assert found.log_loss == pytest.approx(-(math.log(0.25) + math.log(0.75) + math.log(0.85)) / 4, abs=1e-6)
