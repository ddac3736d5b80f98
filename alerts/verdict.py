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
from flags.ramp import Verdict

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
    NO_TRAFFIC = "no_traffic"
    """The candidate gets no requests."""
    FLAG_STALE = "flag_stale"
    """A replica does not know the newest state of the flag."""
    INCONCLUSIVE = "inconclusive"
    """Nothing is wrong, and not every guardrail is proved to hold."""


GRACE_SECONDS = {
    HoldReason.STORE_AWAY: 30.0,
    HoldReason.NO_DATA: 30.0,
    HoldReason.INVALID: 30.0,
    HoldReason.SPLIT: 60.0,
    HoldReason.NO_TRAFFIC: 600.0,
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
    """Return the evidence in one sentence."""
    about = f"{finding.bad:g} of {finding.trials:g}"
    match finding.test:
        case Method.SHARE:
            seen = f"{about} ({finding.estimate:.1%}, surely over {finding.lower:.1%})"
        case Method.BETWEEN:
            seen = f"{about} ({finding.estimate:.2%}; {finding.limit:.2%} would do)"
        case _:
            seen = f"{finding.estimate:.3f} on average of {finding.trials:g}, surely under {finding.upper:.3f}"
            seen += f" (the floor is {finding.limit:.3f})"
    powers = f"10^{finding.evidence / _LOG_10:.1f}, where 10^{finding.threshold / _LOG_10:.1f} is enough"
    return f"{finding.guardrail}: {seen}, but it must hold that {finding.words}; evidence {powers}"
