"""The record of one rollout: what the replicas agree on, and the trail of how it came to be.

The store keeps one record under a version. Whoever changes it names the version that the change was
worked out from, and is refused if there is a newer one; so there is one order of all changes, and a
change is never half there. What a replica decides while the store is away is kept by its latch.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec.structs import replace

from flags.ramp import Phase, Ramp, Rollback, roll_back, stage_of

if TYPE_CHECKING:
    from flags.ramp import Stage

_REMEMBERED = 64
ROLLED_BACK = "rolled back "
"""How a strategy's title begins after a rollback; its id follows."""

ROLLBACK = "rollback"
"""The action of a rollback in the trail."""

REVERTED_BY = "guard"
"""The actor of a record that went back a stage for want of evidence."""


class Through(StrEnum):
    """By which way a change came."""

    API = "api"
    CLI = "cli"
    DASHBOARD = "dashboard"
    FLAG = "flag"
    """Somebody changed the flag itself, in Unleash's UI or in the file."""
    GUARD = "guard"
    TIME = "time"
    RECOVERY = "recovery"
    """The store had lost the record."""


class AuditEntry(msgspec.Struct, frozen=True, kw_only=True):
    """Who changed what, when, why and by which way. Never changed itself."""

    at: float
    """Unix seconds."""
    actor: str
    through: Through
    action: str
    from_share_percent: int
    to_share_percent: int
    phase: Phase
    reason: str = ""
    request_id: str = ""
    rollback_id: str = ""
    evidence: str = ""
    flag_event_id: str = ""
    """Of the flag keeper's own event of this change."""
    version: int = 0


class By(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for a change, and why."""

    actor: str
    through: Through
    reason: str = ""
    request_id: str = ""
    evidence: str = ""
    flag_event_id: str = ""


class Request(NamedTuple):
    """A command that was done, as its sender named it."""

    request_id: str
    action: str


class RampRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The state that all replicas follow."""

    ramp: Ramp
    version: int = 0
    is_pending: bool = False
    """The flag is still to be written, so that it says what the ramp says."""
    flag_share_percent: int | None = None
    """What the flag said when the change was decided; None: it is to be written whatever it says."""
    passed_shares: tuple[int, ...] = ()
    """What was wanted since and overtaken before it was known to be written: the flag may say these, too."""
    reason: str = ""
    actor: str = ""
    through: str = ""
    """By which way the last change came."""
    requests: tuple[Request, ...] = ()
    """The newest: one that comes again changes nothing."""
    rollback_ids: tuple[str, ...] = ()
    """Of the newest rollbacks: one that is not among them was never ended by a rearm of this record's past."""

    @property
    def is_rolled_back(self) -> bool:
        """Whether nobody may be given to the candidate."""
        return self.ramp.is_rolled_back

    def knows(self, rollback_id: str) -> bool:
        """Tell whether a rollback is in this record's past."""
        return rollback_id in self.rollback_ids

    def action_of(self, request_id: str) -> str | None:
        """Return what was done for a request; None: nothing, or so long ago that it is forgotten."""
        return next((r.action for r in self.requests if request_id and r.request_id == request_id), None)


def changed(record: RampRecord, ramp: Ramp, by: By, *, action: str = "") -> RampRecord:
    """Return the next version with another ramp; the flag is to follow if share, group or latch are others."""
    moves_flag = (ramp.share_percent, ramp.group_id) != (record.ramp.share_percent, record.ramp.group_id)
    moves_latch = ramp.is_rolled_back != record.is_rolled_back
    requests = (*record.requests, Request(by.request_id, action)) if by.request_id else record.requests
    rollback = ramp.rollback if moves_latch and ramp.is_rolled_back else None
    return replace(
        record,
        ramp=ramp,
        version=record.version + 1,
        is_pending=record.is_pending or moves_flag or moves_latch,
        flag_share_percent=_expected(record, ramp),
        passed_shares=(*record.passed_shares, record.ramp.share_percent) if record.is_pending else (),
        reason=by.reason,
        actor=by.actor,
        through=by.through,
        requests=requests[-_REMEMBERED:],
        rollback_ids=(*record.rollback_ids, *([rollback.rollback_id] if rollback else []))[-_REMEMBERED:],
    )


def _expected(record: RampRecord, ramp: Ramp) -> int | None:
    """Return what the flag says before the change: while one is unwritten, what it said before that."""
    if ramp.is_rolled_back:
        return None
    return record.flag_share_percent if record.is_pending else record.ramp.share_percent


def entry_of(before: RampRecord, after: RampRecord, by: By, *, at: float, action: str) -> AuditEntry:
    """Return the audit entry of a change."""
    rollback = after.ramp.rollback if after.is_rolled_back else None
    return AuditEntry(
        at=at,
        actor=by.actor,
        through=by.through,
        action=action,
        from_share_percent=before.ramp.share_percent,
        to_share_percent=after.ramp.share_percent,
        phase=after.ramp.phase,
        reason=by.reason,
        request_id=by.request_id,
        rollback_id=rollback.rollback_id if rollback else "",
        evidence=by.evidence,
        flag_event_id=by.flag_event_id,
        version=after.version,
    )


def title_of(record: RampRecord) -> str:
    """Return what stands in the flag beside the share, for people who look there and for a store that lost all."""
    if record.is_rolled_back and record.ramp.rollback is not None:
        return f"{ROLLED_BACK}{record.ramp.rollback.rollback_id}"
    words = f"{record.ramp.share_percent} % by {record.actor or 'nobody'}"
    return f"{words}: {record.reason}"[:200] if record.reason else words


def record_from_flag(
    *, flag: str, group_id: str, share_percent: int, title: str, plan: tuple[Stage, ...], now: float
) -> RampRecord:
    """Return the first record of a rollout, from what the flag says: a rollback that it names holds on."""
    ramp = Ramp(
        rollout_id=flag,
        group_id=group_id,
        plan=plan,
        stage=stage_of(plan, share_percent),
        share_percent=share_percent,
        entered_at=now,
    )
    if title.startswith(ROLLED_BACK) and share_percent == 0:
        rollback_id = title.removeprefix(ROLLED_BACK).strip()
        ramp = roll_back(ramp, rollback_id, now, actor="flag", reason="the flag says so; the store had no record")
    known = (ramp.rollback.rollback_id,) if ramp.rollback else ()
    return RampRecord(ramp=ramp, version=1, actor="flag", reason="read from the flag", rollback_ids=known)


def wins(mine: RampRecord, theirs: RampRecord) -> bool:
    """Tell whether *mine* has to go back into a store that says *theirs*, because that lost something.

    A store that was flushed, or came back from an older copy, may have gone on since under any version. So a
    rollback that the other does not know holds, whatever the versions; else whose past has more rollbacks is
    the later one, and then the higher version.
    """
    if mine.is_rolled_back != theirs.is_rolled_back:
        return _holds_against(mine, theirs) if mine.is_rolled_back else not _holds_against(theirs, mine)
    return (mine.ramp.rollbacks, mine.version) > (theirs.ramp.rollbacks, theirs.version)


def _holds_against(rolled_back: RampRecord, other: RampRecord) -> bool:
    """Tell whether a rollback is none that was ended in the past of *other*."""
    rollback = rolled_back.ramp.rollback
    return rollback is None or not other.knows(rollback.rollback_id)


def with_rollback(record: RampRecord, rollback: Rollback, now: float) -> RampRecord:
    """Return *record* rolled back as a replica has decided; the same object if it was rolled back since."""
    if record.is_rolled_back:
        return record
    ramp = roll_back(record.ramp, rollback.rollback_id, now, actor=rollback.actor, reason=rollback.reason)
    ramp = replace(ramp, rollback=replace(rollback, from_share_percent=record.ramp.share_percent))
    by = By(
        actor=rollback.actor,
        through=Through(rollback.through or Through.RECOVERY),
        reason=rollback.reason,
        request_id=rollback.request_id,
    )
    return changed(record, ramp, by, action=ROLLBACK)
