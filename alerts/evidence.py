"""What counts say of a limit: e-values, the detectors made of them, and confidence bounds.

Everything is pure, in numpy, and broadcasts over leading axes, so that a simulation steps many runs at
once. Evidence is kept as natural logarithms. Notation: k bad of n, p0 the limit, w a bet, r odds.

E-detector (Shin, Ramdas, Rinaldo 2023, "E-detectors: a nonparametric framework for sequential change
detection", arXiv 2203.03532, eq. 9 and section 3): ``R_t = (1 + R_{t-1}) L_t`` with an e-value L_t for each
tick, and the mean over a grid of bets as mixture. While the guardrail holds, ``M_t - t`` is a
supermartingale, so that P(M reaches c within H ticks) <= H / c (Doob).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

BETS = (0.025, 0.05, 0.1, 0.2, 0.4, 0.7, 0.95)
"""Fractions of the largest bet; of a limit of 5 %, 0.5 to 19."""
ODDS = (1.25, 1.5, 2.0, 4.0)
SPLIT_ODDS = (0.5, 0.8, 0.9, 1.1, 1.25, 2.0)
_BISECTIONS = 60


def share_bets(limit: float) -> Array:
    """Return the grid of bets on a share above *limit*: each w has w * limit < 1."""
    return np.array(BETS) / limit


def share_evidence(bad: Array, trials: Array, limit: float, bets: Array) -> Array:
    """Return log e-values (..., bets) against "a share stays <= *limit*", for *bad* (...) of *trials* (...).

    ``log L = k log(1 + w (1 - p0)) + (n - k) log(1 - w p0)``: betting, Waudby-Smith and Ramdas 2023,
    "Estimating means of bounded random variables by betting", arXiv 2010.09686, section 4.
    """
    k, n = bad[..., None], trials[..., None]
    return k * np.log1p(bets * (1 - limit)) + (n - k) * np.log1p(-bets * limit)


def between_evidence(bad: Array, bad_of_both: Array, exposed_share: Array, odds: Array) -> Array:
    """Return log e-values (..., odds) against "the candidate's share of bad events stays <= its share of traffic".

    *bad* (...) of *bad_of_both* (...) are the candidate's, *exposed_share* (...) is its share of the trials:
    ``log L = k log r - K log(1 + (r - 1) rho)`` (Lindon and Malek 2022, "Anytime-valid inference for multinomial
    count data", arXiv 2011.03567, with a point alternative for each r). Any daily rhythm cancels out.
    """
    k, both, rho = bad[..., None], bad_of_both[..., None], exposed_share[..., None]
    return k * np.log(odds) - both * np.log1p((odds - 1) * rho)


def mean_bets(floor: float) -> Array:
    """Return the grid of bets on a mean below *floor*: each w has w * (1 - floor) < 1."""
    return np.array(BETS) / (1 - floor)


def mean_evidence_table(values: Array, floor: float, bets: Array) -> Array:
    """Return what one observation of each of *values* (v,) in [0, 1] adds: (v, bets), to be multiplied by counts.

    ``log L = sum log(1 + w (m - X))`` against "the mean stays >= m" (arXiv 2010.09686, eq. 11).
    """
    return np.log1p(bets * (floor - values[:, None]))


def detector_step(log_r: Array, log_e: Array) -> Array:
    """Return the next logs of R, one a bet: ``log(1 + R) + log L``."""
    return np.logaddexp(0.0, log_r) + log_e


def detector_value(log_r: Array, starts: NDArray[np.intp], sizes: Array) -> Array:
    """Return log M (..., g) of mixtures that lie side by side on the last axis, each from its start on."""
    return np.logaddexp.reduceat(log_r, starts, axis=-1) - np.log(sizes)


def alarm_at(horizon_ticks: float, guardrails: int, alpha: float) -> float:
    """Return the log M at which one of *guardrails* is breached: at most *alpha* false alarms of all in the horizon."""
    return float(np.log(horizon_ticks * guardrails / alpha))


def kl(p: Array, q: Array) -> Array:
    """Return the Kullback-Leibler divergence of a coin of *p* from one of *q*, in nats."""
    with np.errstate(divide="ignore", invalid="ignore"):
        heads = np.where(p > 0, p * np.log(p / q), 0.0)
        tails = np.where(p < 1, (1 - p) * np.log((1 - p) / (1 - q)), 0.0)
    return heads + tails


def regret(trials: Array) -> Array:
    """Return how many nats the best bet in hindsight may be ahead of the universal mixture over all bets.

    ``log(n + 1) / 2 + log 2`` (Krichevsky and Trofimov 1981; for betting Orabona and Jun 2023, "Tight
    concentrations and confidence sequences from the regret of universal portfolio", arXiv 2110.14099).
    """
    return np.log1p(trials) / 2 + np.log(2)


def share_bounds(bad: Array, trials: Array, alpha: float) -> tuple[Array, Array]:
    """Return bounds (lower, upper) of a share, each of which fails with probability <= *alpha* at any time.

    ``{p: n kl(k/n, p) <= log(1/alpha) + regret(n)}``: the mixture wealth against p is at least that of the
    best bet less the regret (Ville). No trials: 0 and 1.
    """
    n = np.maximum(trials, 1e-9)
    share = np.clip(bad / n, 0.0, 1.0)
    room = (np.log(1 / alpha) + regret(trials)) / n

    def is_inside(p: Array) -> NDArray[np.bool_]:
        return kl(share, p) <= room

    return _outermost(share, np.zeros_like(share), is_inside), _outermost(share, np.ones_like(share), is_inside)


def mean_bounds(counts: Array, values: Array, alpha: float) -> tuple[Array, Array]:
    """Return bounds (lower, upper) of the mean of values in [0, 1], counted as *counts* (..., v) of *values* (v,).

    The mean m is out when the best bet in hindsight, less the `regret`, wins 1/alpha against it (arXiv 2110.14099,
    Theorem 1): adapts to the variance, where `share_bounds` would take the worst one.
    """
    n = counts.sum(-1)
    mean = np.where(n > 0, (counts * values).sum(-1) / np.maximum(n, 1e-9), 0.5)
    room = np.log(1 / alpha) + regret(n)

    def is_inside(m: Array) -> NDArray[np.bool_]:
        return _best_wealth(counts, values, m) <= room

    return _outermost(mean, np.zeros_like(mean), is_inside), _outermost(mean, np.ones_like(mean), is_inside)


def _outermost(inside: Array, edge: Array, is_inside: object) -> Array:
    """Return the point nearest to *edge* that is still inside, by bisection."""
    assert callable(is_inside)
    near, far = inside, edge
    reached = is_inside(np.clip(edge, 1e-12, 1 - 1e-12))
    for _ in range(_BISECTIONS):
        middle = (near + far) / 2
        ok = is_inside(middle)
        near, far = np.where(ok, middle, near), np.where(ok, far, middle)
    return np.where(reached, edge, far)


def _best_wealth(counts: Array, values: Array, m: Array) -> Array:
    """Return the log wealth of the best constant bet against mean *m*: a concave maximum, by bisection on its slope."""
    centred = values - m[..., None]
    low = -1 / np.maximum(1 - m, 1e-12) * (1 - 1e-9)
    high = 1 / np.maximum(m, 1e-12) * (1 - 1e-9)
    for _ in range(_BISECTIONS):
        bet = (low + high) / 2
        slope = (counts * centred / (1 + bet[..., None] * centred)).sum(-1)
        low, high = np.where(slope > 0, bet, low), np.where(slope > 0, high, bet)
    return (counts * np.log1p(((low + high) / 2)[..., None] * centred)).sum(-1)


def split_evidence(candidate: Array, users: Array, share: Array, odds: Array) -> Array:
    """Return log e-values (..., odds) against "each new user is the candidate's with probability *share*".

    The two-armed multinomial test of arXiv 2011.03567, both ways: odds below and above 1.
    """
    k, n, rho = candidate[..., None], users[..., None], share[..., None]
    return k * np.log(odds) - n * np.log1p((odds - 1) * rho)


def requests_to_alarm(share: float, limit: float, threshold: float) -> float:
    """Return about how many trials a detector needs when the share becomes *share*; infinite where it is not above.

    Threshold over the information of one trial, `kl`, plus what the mixture costs (its size, at most).
    """
    if share <= limit:
        return float("inf")
    information = float(kl(np.array(min(share, 1.0)), np.array(limit)))
    return float((threshold + np.log(len(BETS))) / information)
