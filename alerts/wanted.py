"""Which alerts there should be, and what each says: pure. Worked out anew each second from the state of things.

So nothing is forgotten by a leader that dies, and nothing is told twice: what is wanted and not in the outbox
is put there, what is there and no longer wanted is over.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from alerts.alert import Alert, Severity, alert_name
from alerts.report import Evidence, Report
from alerts.verdict import GRACE_SECONDS, HoldReason, sentence
from flags.ramp import Phase, words
from flags.record import REVERTED_BY, RampRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

    from flags.ramp import Rollback

_FLAG_GRACE_SECONDS = 10.0
_SILENT_SECONDS = 30.0
_KEPT_MINUTES = 60.0
"""How long it is said that a stage was reverted."""

_HOLD_WORDS = {
    HoldReason.STORE_AWAY: (
        "The shared store cannot be reached: nobody is judged, nothing is promoted.",
        "Look at Redis. The split and a rollback that holds stay as they are on every replica.",
    ),
    HoldReason.NO_DATA: (
        "No replica tells what it counts: nobody is judged.",
        "Look at the logs of the replicas for `store.lost`.",
    ),
    HoldReason.INVALID: (
        "A replica tells counts that cannot be; they are left out.",
        "Restart the replica that is named; if it goes on, roll its version back.",
    ),
    HoldReason.SPLIT: (
        "The users are not split as the flag says: the arms cannot be compared.",
        "Look for a proxy or cache in front that keeps answers, and for replicas with another flag.",
    ),
    HoldReason.NOT_READY: (
        "The candidate is not ready: who should have it gets control.",
        "Look at the candidate's server or model (`rerank-canary status`); nothing is judged meanwhile.",
    ),
    HoldReason.FEW_USERS: (
        "A few users meet far more failures, slowness or doubts than the limits allow for all.",
        "Look at their requests (`rerank-canary guard` says which limit); too few to roll back by evidence: decide.",
    ),
    HoldReason.NO_TRAFFIC: (
        "The candidate gets no requests although the flag gives it a share.",
        "Look whether the candidate is ready (`rerank-canary status`) and whether users are named.",
    ),
    HoldReason.FLAG_STALE: (
        "A replica does not know the newest state of the flag.",
        "Look whether it reaches Unleash. It goes on with the last split that it knew.",
    ),
}


_ROLLBACK_KEY = "rollback:"
"""How the key of a rollback's alert begins; the rollback's id follows."""


class Links(msgspec.Struct, frozen=True, kw_only=True):
    """Where a person looks next. Empty: there is no such place."""

    dashboard: str = ""
    traces: str = ""
    """With ``{trace_id}``."""
    runbook: str = ""
    """Base; the alert's name follows."""


class Situation(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an alert may be about."""

    flag: str
    record: RampRecord | None
    report: Report | None
    flag_error: str | None = None
    """Why the flag cannot be written."""
    flag_behind_seconds: float = 0.0
    is_undelivered: bool = False
    """A rollback is not in the store yet."""
    budget: str | None = None
    """Which limit of the fallback budget is reached."""
    stale: tuple[str, ...] = ()
    """Replicas that do not know the newest state of the flag."""
    silent_seconds: float = 0.0
    """How long nothing was judged."""


def wanted(situation: Situation, links: Links, now: float) -> dict[str, Alert]:
    """Return the alerts that there should be, by key."""
    found = [*_rollback(situation, links), *_flag(situation, now), *_budget(situation, now), *_silent(situation, now)]
    record = situation.record
    if record is not None and not record.is_rolled_back:
        found += [*_holds(situation, now), *_ready(situation), *_reverted(record, situation, now)]
    return {each.key: _with_links(each, links) for each in found}


def _with_links(alert: Alert, links: Links) -> Alert:
    found = list(alert.links)
    if links.dashboard:
        found.insert(0, ("dashboard", _page_of(alert, links.dashboard.rstrip("/"))))
    if links.runbook:
        found.append(("runbook", f"{links.runbook.rstrip('/')}/{alert_name(alert.kind)}.md"))
    return msgspec.structs.replace(alert, links=tuple(found))


def _page_of(alert: Alert, dashboard: str) -> str:
    """Return the page of a rollback on our own dashboard; of anything else, and elsewhere, the dashboard itself."""
    rollback_id = alert.key.removeprefix(_ROLLBACK_KEY)
    is_ours = alert.key.startswith(_ROLLBACK_KEY) and dashboard.endswith("/ui")
    return f"{dashboard}/incidents/{rollback_id}" if is_ours else dashboard


def _rollback(situation: Situation, links: Links) -> Iterable[Alert]:
    record = situation.record
    rollback = record.ramp.rollback if record is not None and record.is_rolled_back else None
    if record is None or rollback is None:
        return
    is_guards = rollback.actor == "guard"
    evidence = evidence_of(rollback)
    facts = [("Why", _why(rollback, evidence)), ("Touched", _touched(rollback, evidence))]
    if evidence is not None and evidence.examples:
        facts.append(("Examples", ", ".join(each.request_id for each in evidence.examples)))
    facts += [("Done already", _done(situation)), ("Next", _next(situation))]
    trace_ids = dict.fromkeys(each.trace_id for each in (evidence.examples if evidence and links.traces else ()))
    traces = [(f"trace {each[:8]}", links.traces.replace("{trace_id}", each)) for each in trace_ids if each]
    yield Alert(
        key=f"{_ROLLBACK_KEY}{rollback.rollback_id}",
        kind="rolled_back",
        severity=Severity.PAGE if is_guards else Severity.WARNING,
        flag=situation.flag,
        title=f"{situation.flag}: the candidate was taken out at {rollback.from_share_percent} % by {rollback.actor}.",
        starts_at=_began_at(rollback, evidence),
        facts=tuple(facts),
        links=tuple(traces),
        details=_details(rollback, evidence),
    )


def evidence_of(rollback: Rollback) -> Evidence | None:
    """Return the numbers that decided; None where a person did, or they cannot be read."""
    try:
        return msgspec.json.decode(rollback.evidence, type=Evidence) if rollback.evidence else None
    except msgspec.MsgspecError:
        return None


def _began_at(rollback: Rollback, evidence: Evidence | None) -> float:
    """Return when the fault began, as far as the evidence says; else when it was decided."""
    return rollback.at - (evidence.finding.recent_seconds if evidence and evidence.finding else 0.0)


def _why(rollback: Rollback, evidence: Evidence | None) -> str:
    if evidence is None or evidence.finding is None:
        return rollback.reason or "no reason was given"
    return sentence(evidence.finding)


def _touched(rollback: Rollback, evidence: Evidence | None) -> str:
    if evidence is None:
        return f"{rollback.from_share_percent} % of the users had the candidate until then"
    return (
        f"{evidence.candidate_requests:,.0f} requests of up to {evidence.candidate_users:,.0f} users "
        f"were the candidate's in the {words(evidence.stage_seconds)} at {rollback.from_share_percent} %"
    )


def _done(situation: Situation) -> str:
    if situation.is_undelivered:
        return "this replica gives nobody to the candidate; the others follow when the store, or the flag, tells them"
    done = "every replica gives everybody to control"
    if situation.flag_error:
        return f"{done}; the flag could NOT be set to 0: {situation.flag_error}"
    is_behind = situation.record is not None and situation.record.is_pending
    return f"{done}; the flag is {'being set' if is_behind else 'set'} to 0 and its environment off"


def _next(situation: Situation) -> str:
    by_hand = "Set the flag to 0 by hand. " if situation.flag_error else ""
    return (
        f"{by_hand}Users are safe; nothing has to be done at once. Find the cause, then "
        '`rerank-canary rearm --reason "..."` and ramp again from the first stage.'
    )


def _details(rollback: Rollback, evidence: Evidence | None) -> dict[str, str | float | int | bool]:
    found: dict[str, str | float | int | bool] = {"rollback_id": rollback.rollback_id, "actor": rollback.actor}
    if evidence is not None and evidence.finding is not None:
        about = evidence.finding
        found |= {
            "guardrail": about.guardrail,
            "trials": about.trials,
            "bad": about.bad,
            "estimate": about.estimate,
            "lower": about.lower,
            "upper": about.upper,
            "limit": about.limit,
            "log_evidence": about.evidence,
            "log_threshold": about.threshold,
        }
    return found


def _flag(situation: Situation, now: float) -> Iterable[Alert]:
    if not situation.flag_error or situation.flag_behind_seconds < _FLAG_GRACE_SECONDS or situation.record is None:
        return
    share = situation.record.ramp.share_percent
    yield Alert(
        key=f"flag_not_written:{situation.flag}",
        kind="flag_not_written",
        severity=Severity.PAGE if situation.record.is_rolled_back else Severity.WARNING,
        flag=situation.flag,
        title=f"{situation.flag}: the flag cannot be set to {share} %.",
        starts_at=now - situation.flag_behind_seconds,
        facts=(
            ("Why", situation.flag_error),
            ("Done already", "the latch holds, whatever the flag says" if share == 0 else "it is tried again"),
            ("Next", f"Set {situation.flag} to {share} % in Unleash by hand, or give the admin token its rights."),
        ),
    )


def _budget(situation: Situation, now: float) -> Iterable[Alert]:
    if situation.budget:
        yield Alert(
            key=f"fallback_budget:{situation.flag}",
            kind="fallback_budget",
            severity=Severity.WARNING,
            flag=situation.flag,
            title=f"{situation.flag}: {situation.budget}.",
            starts_at=now,
            facts=(
                ("Done already", "doubtful rankings of the candidate are answered as they are, with a warning"),
                ("Next", "Look at the fallback threshold, or raise [fallback] max_share or max_dollars_per_hour."),
            ),
        )


def _silent(situation: Situation, now: float) -> Iterable[Alert]:
    if situation.silent_seconds >= _SILENT_SECONDS:
        yield Alert(
            key=f"no_guard:{situation.flag}",
            kind="no_guard",
            severity=Severity.PAGE,
            flag=situation.flag,
            title=f"{situation.flag}: nobody judges the candidate.",
            starts_at=now - situation.silent_seconds,
            facts=(
                ("Done already", "nothing is promoted; the fallbacks, and a rollback by hand, still work"),
                ("Next", "Look at the leader's log for `guard.` and `exchange.`; until it judges, hold or roll back."),
            ),
        )


def _holds(situation: Situation, now: float) -> Iterable[Alert]:
    report = situation.report
    if report is None or not report.has_candidate:
        return
    for reason, grace in GRACE_SECONDS.items():
        held = report.held_seconds.get(reason, 0.0)
        if held < grace:
            continue
        title, then = _HOLD_WORDS[reason]
        facts = [("Done already", "the ramp holds; users are where they were"), ("Next", then)]
        if reason is HoldReason.INVALID:
            facts.insert(0, ("Replicas", ", ".join(sorted(report.invalid)) or "no longer any"))
        if reason is HoldReason.FLAG_STALE:
            facts.insert(0, ("Replicas", ", ".join(situation.stale) or "no longer any"))
        yield Alert(
            key=f"hold:{situation.flag}:{reason}",
            kind=reason.value,
            severity=Severity.WARNING,
            flag=situation.flag,
            title=f"{situation.flag}: {title}",
            starts_at=now - held,
            facts=tuple(facts),
        )
    yield from _inconclusive(situation, report, now)


def _inconclusive(situation: Situation, report: Report, now: float) -> Iterable[Alert]:
    record = situation.record
    if record is None or record.ramp.phase is not Phase.RAMPING or record.ramp.stage is None or report.holds:
        return
    over = now - record.ramp.entered_at - record.ramp.plan[record.ramp.stage].bake_seconds
    unsure = [each for each in report.findings if each.is_enforced and not each.is_passed]
    if over < 0 or not unsure or record.ramp.is_ready:
        return
    facts = [(each.guardrail, _missing(each.seconds_to_pass)) for each in unsure]
    yield Alert(
        key=f"hold:{situation.flag}:{HoldReason.INCONCLUSIVE}:{record.ramp.share_percent}",
        kind=HoldReason.INCONCLUSIVE.value,
        severity=Severity.WARNING,
        flag=situation.flag,
        title=f"{situation.flag}: the stage's time at {record.ramp.share_percent} % is over, and not all is proved.",
        starts_at=now - over,
        facts=(*facts, ("Next", "Wait; or look at the guardrails and decide by `advance --force` or `hold`.")),
    )


def _missing(seconds: float | None) -> str:
    if seconds is None:
        return "cannot be proved at today's estimate and traffic"
    hours = max(1.0, round(seconds / 3600))
    return f"needs about {hours:g} h more at today's traffic"


def _ready(situation: Situation) -> Iterable[Alert]:
    record = situation.record
    if record is not None and record.ramp.is_ready and record.ramp.stage is not None:
        following = record.ramp.plan[record.ramp.stage + 1].share_percent
        yield Alert(
            key=f"ready:{record.ramp.rollout_id}:{record.ramp.share_percent}",
            kind="ready_to_advance",
            severity=Severity.INFO,
            flag=situation.flag,
            title=f"{situation.flag}: {record.ramp.share_percent} % is passed; ready to advance to {following} %.",
            starts_at=record.ramp.entered_at,
            facts=(
                ("Why", "the stage's time is over and every guardrail is proved to hold"),
                ("Next", f'`rerank-canary advance --reason "..."` moves to {following} %'),
            ),
        )


def _reverted(record: RampRecord, situation: Situation, now: float) -> Iterable[Alert]:
    if record.actor == REVERTED_BY and now - record.ramp.entered_at < _KEPT_MINUTES * 60:
        yield Alert(
            key=f"reverted:{situation.flag}:{record.ramp.entered_at:.0f}",
            kind="reverted",
            severity=Severity.WARNING,
            flag=situation.flag,
            title=f"{situation.flag}: back at {record.ramp.share_percent} %, for want of evidence.",
            starts_at=record.ramp.entered_at,
            facts=(("Why", record.reason), ("Next", "More traffic, or a smaller step; then `rerank-canary advance`.")),
        )
