"""What the rollout page says in words: where the rollout is, what it waits for, and what may be done about it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

import msgspec

from alerts.verdict import HoldReason
from flags.ramp import Phase, Verdict, cool_down_ends_at
from proxy.dashboard.words import duration

if TYPE_CHECKING:
    from alerts.report import Report
    from alerts.verdict import Finding
    from flags.ramp import Ramp
    from proxy.parts import Parts

Tone = Literal["good", "calm", "wait", "bad"]

_HOLD_WORDS = {
    HoldReason.STORE_AWAY: "the shared store cannot be reached",
    HoldReason.NO_DATA: "no replica tells any counts",
    HoldReason.INVALID: "a replica tells counts that cannot be",
    HoldReason.SPLIT: "the users are not split as configured",
    HoldReason.NOT_READY: "the candidate is not ready",
    HoldReason.NO_TRAFFIC: "the candidate gets no requests",
    HoldReason.FEW_USERS: "a few users meet most of what goes wrong",
    HoldReason.FLAG_STALE: "a replica does not know the newest state of the flag",
    HoldReason.INCONCLUSIVE: "not every guardrail is proved to hold yet",
}


class Headline(msgspec.Struct, frozen=True):
    """The state in a few words, and why."""

    tone: Tone
    title: str
    why: str


class StageView(msgspec.Struct, frozen=True, kw_only=True):
    """One stop of the track."""

    share_percent: int
    bake: str
    state: Literal["past", "here", "ahead"]
    done: float
    """Of its time, from 0 to 1; only of the stage that it is at."""
    left: str


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """Something an operator may do now."""

    name: str
    label: str
    share_percent: int | None = None
    is_main: bool = False


class StateView(msgspec.Struct, frozen=True, kw_only=True):
    """Everything above the plots."""

    flag: str
    headline: Headline
    stages: list[StageView]
    is_off_plan: bool
    """It is at a share that is no stage."""
    desired: int | None
    effective: int | None
    observed: float | None
    observed_requests: int
    missing: list[str]
    """What the stage still needs before it is passed."""
    warnings: list[str]
    rollback_id: str | None
    actions: list[Action]
    judged: str
    leader: str


def state_of(parts: Parts, role: str) -> StateView:
    """Return it, for somebody who has *role*."""
    now = time.time()
    status = parts.rollout.status()
    record = parts.rollout.latch.record
    ramp = record.ramp if record else None
    report = parts.guard.report if parts.guard else None
    share = status["share_percent"]
    return StateView(
        flag=parts.settings.flag.key,
        headline=_headline(parts, ramp, report, now),
        stages=_stages(parts, ramp, now),
        is_off_plan=bool(ramp and ramp.stage is None and ramp.share_percent),
        desired=share["desired"],
        effective=share["effective"],
        observed=share["observed"],
        observed_requests=share["observed_requests"],
        missing=_missing(ramp, report, now),
        warnings=_warnings(parts, status, report, now),
        rollback_id=_rollback_id(parts, ramp),
        actions=_actions(ramp, is_latched=parts.rollout.latch.is_set, role=role),
        judged=f"{duration(now - report.at)} ago" if report else "never",
        leader=str(status["leader"] or "nobody"),
    )


def _rollback_id(parts: Parts, ramp: Ramp | None) -> str | None:
    undelivered = parts.rollout.latch.undelivered
    rollback = undelivered or (ramp.rollback if ramp and ramp.is_rolled_back else None)
    return rollback.rollback_id if rollback else None


def _headline(parts: Parts, ramp: Ramp | None, report: Report | None, now: float) -> Headline:
    if parts.rollout.latch.is_set:
        return _rolled_back(parts, ramp, now)
    if ramp is None:
        why = parts.rollout.control.error or parts.exchange.error or "the flag was not read yet"
        return Headline("wait", "No record yet", f"{why[:1].upper()}{why[1:]}.")
    at = f"{ramp.share_percent} %"
    match ramp.phase:
        case Phase.RETIRED:
            return Headline("good", "Old arm retired", "Everybody gets the candidate; the old arm is the fallback.")
        case Phase.PROMOTED:
            return Headline("good", "Promoted", "Everybody gets the candidate, and it was proved for the last stage.")
        case Phase.HELD:
            return Headline("wait", f"Held at {at}", "An operator holds it; a rollback still works.")
        case _:
            return _ramping(parts, ramp, report, at)


def _rolled_back(parts: Parts, ramp: Ramp | None, now: float) -> Headline:
    latch = parts.rollout.latch
    rollback = latch.undelivered or (ramp.rollback if ramp else None)
    why = f"by {rollback.actor}: {rollback.reason or 'no reason was given'}" if rollback else ""
    left = cool_down_ends_at(ramp, parts.settings.ramp.cool_down_seconds) - now if ramp else 0
    wait = f" It cools down for another {duration(left)}." if left > 0 else " It may be re-armed."
    if latch.undelivered is not None:
        told = "The other replicas are told as soon as the shared store answers: until then they may go on."
        return Headline("bad", "Rolled back, on this replica", f"It gives everybody control, {why}. {told}")
    return Headline("bad", "Rolled back", f"Everybody gets control, {why}.{wait}")


def _ramping(parts: Parts, ramp: Ramp, report: Report | None, at: str) -> Headline:
    if not ramp.share_percent:
        return Headline("calm", "Dark", "Nobody has the candidate; shadows and probes may judge it already.")
    if ramp.is_ready:
        return Headline(
            "good", f"Ready to advance from {at}", "Every guardrail is proved to hold, and the time is over."
        )
    if report is None:
        why = "The guard is off: a stage is passed when its time is over." if parts.guard is None else "Not judged yet."
        return Headline("calm", f"Ramping at {at}", why)
    hold = report.judgement.hold
    if hold is not None and hold is not HoldReason.INCONCLUSIVE:
        return Headline("wait", f"Holding at {at}", f"Because {_HOLD_WORDS[hold]}.")
    if report.judgement.verdict is Verdict.ADVANCE:
        return Headline("calm", f"Ramping at {at}", "Every guardrail is proved to hold; the stage's time runs.")
    return Headline("calm", f"Ramping at {at}", f"{_HOLD_WORDS[HoldReason.INCONCLUSIVE].capitalize()}.")


def _stages(parts: Parts, ramp: Ramp | None, now: float) -> list[StageView]:
    plan = ramp.plan if ramp else parts.settings.ramp.stages
    share = ramp.share_percent if ramp and not ramp.is_rolled_back else 0
    found = []
    for stage in plan:
        is_here = bool(ramp and not ramp.is_rolled_back and share == stage.share_percent)
        left = ramp.baked_seconds_left(now) if ramp and is_here and ramp.phase is Phase.RAMPING else 0.0
        found.append(
            StageView(
                share_percent=stage.share_percent,
                bake=duration(stage.bake_seconds),
                state="here" if is_here else "past" if stage.share_percent < share else "ahead",
                done=1 - left / stage.bake_seconds if is_here and stage.bake_seconds else float(is_here),
                left=f"{duration(left)} left" if left else "time is over" if is_here else "",
            )
        )
    return found


def _missing(ramp: Ramp | None, report: Report | None, now: float) -> list[str]:
    """Return what keeps the stage from being passed."""
    if ramp is None or ramp.phase is not Phase.RAMPING or not ramp.share_percent or ramp.is_ready:
        return []
    found = []
    if left := ramp.baked_seconds_left(now):
        found.append(f"{duration(left)} of the stage's time")
    if report is not None:
        found += [_HOLD_WORDS[hold] for hold in report.holds]
        unproved = [each for each in report.findings if each.is_enforced and not each.is_passed]
        found += [f"proof that {each.words}{_when(each)}" for each in unproved]
    return found


def _when(finding: Finding) -> str:
    if finding.seconds_to_pass is None:
        return " (never, as it stands)" if finding.trials else " (nothing was measured yet)"
    return f" (about {duration(finding.seconds_to_pass)} at today's traffic)"


def _warnings(parts: Parts, status: dict[str, object], report: Report | None, now: float) -> list[str]:
    found = [str(each) for each in status["warnings"]] if isinstance(status["warnings"], list) else []
    if parts.exchange.error:
        found.append(
            f"The shared store cannot be reached ({parts.exchange.error}): what is shown is what was last known."
        )
    if not parts.rollout.latch.is_known:
        found.append("Whether a rollback holds is not known: the store was never reached. Everybody gets control.")
    if status["flag_is_behind"]:
        error = status["flag_error"]
        found.append(f"The flag does not say it yet: {error}." if error else "The flag does not say it yet.")
    if report is not None and now - report.at > 10:
        found.append(f"Nothing was judged for {duration(now - report.at)}.")
    if parts.guard is not None and not parts.alerting.notifiers:
        found.append("Nobody would be told of a rollback: no receivers are configured.")
    if parts.stand_in is not None:
        found.append("A stand-in answers for the language model: there is no OPENAI_API_KEY.")
    return found


def _actions(ramp: Ramp | None, *, is_latched: bool, role: str) -> list[Action]:
    """Return what may be done now by somebody with *role*, the most likely first."""
    if role == "viewer":
        return []
    rollback = Action(name="rollback", label="Roll back…")
    if ramp is None:
        return [] if is_latched else [rollback]
    if is_latched:
        return [Action(name="rearm", label="Re-arm…", is_main=True)] if role == "admin" else []
    if ramp.phase is Phase.RETIRED:
        return [rollback]
    found = []
    if ramp.phase is not Phase.PROMOTED and not ramp.is_last_stage:
        found.append(Action(name="advance", label="Advance…", is_main=True))
    found += [
        Action(name="ramp", label=f"{stage.share_percent} %…", share_percent=stage.share_percent)
        for stage in ramp.plan
        if stage.share_percent != ramp.share_percent
    ]
    if ramp.phase is Phase.HELD:
        found.append(Action(name="ramp", label="Go on…", share_percent=ramp.share_percent))
    elif ramp.phase is Phase.RAMPING and ramp.share_percent:
        found.append(Action(name="hold", label="Hold…"))
    if role == "admin" and ramp.share_percent == 100:
        found.append(Action(name="retire", label="Retire the old arm…"))
    return [*found, rollback]
