"""What the judge's arrays say of one run, guardrail by guardrail."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from alerts.evidence import kl, regret, requests_to_alarm
from alerts.guardrails import COST_CEILING, Method, Value
from alerts.health import TICK_SECONDS
from alerts.stage_bounds import BOUND_ALPHA
from alerts.verdict import Finding

if TYPE_CHECKING:
    from alerts.guardrails import Guardrail
    from alerts.judge import Judge
    from alerts.judge_state import State

_LONGEST_SECONDS = 365 * 86400.0
_MEAN_SPREAD = 0.1
"""Standard deviation that is taken for a value: the forecasts are rough."""
_OVERLAP_SPREAD = 0.25
"""The same of an overlap of five, on which two good rerankers differ from one request to the next."""


def findings_of(judge: Judge, state: State) -> list[Finding]:
    """Return the findings of the first run."""
    evidence = judge.evidence(state)[0]
    breached = state.has_breached[0]
    bounds = judge.bounds(state)
    bets, onset = judge.leading_bet(state)[0], state.onset
    found = []
    for place, guardrail in enumerate(judge.guardrails):
        deff = float(judge.effect(place, state)[0, -1])
        estimate, limit = float(bounds.estimate[0, place]), float(bounds.harm_limit[0, place])
        rate = float(state.rate[0, place])
        found.append(
            Finding(
                guardrail=guardrail.name,
                words=guardrail.in_words(),
                test=guardrail.test,
                is_enforced=not guardrail.report_only,
                is_breached=bool(breached[place]),
                is_passed=bool(bounds.is_passed[0, place]),
                evidence=max(0.0, float(evidence[place])),
                threshold=judge.threshold,
                trials=float(bounds.trials[0, place]),
                bad=float(bounds.bad[0, place]),
                estimate=estimate,
                lower=float(bounds.lower[0, place]),
                upper=float(bounds.upper[0, place]),
                limit=limit,
                recent_seconds=float(onset.ticks[0, bets[place]]) * TICK_SECONDS,
                recent_trials=float(onset.trials[0, 1, bets[place]]),
                recent_bad=float(onset.bad[0, 1, bets[place]]),
                design_effect=deff,
                seconds_to_detect=_seconds(_to_detect(guardrail, judge.threshold), rate),
                seconds_to_pass=_to_pass(
                    guardrail,
                    float(bounds.trials[0, place]),
                    estimate,
                    limit,
                    deff,
                    float(state.trial_rate[0, place]),
                ),
            )
        )
    return found


def _to_detect(guardrail: Guardrail, threshold: float) -> float:
    """Return how many trials (bad events, of a test between arms) a fault of twice the limit takes."""
    if guardrail.test is Method.SHARE:
        return requests_to_alarm(2 * guardrail.share_limit, guardrail.share_limit, threshold)
    if guardrail.test is Method.BETWEEN:  # twice as many, at an even split
        return (threshold + 2) / float(kl(np.array(2 / 3), np.array(1 / 2)))
    shift = 1 / COST_CEILING if guardrail.signal is Value.COST else guardrail.limit
    spread = _spread(guardrail)
    bet = min(0.95 / (1 - guardrail.floor), shift / spread**2)
    return (threshold + 2) / max(1e-9, bet * shift - (bet * spread) ** 2 / 2)


def _spread(guardrail: Guardrail) -> float:
    return _OVERLAP_SPREAD if guardrail.signal is Value.OVERLAP else _MEAN_SPREAD


def _to_pass(
    guardrail: Guardrail, trials: float, estimate: float, limit: float, deff: float, rate: float
) -> float | None:
    """Return how long until the bound is on the right side of the limit, if the estimate stays."""
    if guardrail.test is Method.MEAN:
        shift = estimate - limit
        information = (shift / _spread(guardrail)) ** 2 / 2 if shift > 0 else 0.0
    else:
        information = float(kl(np.array(estimate), np.array(min(limit, 1 - 1e-9)))) if estimate < limit else 0.0
    if information <= 0:
        return None
    needed = 1.0
    for _ in range(4):
        needed = deff * (math.log(1 / BOUND_ALPHA) + float(regret(np.array(needed)))) / information
    return _seconds(max(0.0, needed - trials), rate) if needed > trials else 0.0


def _seconds(trials: float, rate: float) -> float | None:
    if rate <= 0 or not math.isfinite(trials):
        return None
    seconds = trials / rate
    return seconds if seconds <= _LONGEST_SECONDS else None
