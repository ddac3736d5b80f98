"""Evidence: e-values by exact enumeration, detectors by their definition, bounds by other programs' numbers."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.evidence import (
    BETS,
    ODDS,
    SPLIT_ODDS,
    alarm_at,
    between_evidence,
    detector_step,
    detector_value,
    kl,
    mean_bets,
    mean_bounds,
    mean_evidence_table,
    regret,
    requests_to_alarm,
    share_bets,
    share_bounds,
    share_evidence,
    split_evidence,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

LIMITS = st.floats(0.001, 0.6)
SHARES = st.floats(0.01, 0.99)


def counts(*numbers: float) -> Array:
    return np.array(numbers, dtype=float)


def binomial(n: int, p: float) -> Array:
    """Return the chances of 0 to n."""
    return np.array([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1)])


def mean_of(chances: Array, log_e: Array) -> Array:
    """Return what e-values (outcomes, bets) are on average."""
    mean: Array = chances @ np.exp(log_e)
    return mean


# A share


@given(limit=LIMITS)
def test_no_bet_on_a_share_can_lose_all(limit: float) -> None:
    bets = share_bets(limit)
    assert (bets * limit < 1).all()
    assert (np.diff(bets) > 0).all()
    assert np.isfinite(share_evidence(counts(0, 7), counts(7, 7), limit, bets)).all()


def test_the_bets_on_a_limit_of_five_percent_are_half_to_nineteen() -> None:
    assert share_bets(0.05) == pytest.approx(np.array([0.5, 1, 2, 4, 8, 14, 19]))


@given(limit=LIMITS, n=st.integers(1, 30), inside=st.floats(0, 1))
def test_evidence_of_a_share_is_at_most_one_on_average_while_it_holds(limit: float, n: int, inside: float) -> None:
    bad = np.arange(n + 1.0)
    log_e = share_evidence(bad, np.full(n + 1, float(n)), limit, share_bets(limit))
    assert (mean_of(binomial(n, limit * inside), log_e) <= 1 + 1e-9).all()
    assert mean_of(binomial(n, limit), log_e) == pytest.approx(np.ones(len(BETS)))


@given(limit=LIMITS, n=st.integers(1, 30), deff=st.floats(1, 50))
def test_evidence_that_is_weighed_less_is_still_an_e_value(limit: float, n: int, deff: float) -> None:
    log_e = share_evidence(np.arange(n + 1.0), np.full(n + 1, float(n)), limit, share_bets(limit))
    assert (mean_of(binomial(n, limit), log_e / deff) <= 1 + 1e-9).all()


def test_evidence_of_a_share_is_what_fractions_say() -> None:
    bet, limit = Fraction(4), Fraction(1, 20)
    exact = (1 + bet * (1 - limit)) ** 3 * (1 - bet * limit) ** 7
    found = share_evidence(counts(3), counts(10), 0.05, counts(4.0))
    assert np.exp(found[0, 0]) == pytest.approx(float(exact))


@given(limit=LIMITS, ticks=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=6))
def test_ticks_of_a_share_add_up(limit: float, ticks: list[tuple[int, int]]) -> None:
    bets = share_bets(limit)
    bad = counts(*(bad for bad, _ in ticks))
    trials = bad + counts(*(good for _, good in ticks))
    one_by_one = share_evidence(bad, trials, limit, bets).sum(0)
    at_once = share_evidence(bad.sum(keepdims=True), trials.sum(keepdims=True), limit, bets)[0]
    assert one_by_one == pytest.approx(at_once)


@given(limit=LIMITS, n=st.integers(1, 1000), data=st.data())
def test_a_bad_event_more_never_lowers_the_evidence_and_a_good_one_never_raises_it(
    limit: float, n: int, data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, n - 1))
    bets = share_bets(limit)
    before, worse, longer = share_evidence(counts(k, k + 1, k), counts(n, n, n + 1), limit, bets)
    assert (worse > before).all()
    assert (longer < before).all()


# Between arms


@settings(deadline=None)
@given(
    control=st.integers(0, 12),
    candidate=st.integers(0, 12),
    share=st.floats(0, 1),
    better=st.floats(0, 1),
)
def test_evidence_between_arms_is_at_most_one_on_average_for_any_base_rate_and_split(
    control: int, candidate: int, share: float, better: float
) -> None:
    """Two binomials, enumerated: given the bad events of both, the candidate's are hypergeometric, or fewer."""
    total = 0.0
    rho = counts(candidate / max(1, control + candidate))
    for (k0, chance0), (k1, chance1) in product(
        enumerate(binomial(control, share)), enumerate(binomial(candidate, share * better))
    ):
        total += chance0 * chance1 * np.exp(between_evidence(counts(k1), counts(k0 + k1), rho, np.array(ODDS))[0])
    assert (np.asarray(total) <= 1 + 1e-9).all()


@given(rho=st.floats(0, 1), both=st.integers(0, 30))
def test_evidence_between_arms_is_exactly_one_on_average_at_the_boundary(rho: float, both: int) -> None:
    log_e = between_evidence(
        np.arange(both + 1.0), np.full(both + 1, float(both)), np.full(both + 1, rho), counts(2, 4)
    )
    assert mean_of(binomial(both, rho), log_e) == pytest.approx(np.ones(2))


def test_evidence_between_arms_is_what_fractions_say() -> None:
    exact = Fraction(3, 2) ** 7 / (1 + Fraction(1, 2) * Fraction(1, 4)) ** 9
    assert np.exp(between_evidence(counts(7), counts(9), counts(0.25), counts(1.5)))[0, 0] == pytest.approx(
        float(exact)
    )


@given(rho=SHARES, k=st.integers(0, 40), others=st.integers(0, 40))
def test_between_arms_a_bad_event_counts_against_its_own_arm(rho: float, k: int, others: int) -> None:
    share = np.full(3, rho)
    before, worse, control = between_evidence(
        counts(k, k + 1, k), counts(k + others, k + others + 1, k + others + 1), share, np.array(ODDS)
    )
    assert (worse > before).all()
    assert (control < before).all()


@given(rho=SHARES, bad=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=2, max_size=5))
def test_ticks_of_one_split_add_up_between_arms(rho: float, bad: list[tuple[int, int]]) -> None:
    mine, both = counts(*(a for a, _ in bad)), counts(*(a + b for a, b in bad))
    one_by_one = between_evidence(mine, both, np.full(len(bad), rho), np.array(ODDS)).sum(0)
    at_once = between_evidence(counts(mine.sum()), counts(both.sum()), counts(rho), np.array(ODDS))[0]
    assert one_by_one == pytest.approx(at_once)


# A mean


@given(
    weights=st.lists(st.floats(0, 1), min_size=5, max_size=5).filter(lambda found: sum(found) > 0.01),
    below=st.floats(0.05, 1),
)
def test_evidence_of_a_mean_is_at_most_one_on_average_while_it_holds(weights: list[float], below: float) -> None:
    values = counts(0, 0.25, 0.5, 0.75, 1)
    chances = np.array(weights) / sum(weights)
    floor = min(0.95, float(chances @ values) * below)
    table = mean_evidence_table(values, floor, mean_bets(floor))
    assert (mean_of(chances, table) <= 1 + 1e-9).all()
    pairs = (table[:, None] + table[None]).reshape(25, len(BETS))
    assert (mean_of(np.outer(chances, chances).ravel(), pairs) <= 1 + 1e-9).all()


def test_evidence_of_a_mean_is_exactly_one_on_average_at_the_floor() -> None:
    values = counts(0, 0.4, 1)
    chances = counts(0.3, 0.5, 0.2)  # the mean is 0.4
    assert mean_of(chances, mean_evidence_table(values, 0.4, mean_bets(0.4))) == pytest.approx(np.ones(len(BETS)))


@given(floor=st.floats(0, 0.99))
def test_no_bet_on_a_mean_can_lose_all_and_a_better_value_never_raises_the_evidence(floor: float) -> None:
    bets = mean_bets(floor)
    assert (bets * (1 - floor) < 1).all()
    table = mean_evidence_table(np.arange(65) / 64, floor, bets)
    assert np.isfinite(table).all()
    assert (np.diff(table, axis=0) < 0).all()


def test_evidence_of_a_mean_is_what_fractions_say() -> None:
    exact = (1 + Fraction(1, 2) * (Fraction(12, 25) - Fraction(1, 4))) ** 3
    table = mean_evidence_table(counts(0.25), 0.48, counts(0.5))
    assert np.exp(3 * table[0, 0]) == pytest.approx(float(exact))


# The split


@given(share=SHARES, users=st.integers(0, 40))
def test_evidence_of_a_wrong_split_is_one_on_average_while_it_is_right(share: float, users: int) -> None:
    n = np.full(users + 1, float(users))
    log_e = split_evidence(np.arange(users + 1.0), n, np.full(users + 1, share), np.array(SPLIT_ODDS))
    assert mean_of(binomial(users, share), log_e) == pytest.approx(np.ones(len(SPLIT_ODDS)))


@pytest.mark.parametrize("candidates", [20, 80], ids=["too few", "too many"])
def test_a_wrong_split_is_seen_either_way(candidates: int) -> None:
    right, wrong = split_evidence(counts(50, candidates), counts(100, 100), counts(0.5, 0.5), np.array(SPLIT_ODDS))
    assert right.max() < 0
    assert wrong.max() > math.log(1000)


# The detector


@given(log_e=st.lists(st.floats(-5, 5), min_size=1, max_size=12))
def test_a_detector_is_the_sum_of_the_evidence_since_each_tick(log_e: list[float]) -> None:
    found = counts(-1e6)
    for each in log_e:
        found = detector_step(found, counts(each))
    exact = sum(math.prod(Fraction(math.exp(each)) for each in log_e[start:]) for start in range(len(log_e)))
    assert np.exp(found[0]) == pytest.approx(float(exact))


def test_the_value_of_a_mixture_is_the_mean_of_its_own_detectors() -> None:
    log_r = np.log(counts(1, 2, 3, 10, 30))
    value = detector_value(log_r, np.array([0, 3]), counts(3, 2))
    assert np.exp(value) == pytest.approx(counts(2, 20))


def test_a_detector_is_as_many_ticks_old_as_large_on_average_at_the_boundary() -> None:
    """All 4^4 courses of four ticks of three requests each: E R_4 = 4, which is what Doob's bound rests on."""
    limit, chances = 0.2, binomial(3, 0.2)
    total = np.zeros(len(BETS))
    for course in product(range(4), repeat=4):
        log_r = np.full(len(BETS), -1e6)
        for bad in course:
            log_r = detector_step(log_r, share_evidence(counts(bad), counts(3), limit, share_bets(limit))[0])
        total += math.prod(chances[bad] for bad in course) * np.exp(log_r)
    assert total == pytest.approx(np.full(len(BETS), 4.0))


def test_the_alarm_is_at_the_horizon_times_the_guardrails_over_alpha() -> None:
    assert alarm_at(86_400, 10, 0.01) == pytest.approx(18.274499)  # ln 8.64 + 7 ln 10, by hand


@settings(max_examples=30)
@given(horizon=st.floats(1, 1e7), guardrails=st.integers(1, 20), alpha=st.floats(1e-4, 0.5))
def test_more_of_anything_that_could_alarm_falsely_puts_the_alarm_higher(
    horizon: float, guardrails: int, alpha: float
) -> None:
    found = alarm_at(horizon, guardrails, alpha)
    assert alarm_at(2 * horizon, guardrails, alpha) > found
    assert alarm_at(horizon, guardrails + 1, alpha) > found
    assert alarm_at(horizon, guardrails, alpha / 2) > found


@pytest.mark.parametrize("test", ["share", "between", "mean"])
def test_false_alarms_at_the_boundary_stay_below_alpha_over_the_horizon(test: str) -> None:
    """2,000 runs; alpha is large to be seen: 0.3 of them may alarm, and so few of e-detectors really do."""
    rng = np.random.default_rng(20260718)
    runs, horizon, alpha = 2000, 300, 0.3
    bets = {"share": share_bets(0.1), "between": np.array(ODDS), "mean": mean_bets(0.5)}[test]
    table = mean_evidence_table(counts(0, 0.5, 1), 0.5, mean_bets(0.5))
    log_r = np.full((runs, len(bets)), -1e6)
    alarmed = np.zeros(runs, dtype=bool)
    threshold = alarm_at(horizon, 1, alpha)
    for _ in range(horizon):
        if test == "share":
            bad = rng.binomial(4, 0.1, runs).astype(float)
            log_e = share_evidence(bad, np.full(runs, 4.0), 0.1, bets)
        elif test == "between":  # a split and a base rate that change with each tick
            n0, n1 = rng.poisson(9, runs), rng.poisson(3, runs)
            rate = rng.uniform(0, 0.5)
            k1 = rng.binomial(n1, rate)
            log_e = between_evidence(
                k1.astype(float), (k1 + rng.binomial(n0, rate)).astype(float), n1 / np.maximum(n0 + n1, 1), bets
            )
        else:
            log_e = rng.multinomial(3, [0.2, 0.6, 0.2], runs) @ table
        log_r = detector_step(log_r, log_e)
        alarmed |= detector_value(log_r, np.array([0]), counts(len(bets)))[:, 0] >= threshold
    assert 0 < alarmed.mean() <= alpha


# Bounds


@pytest.mark.parametrize(
    ("p", "q", "nats"),
    [  # scipy.special.rel_entr(p, q) + rel_entr(1 - p, 1 - q); the last ones by hand
        (0.1, 0.05, 0.0206542189127464),
        (0.5, 0.01, 1.614463080360851),
        (0.3, 0.3, 0.0),
        (0.0, 0.5, math.log(2)),
        (1.0, 0.05, math.log(20)),
        (0.5, 0.0, math.inf),
        (0.5, 1.0, math.inf),
    ],
)
def test_the_divergence_of_two_coins(p: float, q: float, nats: float) -> None:
    assert float(kl(np.array(p), np.array(q))) == pytest.approx(nats)


def test_the_best_bet_is_never_further_ahead_of_the_mixture_than_its_regret() -> None:
    """The mixture over all coins with weight Beta(1/2, 1/2) (Krichevsky and Trofimov) of every k of n up to 150."""
    for n in range(1, 151):
        for k in range(n + 1):
            mixture = math.lgamma(k + 0.5) + math.lgamma(n - k + 0.5) - math.lgamma(n + 1) - math.log(math.pi)
            best = (k * math.log(k / n) if k else 0.0) + ((n - k) * math.log(1 - k / n) if k < n else 0.0)
            assert best - mixture <= float(regret(np.array(float(n)))) + 1e-9


@pytest.mark.parametrize(
    ("bad", "trials", "alpha", "lower", "upper"),
    [  # scipy.optimize.brentq of n kl(k/n, p) = log(1/alpha) + log(n + 1)/2 + log 2
        (3, 100, 0.05, 0.0015988320188488117, 0.12820258499526702),
        (50, 1000, 0.05, 0.028122501352084668, 0.08038974333656945),
        (0, 200, 0.05, 0.0, 0.03120539891113839),
        (200, 200, 0.01, 0.9610298115558957, 1.0),
        (7, 10, 0.1, 0.26129428015964773, 0.9649580536822926),
    ],
)
def test_bounds_of_a_share(bad: float, trials: float, alpha: float, lower: float, upper: float) -> None:
    found = share_bounds(counts(bad), counts(trials), alpha)
    assert [each.item() for each in found] == pytest.approx([lower, upper], abs=1e-9)


@pytest.mark.parametrize(
    ("seen", "values", "lower", "upper"),
    [  # scipy: brentq over the mean, minimize_scalar over the bet; alpha is 0.05
        ([10, 60, 30], [0, 0.5, 1], 0.4925918082726964, 0.7031358652337557),
        ([3, 50, 400, 50, 2], [0.3, 0.45, 0.5, 0.55, 0.8], 0.4922418735950839, 0.5079829419843324),
    ],
)
def test_bounds_of_a_mean(seen: list[float], values: list[float], lower: float, upper: float) -> None:
    found = mean_bounds(np.array([seen], dtype=float), np.array(values), 0.05)
    assert [each.item() for each in found] == pytest.approx([lower, upper], abs=1e-7)


def test_nothing_is_known_without_trials() -> None:
    assert [each.item() for each in share_bounds(counts(0), counts(0), 0.05)] == [0, 1]
    assert [each.item() for each in mean_bounds(np.zeros((1, 3)), counts(0, 0.5, 1), 0.05)] == [0, 1]


@settings(deadline=None, max_examples=50)
@given(n=st.integers(1, 5000), alpha=st.floats(0.001, 0.5), data=st.data())
def test_bounds_widen_with_a_smaller_alpha_and_narrow_with_more_data(n: int, alpha: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    lower, upper = share_bounds(counts(k, k, 10 * k), counts(n, n, 10 * n), alpha)
    wider_lower, wider_upper = share_bounds(counts(k), counts(n), alpha / 2)
    assert 0 <= lower[0] <= k / n <= upper[0] <= 1
    assert wider_lower[0] <= lower[0] + 1e-12
    assert wider_upper[0] >= upper[0] - 1e-12
    assert lower[2] >= lower[0] - 1e-12
    assert upper[2] <= upper[0] + 1e-12


@settings(deadline=None, max_examples=50)
@given(n=st.integers(1, 5000), alpha=st.floats(0.001, 0.5), data=st.data())
def test_bounds_of_good_and_of_bad_mirror_each_other_and_a_bad_event_more_moves_both_up(
    n: int, alpha: float, data: st.DataObject
) -> None:
    k = data.draw(st.integers(0, n - 1))
    lower, upper = share_bounds(counts(k, n - k, k + 1), counts(n, n, n), alpha)
    assert lower[0] == pytest.approx(1 - upper[1], abs=1e-9)
    assert lower[2] >= lower[0] - 1e-12
    assert upper[2] >= upper[0] - 1e-12


@settings(deadline=None, max_examples=25)
@given(n=st.integers(1, 500), alpha=st.floats(0.001, 0.5), data=st.data())
def test_bounds_of_a_mean_of_noughts_and_ones_are_those_of_a_share(n: int, alpha: float, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    of_mean = mean_bounds(counts(n - k, k)[None], counts(0, 1), alpha)
    of_share = share_bounds(counts(k), counts(n), alpha)
    assert np.concatenate(of_mean) == pytest.approx(np.concatenate(of_share), abs=1e-6)


def test_bounds_of_a_mean_adapt_to_the_spread_and_to_alpha() -> None:
    values = counts(0, 0.45, 0.5, 0.55, 1)
    wide, narrow = np.array([[50.0, 0, 100, 0, 50]]), np.array([[0, 50.0, 100, 50, 0]])

    def width(seen: Array, alpha: float) -> float:
        lower, upper = mean_bounds(seen, values, alpha)
        assert lower[0] < 0.5 < upper[0]
        return float(upper[0] - lower[0])

    assert width(narrow, 0.05) < width(wide, 0.05) / 4
    assert width(wide, 0.01) > width(wide, 0.05)
    assert width(10 * wide, 0.05) < width(wide, 0.05)


def test_a_share_is_within_its_bounds_at_all_times_however_often_one_looks() -> None:
    """1,000 courses of 1,500 requests, looked at every ten."""
    rng = np.random.default_rng(7)
    true, alpha, runs = 0.07, 0.2, 1000
    bad, out_below, out_above = np.zeros(runs), np.zeros(runs, dtype=bool), np.zeros(runs, dtype=bool)
    for look in range(1, 151):
        bad += rng.binomial(10, true, runs)
        lower, upper = share_bounds(bad, np.full(runs, 10.0 * look), alpha)
        out_below |= upper < true
        out_above |= lower > true
    assert 0 < (out_below | out_above).mean() <= alpha


def test_a_mean_is_within_its_bounds_at_all_times_however_often_one_looks() -> None:
    rng = np.random.default_rng(8)
    values, chances, alpha, runs = counts(0, 0.5, 0.6, 1), counts(0.1, 0.6, 0.2, 0.1), 0.3, 150
    true = float(chances @ values)
    seen, out = np.zeros((runs, 4)), np.zeros(runs, dtype=bool)
    for _ in range(25):
        seen += rng.multinomial(8, chances, runs)
        lower, upper = mean_bounds(seen, values, alpha)
        out |= (lower > true) | (upper < true)
    assert out.mean() <= alpha


# Forecast


def test_a_share_within_its_limit_never_alarms() -> None:
    assert requests_to_alarm(0.05, 0.05, 18.0) == math.inf
    assert requests_to_alarm(0.01, 0.05, 18.0) == math.inf


def test_when_all_is_bad_each_request_tells_the_logarithm_of_the_limit() -> None:
    assert requests_to_alarm(1.0, 0.05, 18.0) == pytest.approx((18 + math.log(7)) / math.log(20))


@pytest.mark.parametrize("share", [0.1, 0.2, 0.5, 1.0])
def test_the_forecast_of_an_alarm_is_about_the_median_of_a_simulation(share: float) -> None:
    rng = np.random.default_rng(9)
    runs, limit, threshold = 200, 0.05, alarm_at(86_400, 10, 0.01)
    forecast = requests_to_alarm(share, limit, threshold)
    bets = share_bets(limit)
    log_r = np.full((runs, len(bets)), -1e6)
    needed = np.full(runs, np.inf)
    for request in range(1, int(3 * forecast)):
        bad = (rng.random(runs) < share).astype(float)
        log_r = detector_step(log_r, share_evidence(bad, np.ones(runs), limit, bets))
        found = detector_value(log_r, np.array([0]), counts(len(bets)))[:, 0] >= threshold
        needed[found & np.isinf(needed)] = request
    assert 0.6 * forecast <= np.median(needed) <= 1.4 * forecast
