"""What keeps evidence from rolling back: the trouble of a few users, and what slows both arms at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from alerts.evidence import ODDS, between_evidence
from alerts.guardrails import EVENTS, Event, Guardrail, Method
from alerts.judge_state import State, candidate_share
from alerts.signals import ARMS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

MIN_USERS = 4
"""Groups of users that bad events must come from before they roll back: one user's trouble is one user's."""
_FEW_TRIALS = 5
"""Of control, that say nothing of how it does."""
_CLEARLY = float(np.log(20))
_MANY_BAD = 20


def is_of_many(guardrails: Sequence[Guardrail], state: State) -> NDArray[np.bool_]:
    """Return where bad events (r, guardrails) come from enough users, or from as many as there are."""
    bad = state.recent_bad[:, 1]
    exposed = (state.spread.trials[-1] + state.spread.trials[0])[:, 1, : len(EVENTS)]
    there = _effective_groups(exposed)
    enough = (there > 0) & (_effective_groups(bad) >= np.minimum(MIN_USERS, 0.5 * there) - 1e-9)
    return np.stack(
        [
            np.ones(len(bad), dtype=bool) if each.test is Method.MEAN else enough[:, EVENTS.index(each.signal)]
            for each in guardrails
        ],
        -1,
    )


def is_not_of_both(guardrails: Sequence[Guardrail], state: State, leading: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Return where (r, guardrails) control does not do as badly since the fault began.

    Only asked of the limit that moves with control's latency: it follows by the half-hour, and what slows
    both arms at once is not the candidate's doing. *leading* (r, guardrails) are the bets with the most evidence.
    """
    found = np.ones((len(state.rate), len(guardrails)), dtype=bool)
    for place, each in enumerate(guardrails):
        if each.signal is Event.SLOW_RELATIVE:
            at = np.arange(len(leading))[:, None], np.arange(ARMS)[None], leading[:, place, None]
            trials, bad = state.onset.trials[at], state.onset.bad[at]
            against = between_evidence(bad[:, 1], bad.sum(-1), candidate_share(trials), np.array(ODDS)).max(-1)
            found[:, place] = (trials[:, 0] < _FEW_TRIALS) | (against >= _CLEARLY)
    return found


def few_users(guardrails: Sequence[Guardrail], enforced: NDArray[np.bool_], state: State) -> NDArray[np.bool_]:
    """Return in which runs (r,) a few users meet far more bad events of late than a limit allows for all."""
    found = np.zeros(len(state.rate), dtype=bool)
    for place, each in enumerate(guardrails):
        if each.test is Method.SHARE and enforced[place]:
            bad = state.recent_bad[:, 1, EVENTS.index(each.signal)]
            share = bad.sum(-1) / np.maximum(state.recent_trials[:, place], 1e-9)
            is_much = (bad.sum(-1) >= _MANY_BAD) & (share >= 2 * each.share_limit)
            found |= is_much & (_effective_groups(bad) < 2 * MIN_USERS) & ~state.has_breached[:, place]
    return found


def _effective_groups(counts: Array) -> Array:
    """Return how many equal groups would be as uneven as these (..., groups): inverse Simpson; 0 without counts."""
    return counts.sum(-1) ** 2 / np.maximum((counts**2).sum(-1), 1e-12)
