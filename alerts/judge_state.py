"""What the judge remembers between ticks, and what it says of a stage: arrays, for any number of runs at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from alerts.design_effect import Spread
from alerts.signals import ARMS, Tick

if TYPE_CHECKING:
    Array = NDArray[np.float64]

NOTHING = -1e6
"""The logarithm of no evidence at all, as JSON can have it."""


class Onset(msgspec.Struct, kw_only=True):
    """What each bet saw since its evidence last stood at nothing: where a fault began, if there is one.

    The restart of a CUSUM is the likeliest time of a change (Page 1954; Hinkley 1970). Arrays (r, bets).
    """

    score: Array
    ticks: Array
    trials: Array
    """(r, arms, bets)"""
    bad: Array
    """(r, arms, bets): bad events; of a mean, the sum of the values, which only the candidate's row has."""

    @classmethod
    def none(cls, runs: int, bets: int) -> Onset:
        """Return that nothing was seen."""
        return cls(
            score=np.zeros((runs, bets)),
            ticks=np.zeros((runs, bets)),
            trials=np.zeros((runs, ARMS, bets)),
            bad=np.zeros((runs, ARMS, bets)),
        )

    def add(self, log_e: Array, trials: Array, bad: Array) -> None:
        """Take one tick, in place: the evidence (r, bets), and (r, arms, bets) what it rests on."""
        self.score = np.maximum(0.0, self.score + log_e)
        goes_on = self.score > 0
        self.ticks = np.where(goes_on, self.ticks + 1, 0.0)
        self.trials = np.where(goes_on[:, None], self.trials + trials, 0.0)
        self.bad = np.where(goes_on[:, None], self.bad + bad, 0.0)


class State(msgspec.Struct, kw_only=True):
    """Everything the judge remembers between ticks."""

    log_r: Array
    """(r, bets of all guardrails)"""
    split_log_r: Array
    """(r, odds)"""
    deff: Array
    """(r, bets): the design effect that each bet is weighed by."""
    stage: Tick
    """Sums of the stage."""
    rate: Array
    """(r, guardrails): what a detector learns from a tick, of late: trials, or between arms bad events."""
    trial_rate: Array
    """(r, guardrails): trials of the candidate a tick, of late."""
    recent_bad: Array
    """(r, arms, events, groups): bad events of late."""
    recent_trials: Array
    """(r, guardrails): trials of the candidate, likewise."""
    spread: Spread
    has_breached: NDArray[np.bool_]
    """(r, guardrails): an alarm stays one, whatever the evidence says later."""
    onset: Onset


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of each guardrail in this stage. Arrays (r, guardrails)."""

    trials: Array
    bad: Array
    """Bad events, or the sum of the values."""
    estimate: Array
    lower: Array
    upper: Array
    harm_limit: Array
    """The bound on harm has to be on the right side of this."""
    is_passed: NDArray[np.bool_]


def candidate_share(trials: Array) -> Array:
    """Return the candidate's share (r,) of trials (r, arms)."""
    return trials[:, 1] / np.maximum(trials.sum(-1), 1e-9)
