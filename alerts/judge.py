"""From counts to findings: the guardrails' detectors and bounds, pure, for any number of runs at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from alerts import design_effect
from alerts.design_effect import SCALES, WINDOW_TICKS, no_spread
from alerts.evidence import (
    ODDS,
    SPLIT_ODDS,
    alarm_at,
    between_evidence,
    detector_step,
    detector_value,
    kl,
    mean_bets,
    mean_evidence_table,
    share_bets,
    share_evidence,
    split_evidence,
)
from alerts.guardrails import EVENTS, VALUES, Guardrail, Method
from alerts.judge_state import NOTHING, Onset, State, candidate_share
from alerts.signals import LEVEL_VALUES, Tick, no_tick
from alerts.stage_bounds import BOUND_ALPHA, stage_bounds
from alerts.vetoes import few_users, is_not_of_both, is_of_many

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from alerts.judge_state import Bounds

    Array = NDArray[np.float64]

_RATE_KEPT = 1 - 1 / 300
_RECENT_KEPT = 0.5 ** (1 / 600)


class Judge:
    """Holds what does not change during a rollout: guardrails, bets, threshold."""

    def __init__(self, guardrails: Sequence[Guardrail], horizon_ticks: float, alpha: float) -> None:
        self.guardrails = tuple(each for each in guardrails if each.is_on)
        enforced = sum(not each.report_only for each in self.guardrails)
        self.threshold = alarm_at(horizon_ticks, max(1, enforced), alpha)
        self.split_threshold = alarm_at(horizon_ticks, 1, alpha)
        self.enforced = np.array([not each.report_only for each in self.guardrails], dtype=bool)
        self._bets = [_bets(each) for each in self.guardrails]
        sizes = [len(bets) for bets in self._bets]
        self._starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.intp)
        self._sizes = np.array(sizes, dtype=float)
        self._owner = np.repeat(np.arange(len(sizes)), sizes)
        self._tables = {
            place: mean_evidence_table(LEVEL_VALUES, each.floor, self._bets[place])
            for place, each in enumerate(self.guardrails)
            if each.test is Method.MEAN
        }

    def begin(self, runs: int = 1) -> State:
        """Return the state before the first tick."""
        return State(
            log_r=np.full((runs, len(self._owner)), NOTHING),
            split_log_r=np.full((runs, len(SPLIT_ODDS)), NOTHING),
            deff=np.ones((runs, len(self._owner))),
            stage=no_tick(runs),
            rate=np.zeros((runs, len(self.guardrails))),
            trial_rate=np.zeros((runs, len(self.guardrails))),
            recent_bad=np.zeros((runs, 2, len(EVENTS), no_tick().group_bad.shape[-1])),
            recent_trials=np.zeros((runs, len(self.guardrails))),
            spread=no_spread(runs),
            has_breached=np.zeros((runs, len(self.guardrails)), dtype=bool),
            onset=Onset.none(runs, len(self._owner)),
        )

    def bets_of(self, place: int) -> slice:
        """Return where the bets of a guardrail are on the last axis."""
        start = int(self._starts[place])
        return slice(start, start + len(self._bets[place]))

    def leading_bet(self, state: State) -> NDArray[np.intp]:
        """Return the bet (r, guardrails) with the most evidence, as a place on the last axis."""
        found = [self.bets_of(place) for place in range(len(self.guardrails))]
        return np.stack([each.start + state.log_r[:, each].argmax(-1) for each in found], -1)

    def enter_stage(self, state: State, which: NDArray[np.bool_] | None = None) -> None:
        """Forget, in place, what is only true of the stage before: its sums and its users. The detectors go on.

        *which* (r,) are the runs that enter one; None: all.
        """
        chosen = np.ones(len(state.rate), dtype=bool) if which is None else which
        for name in Tick.__struct_fields__:
            getattr(state.stage, name)[chosen] = 0
        design_effect.forget(state.spread, chosen)
        state.split_log_r[chosen] = NOTHING

    def step(self, state: State, tick: Tick, share: Array) -> None:
        """Take one tick into *state*, in place; *share* (r,) is what the flag gave to the candidate."""
        log_e = np.concatenate([self._evidence(place, tick) for place in range(len(self.guardrails))], axis=-1)
        log_e /= state.deff
        seen, bad = self._seen(tick)
        counted, trials = self._counted(tick)
        # a tick that says nothing is none: time without requests must not look like evidence
        says = (counted + trials > 0)[:, self._owner]
        state.log_r = np.where(says, detector_step(state.log_r, log_e), state.log_r)
        state.onset.add(log_e, seen[..., self._owner], bad[..., self._owner])
        users = tick.new_users.sum(-1)
        log_split = split_evidence(tick.new_users[:, 1], users, share, np.array(SPLIT_ODDS))
        state.split_log_r = detector_step(state.split_log_r, log_split)
        state.stage = _added(state.stage, tick)
        state.rate = state.rate * _RATE_KEPT + counted * (1 - _RATE_KEPT)
        state.trial_rate = state.trial_rate * _RATE_KEPT + trials * (1 - _RATE_KEPT)
        state.recent_bad = state.recent_bad * _RECENT_KEPT + tick.group_bad[:, :, : len(EVENTS)]
        state.recent_trials = state.recent_trials * _RECENT_KEPT + trials
        is_measured_anew = design_effect.add(state.spread, tick)
        is_over = self.evidence(state) >= self.threshold
        if is_over.any():
            state.has_breached |= is_over & self._is_allowed(state)
        if is_measured_anew:
            self._weigh(state, self._weights(state))

    def _is_allowed(self, state: State) -> NDArray[np.bool_]:
        """Return where (r, guardrails) nothing keeps evidence from rolling back."""
        return is_of_many(self.guardrails, state) & is_not_of_both(self.guardrails, state, self.leading_bet(state))

    def few_users(self, state: State) -> NDArray[np.bool_]:
        """Return in which runs (r,) a few users meet far more bad events of late than a limit allows for all."""
        return few_users(self.guardrails, self.enforced, state)

    def evidence(self, state: State) -> Array:
        """Return log M (r, guardrails); a guardrail is breached at `threshold`, if not by a few users only."""
        return detector_value(state.log_r, self._starts, self._sizes)

    def is_split_wrong(self, state: State) -> NDArray[np.bool_]:
        """Return in which runs (r,) the users are not split as configured."""
        value = np.logaddexp.reduce(state.split_log_r, axis=-1) - np.log(len(SPLIT_ODDS))
        return value >= self.split_threshold

    def bounds(self, state: State, alpha: float = BOUND_ALPHA) -> Bounds:
        """Return estimates and bounds of the stage."""
        return stage_bounds(self, state, alpha)

    def _evidence(self, place: int, tick: Tick) -> Array:
        guardrail, bets = self.guardrails[place], self._bets[place]
        if guardrail.test is Method.MEAN:
            table: Array = tick.values[:, VALUES.index(guardrail.signal)] @ self._tables[place]
            return table
        event = EVENTS.index(guardrail.signal)
        bad, trials = tick.bad[:, :, event], tick.trials[:, :, event]
        if guardrail.test is Method.SHARE:
            return share_evidence(bad[:, 1], trials[:, 1], guardrail.share_limit, bets)
        return between_evidence(bad[:, 1], bad.sum(-1), candidate_share(trials), bets)

    def _seen(self, tick: Tick) -> tuple[Array, Array]:
        """Return (r, arms, guardrails) the trials of a tick, and their bad events or the sums of their values."""
        trials, bad = [], []
        for each in self.guardrails:
            if each.test is Method.MEAN:
                levels = tick.values[:, VALUES.index(each.signal)]
                trials.append(_of_candidate(levels.sum(-1)))
                bad.append(_of_candidate(levels @ LEVEL_VALUES))
            else:
                event = EVENTS.index(each.signal)
                trials.append(tick.trials[:, :, event])
                bad.append(tick.bad[:, :, event])
        return np.stack(trials, -1), np.stack(bad, -1)

    def _counted(self, tick: Tick) -> tuple[Array, Array]:
        """Return (r, guardrails) what each detector learns from, trials or between arms bad events, and the trials."""
        counted, trials = [], []
        for each in self.guardrails:
            if each.test is Method.MEAN:
                trials.append(tick.values[:, VALUES.index(each.signal)].sum(-1))
            else:
                trials.append(tick.trials[:, 1, EVENTS.index(each.signal)])
            is_between = each.test is Method.BETWEEN
            counted.append(tick.bad[:, :, EVENTS.index(each.signal)].sum(-1) if is_between else trials[-1])
        return np.stack(counted, -1), np.stack(trials, -1)

    def effect(self, place: int, state: State) -> Array:
        """Return the design effects (r, scales) that the evidence of a guardrail is weighed by."""
        guardrail = self.guardrails[place]
        effect = state.spread.effect
        if guardrail.test is Method.MEAN:
            return effect[:, 1, len(EVENTS) + VALUES.index(guardrail.signal)]
        event = EVENTS.index(guardrail.signal)
        if guardrail.test is Method.SHARE:
            return effect[:, 1, event]
        # the variance of k - rho K, with a design effect of its own in each arm
        rho = candidate_share(state.stage.trials[:, :, event])[:, None]
        both: Array = (1 - rho) * effect[:, 1, event] + rho * effect[:, 0, event]
        return both

    def _weights(self, state: State) -> Array:
        """Return the design effect (r, bets) of each bet: that of the shortest window in which it can decide."""
        columns = []
        for place, bets in enumerate(self._bets):
            effect = self.effect(place, state)
            information = self._information(place, state)
            rate = np.maximum(state.rate[:, place], 1e-9)[:, None]
            chosen = np.repeat(effect[:, -1:], len(bets), axis=1)
            for scale in reversed(range(SCALES - 1)):
                needed = self.threshold * effect[:, scale, None] / (information * rate)
                chosen = np.where(needed <= WINDOW_TICKS[scale], effect[:, scale, None], chosen)
            columns.append(chosen)
        return np.concatenate(columns, axis=-1)

    def _weigh(self, state: State, deff: Array) -> None:
        """Weigh by another design effect, in place; what was weighed by a smaller one is worth less by now, too."""
        is_for = state.log_r > 0
        state.log_r[is_for] *= np.minimum(1.0, state.deff / deff)[is_for]
        state.deff = deff

    def _information(self, place: int, state: State) -> Array:
        """Return the nats (r, bets) that a trial adds on average where the bet is the best one."""
        guardrail, bets = self.guardrails[place], self._bets[place]
        if guardrail.test is Method.SHARE:
            limit = guardrail.share_limit
            return kl(limit + bets * limit * (1 - limit), np.array(limit))[None]
        if guardrail.test is Method.BETWEEN:
            rho = candidate_share(state.stage.trials[:, :, EVENTS.index(guardrail.signal)])[:, None]
            return np.maximum(kl(bets * rho / (1 + (bets - 1) * rho), np.clip(rho, 1e-6, 1 - 1e-6)), 1e-9)
        levels = state.spread.levels[:, VALUES.index(guardrail.signal)]
        n = np.maximum(levels.sum(-1), 1.0)
        mean = (levels * LEVEL_VALUES).sum(-1) / n
        variance = np.maximum((levels * LEVEL_VALUES**2).sum(-1) / n - mean**2, 1e-4)
        return bets**2 * variance[:, None] / 2


def _bets(guardrail: Guardrail) -> Array:
    if guardrail.test is Method.SHARE:
        return share_bets(guardrail.share_limit)
    return np.array(ODDS) if guardrail.test is Method.BETWEEN else mean_bets(guardrail.floor)


def _of_candidate(values: Array) -> Array:
    """Return (r, arms) what only the candidate has."""
    return np.stack([np.zeros_like(values), values], -1)


def _added(total: Tick, tick: Tick) -> Tick:
    """Add what the bounds need; the sums by group are kept by `Spread`."""
    return msgspec.structs.replace(
        total,
        requests=total.requests + tick.requests,
        trials=total.trials + tick.trials,
        bad=total.bad + tick.bad,
        values=total.values + tick.values,
        new_users=total.new_users + tick.new_users,
    )
