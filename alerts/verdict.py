"""From findings to one verdict: the worst finding wins, and every reason to wait has its own name.

a guardrail breached                         rollback, in every phase, whatever else is wrong
no data, no traffic, invalid, split, ...     hold; on-call hears of it after its grace time
not every guardrail passed                   hold; past the deadline: back to the stage before
every guardrail passed                       advance (the ramp waits for the stage's time itself)
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from alerts.guardrails import Method
from flags.ramp import Verdict, words

if TYPE_CHECKING:
    from collections.abc import Sequence


_LOG_10 = math.log(10)


class HoldReason(StrEnum):
    """Why a stage is not passed, the worst first."""

    STORE_AWAY = "store_away"
    """The shared store cannot be reached: nothing is known."""
    NO_DATA = "no_data"
    """No replica tells any counts."""
    INVALID = "invalid_counts"
    """A replica tells counts that cannot be; its counts are left out."""
    SPLIT = "split"
    """The users are not split as configured: the arms cannot be compared."""
    NOT_READY = "candidate_not_ready"
    """Most who should have the candidate get control, because it is not ready."""
    NO_TRAFFIC = "no_traffic"
    """The candidate gets no requests."""
    FEW_USERS = "few_users"
    """A few users meet far more bad events than a limit allows for all: too few to speak for the others."""
    FLAG_STALE = "flag_stale"
    """A replica does not know the newest state of the flag."""
    INCONCLUSIVE = "inconclusive"
    """Nothing is wrong, and not every guardrail is proved to hold."""


GRACE_SECONDS = {
    HoldReason.STORE_AWAY: 30.0,
    HoldReason.NO_DATA: 30.0,
    HoldReason.INVALID: 30.0,
    HoldReason.SPLIT: 60.0,
    HoldReason.NOT_READY: 60.0,
    HoldReason.NO_TRAFFIC: 600.0,
    HoldReason.FEW_USERS: 60.0,
    HoldReason.FLAG_STALE: 30.0,
}
"""How long it lasts before somebody is told. `INCONCLUSIVE` is told when the stage's time is over."""
DEADLINE_STAGES = 2.0
"""Times the stage's own time that it may be extended, before it goes back to the stage before."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one guardrail reads now, with the numbers that decide."""

    guardrail: str
    words: str
    """What must hold."""
    test: Method
    is_enforced: bool
    is_breached: bool
    is_passed: bool
    evidence: float
    """Natural logarithm of the detector's value."""
    threshold: float
    """It is breached from here on."""
    trials: float
    bad: float
    """Of the stage; for a mean, the sum of the values."""
    estimate: float
    lower: float
    upper: float
    limit: float
    """Of the estimate: a share or a mean."""
    recent_seconds: float
    """Since the evidence last stood at nothing: where a fault began, if there is one."""
    recent_trials: float
    recent_bad: float
    """Since then; for a mean, the sum of the values."""
    design_effect: float
    seconds_to_detect: float | None
    """At today's traffic, if the bad share doubled its limit (a mean: moved as much as the margin). None: never."""
    seconds_to_pass: float | None
    """At today's traffic and estimate, until it is proved to hold. None: never, as it stands."""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict of one tick, and what it rests on."""

    verdict: Verdict
    reason: str
    hold: HoldReason | None = None
    finding: Finding | None = None
    """The one that rolls back."""


def judge(
    findings: Sequence[Finding],
    holds: Sequence[HoldReason],
    *,
    extended_stages: float = 0.0,
) -> Judgement:
    """Return the verdict; *extended_stages* is how far past the stage's time it is, in times of that."""
    breached = [each for each in findings if each.is_breached and each.is_enforced]
    if breached:
        worst = max(breached, key=lambda each: each.evidence - each.threshold)
        return Judgement(verdict=Verdict.ROLLBACK, reason=sentence(worst), finding=worst)
    if holds:
        worst_hold = min(holds, key=list(HoldReason).index)
        return Judgement(verdict=Verdict.HOLD, reason=worst_hold.value, hold=worst_hold)
    if not findings:
        return Judgement(verdict=Verdict.HOLD, reason="not judged yet", hold=HoldReason.INCONCLUSIVE)
    unsure = [each.guardrail for each in findings if each.is_enforced and not each.is_passed]
    if not unsure:
        return Judgement(verdict=Verdict.ADVANCE, reason="every guardrail is proved to hold")
    reason = f"not proved yet: {', '.join(unsure)}"
    verdict = Verdict.REVERT if extended_stages >= DEADLINE_STAGES else Verdict.HOLD
    return Judgement(verdict=verdict, reason=reason, hold=HoldReason.INCONCLUSIVE)


def sentence(finding: Finding) -> str:
    """Return the evidence in one sentence: what was seen since the fault began, and of the whole stage."""
    n = finding.recent_trials
    share = finding.recent_bad / n if n else 0.0
    match finding.test:
        case Method.SHARE:
            seen = f"{finding.recent_bad:g} of {n:g} ({share:.0%})"
            stage = f"{finding.bad:g} of {finding.trials:g} ({finding.estimate:.2%})"
        case Method.BETWEEN:
            seen = f"{finding.recent_bad:g} of {n:g} ({share:.1%})"
            stage = f"{finding.estimate:.2%}, where {finding.limit:.2%} would do"
        case _:
            seen = f"{share:.3f} on average of {n:g}"
            stage = f"{finding.estimate:.3f}, where the floor is {finding.limit:.3f}"
    powers = f"10^{finding.evidence / _LOG_10:.1f}, where 10^{finding.threshold / _LOG_10:.1f} is enough"
    return (
        f"{finding.guardrail}: {seen} in the last {words(finding.recent_seconds)}, but it must hold that "
        f"{finding.words}; {stage} in the whole stage; evidence {powers}"
    )
