"""One rollback, as on-call reads it: what happened when, what decided, whom it touched, and who was told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from alerts.report import Evidence
from alerts.signals import Example
from alerts.trend import Point
from alerts.verdict import Finding
from flags.record import ROLLBACK, AuditEntry
from proxy.dashboard.tiers import FINEST
from proxy.dashboard.words import count, duration

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from alerts.delivery import Delivery
    from proxy.dashboard.recorder import Incident

_SETTLES = frozenset({"flag_written", "flag_overruled"})
_ENDS = "rearm"
_GROWS_SECONDS = 150.0
_AROUND_SECONDS = 900.0


class Moment(NamedTuple):
    """Something that happened, to the tenth of a second."""

    at: float
    words: str
    kind: Literal["fault", "verdict", "done", "told", "over"]


class Told(NamedTuple):
    """How far one receiver is."""

    receiver: str
    state: Literal["delivered", "failing", "acknowledged", "waiting"]
    words: str


class IncidentView(msgspec.Struct, frozen=True, kw_only=True):
    """Everything on the page of one rollback."""

    rollback_id: str
    entry: AuditEntry
    is_over: bool
    is_growing: bool
    """It has just happened: more will be known of it."""
    finding: Finding | None
    touched: str
    moments: list[Moment]
    examples: list[Example]
    told: list[Told]
    points: list[Point]


def incident_of(
    rollback_id: str,
    entries: Sequence[AuditEntry],
    kept: Incident | None,
    deliveries: Mapping[str, Delivery],
    points: Sequence[Point],
    now: float,
) -> IncidentView | None:
    """Return the view; *entries* are the newest first. None: the trail knows no such rollback.

    *points* are those kept of it, or as long as there are none, the newest.
    """
    entry = next((e for e in entries if e.action == ROLLBACK and e.rollback_id == rollback_id), None)
    if entry is None:
        return None
    later = sorted((e for e in entries if e.at > entry.at or e.version > entry.version), key=lambda e: e.at)
    evidence = _evidence(entry)
    moments = [*_before(entry, evidence), *_after(entry, later, kept, deliveries)]
    return IncidentView(
        rollback_id=rollback_id,
        entry=entry,
        is_over=any(e.action == _ENDS for e in later),
        finding=evidence.finding if evidence else None,
        is_growing=now - entry.at < _GROWS_SECONDS,
        touched=_touched(evidence) if evidence else _seen_of_it(entry, entries, points),
        moments=sorted(moments, key=lambda each: each.at),
        examples=evidence.examples if evidence else [],
        told=_told(rollback_id, deliveries),
        points=[point for point in points if abs(point.at - entry.at) < _AROUND_SECONDS],
    )


def _evidence(entry: AuditEntry) -> Evidence | None:
    try:
        return msgspec.json.decode(entry.evidence, type=Evidence) if entry.evidence else None
    except msgspec.MsgspecError:
        return None


def _touched(evidence: Evidence) -> str:
    requests, users = count(evidence.candidate_requests), count(evidence.candidate_users)
    took = duration(evidence.stage_seconds)
    return f"{requests} requests of {users} users had the candidate in the {took} of this stage"


def _seen_of_it(entry: AuditEntry, entries: Sequence[AuditEntry], points: Sequence[Point]) -> str:
    """Return whom the stage touched that a person ended, from the points: of the last minutes, if it was longer."""
    began = max((e.at for e in entries if e.at < entry.at and e.to_share_percent != e.from_share_percent), default=0.0)
    of_stage = [point for point in points if began < point.at <= entry.at + 2 * FINEST.seconds]
    if not of_stage:
        return "how many had the candidate is not kept any more"
    candidate = [point.arms[1] for point in of_stage]
    requests, users = count(sum(arm.requests for arm in candidate)), count(sum(arm.users for arm in candidate))
    took = duration(max(1.0, entry.at - max(began, of_stage[0].at - of_stage[0].seconds)))
    return f"about {requests} requests of {users} new users had the candidate in the {took} before"


def _before(entry: AuditEntry, evidence: Evidence | None) -> list[Moment]:
    found = []
    if evidence is not None and evidence.finding is not None:
        finding = evidence.finding
        began = entry.at - finding.recent_seconds
        what = f"{finding.guardrail}: what is counted against it begins ({count(finding.recent_trials)} since)"
        found.append(Moment(began, what, "fault"))
        if evidence.examples:
            first = min(evidence.examples, key=lambda each: each.at)
            what = "slow" if first.outcome == "ok" else first.outcome
            found.append(Moment(first.at, f"earliest kept example, {first.request_id} ({what})", "fault"))
    who = "the guard" if entry.actor == "guard" else entry.actor
    words = f"verdict: {who} rolls back; its replica's latch is set"
    found.append(Moment(entry.at, words, "verdict"))
    return found


def _after(
    entry: AuditEntry,
    later: Sequence[AuditEntry],
    kept: Incident | None,
    deliveries: Mapping[str, Delivery],
) -> list[Moment]:
    found = []
    end = next((e for e in later if e.action == _ENDS), None)
    written = next((e for e in later if e.action in _SETTLES and (end is None or e.at <= end.at)), None)
    if written is not None:
        event = f", event {written.flag_event_id}" if written.flag_event_id else ""
        found.append(Moment(written.at, f"the flag says {written.to_share_percent} %{event}", "done"))
    if kept is not None and kept.candidate_at:
        words = "last request of the candidate began"
        found.append(Moment(kept.candidate_at, words, "done"))
    key = f"rollback:{entry.rollback_id}"
    for each in deliveries.values():
        if each.alert_key == key and each.told_at is not None:
            found.append(Moment(each.told_at, f"{each.receiver} was told", "told"))
        if each.alert_key == key and each.acknowledged_at is not None:
            found.append(Moment(each.acknowledged_at, f"{each.acknowledged_by or 'somebody'} acknowledged it", "told"))
    return [*found, *_ended(end)]


def _ended(end: AuditEntry | None) -> list[Moment]:
    return [] if end is None else [Moment(end.at, f"{end.actor} re-armed it: {end.reason}", "over")]


def _told(rollback_id: str, deliveries: Mapping[str, Delivery]) -> list[Told]:
    found = []
    for each in deliveries.values():
        if each.alert_key != f"rollback:{rollback_id}":
            continue
        if each.acknowledged_at is not None:
            found.append(Told(each.receiver, "acknowledged", f"by {each.acknowledged_by or 'somebody'}"))
        elif each.failing_since is not None or each.is_dead:
            found.append(Told(each.receiver, "failing", f"{each.attempts} attempts: {each.last_error or 'no answer'}"))
        elif each.told_at is not None:
            found.append(Told(each.receiver, "delivered", ""))
        else:
            found.append(Told(each.receiver, "waiting", f"{each.attempts} attempts"))
    return sorted(found)
