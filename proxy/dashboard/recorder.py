"""Keeps the past of both arms in the store: part of the exchange of each second, on the leader only.

Each series has a cursor: the sums from which its next point begins. Point and cursor are saved in one step, and only
on the cursor that they were worked out from, so that two leaders cannot both write, and a new one leaves no gap.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from alerts.trend import Counts, Point, point_of
from proxy.dashboard.tiers import FINEST, TIERS, Tier, incident_key, keys_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from redis.asyncio.client import Pipeline

    from alerts.guard import Lease
    from alerts.report import Report
    from flags.latch import Latch
    from flags.ramp import Rollback

_log = structlog.get_logger(__name__)

_KEPT_SECONDS = 90 * 86400
"""Of what happened around a rollback."""
_WATCHED_SECONDS = 120.0
"""After a rollback: until then requests that were under way may still be counted."""
_AROUND_POINTS = 144
_FORGOTTEN_SECONDS = 7200.0
"""A replica that was silent for so long and comes back with its old sums is taken for a new one."""
_SAVE = """
local there = redis.call('HGET', KEYS[2], ARGV[1])
if there then
  local is_read, known = pcall(cjson.decode, there)
  if is_read and tonumber(known.slot) ~= tonumber(ARGV[2]) then return 0 end
elseif ARGV[2] ~= '-1' then
  return 0
end
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
if ARGV[4] ~= '' then
  redis.pcall('XADD', KEYS[1], 'MAXLEN', '~', ARGV[5], ARGV[6], 'point', ARGV[4])
  redis.call('EXPIRE', KEYS[1], ARGV[7])
end
return 1
"""


class Cursor(msgspec.Struct, frozen=True):
    """Where the next point of a series begins."""

    slot: int
    """Whole periods since 1970; -1: there is none yet."""
    at: float
    counts: dict[str, Counts]


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """What both arms did around a rollback."""

    rollback_id: str
    candidate_at: float
    """Unix seconds when the last request of the candidate began; 0: none was ever seen."""
    points: list[Point]


class _Save(msgspec.Struct, frozen=True):
    tier: Tier
    before: int
    cursor: Cursor
    point: Point | None


_NOWHERE = Cursor(-1, 0.0, {})


class Recorder:
    """Works points out of what the replicas tell the guard, and keeps what is around a rollback for longer."""

    def __init__(
        self,
        prefix: str,
        lease: Lease,
        latch: Latch,
        report: Callable[[], Report | None],
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._prefix = prefix
        self._series, self._cursors_key = keys_of(prefix)
        self._signals_key = f"{{{prefix}}}:signals"
        self._lease = lease
        self._latch = latch
        self._report = report
        self._clock = clock
        self._cursors: dict[str, Cursor] | None = None
        self._saves: list[_Save] = []
        self._incident: Incident | None = None
        self._watched: Rollback | None = None
        self._asked: tuple[str, ...] = ()

    def ask(self, pipe: Pipeline) -> None:
        """Save what was worked out, and ask for the counts when a period is over."""
        self._asked = ()
        if not self._lease.is_leader:
            self._cursors, self._saves, self._incident = None, [], None
            return
        if self._cursors is None:
            pipe.hgetall(self._cursors_key)
            self._asked = ("cursors",)
            return
        for save in self._saves:
            self._save(pipe, save)
        self._asked = ("saved",) * len(self._saves)
        if self._incident is not None:
            found = self._incident
            text = msgspec.json.encode(found).decode()
            pipe.set(incident_key(self._prefix, found.rollback_id), text, ex=_KEPT_SECONDS)
            self._asked += ("kept",)
        if any(self._slot(tier) > self._cursor(tier).slot for tier in TIERS):
            pipe.hgetall(self._signals_key)
            self._asked += ("signals",)
            if self._watches():
                pipe.xrevrange(f"{self._series}:{FINEST.name}", count=_AROUND_POINTS)
                self._asked += ("around",)

    def take(self, answers: Sequence[Any]) -> None:
        """Take the counts, and work out the points of all periods that are over."""
        found = list(zip(self._asked, answers, strict=True))
        saved = [answer for name, answer in found if name == "saved"]
        self._saves, self._incident = [], None
        if not all(saved):  # another leader wrote
            self._cursors = None
            return
        counts: dict[str, Counts] = {}
        for name, answer in found:
            if name == "cursors":
                self._cursors = {tier: cursor for tier, text in answer.items() if (cursor := _cursor(text)) is not None}
            elif name == "signals":
                counts = _counts(answer)
                self._work_out(counts)
            elif name == "around":
                self._note_incident(counts, answer)

    def _save(self, pipe: Pipeline, save: _Save) -> None:
        tier = save.tier
        pipe.eval(
            _SAVE,
            2,
            f"{self._series}:{tier.name}",
            self._cursors_key,
            tier.name,
            str(save.before),
            msgspec.json.encode(save.cursor).decode(),
            msgspec.json.encode(save.point).decode() if save.point else "",
            str(tier.points),
            f"{round(save.cursor.at * 1000)}-0",
            str(tier.seconds * tier.points * 2),
        )

    def _work_out(self, counts: dict[str, Counts]) -> None:
        now = self._clock()
        record, report = self._latch.record, self._report()
        evidence = {each.guardrail: each.evidence for each in report.findings} if report else {}
        assert self._cursors is not None
        for tier in TIERS:
            before = self._cursor(tier)
            slot = self._slot(tier)
            if slot <= before.slot:
                continue
            seconds = now - before.at
            point = None
            if before.slot >= 0 and seconds <= 2 * tier.seconds * tier.points:
                point = point_of(
                    counts,
                    before.counts,
                    at=now,
                    seconds=seconds,
                    share_percent=record.ramp.share_percent if record else None,
                    evidence=evidence,
                )
            silent = {name: each for name, each in before.counts.items() if now - each.at < _FORGOTTEN_SECONDS}
            cursor = Cursor(slot, now, silent | counts)
            self._saves.append(_Save(tier, before.slot, cursor, point))
            self._cursors[tier.name] = cursor

    def _note_incident(self, counts: Mapping[str, Counts], rows: Sequence[tuple[str, dict[str, str]]]) -> None:
        if self._watched is not None:
            self._incident = Incident(
                rollback_id=self._watched.rollback_id,
                candidate_at=max((each.candidate_at for each in counts.values()), default=0.0),
                points=points_of(rows),
            )

    def _watches(self) -> bool:
        """Tell whether a rollback was just now, re-armed since or not."""
        record = self._latch.record
        if record is not None and record.is_rolled_back:
            self._watched = record.ramp.rollback
        return self._watched is not None and self._clock() - self._watched.at < _WATCHED_SECONDS

    def _slot(self, tier: Tier) -> int:
        return int(self._clock() // tier.seconds)

    def _cursor(self, tier: Tier) -> Cursor:
        return (self._cursors or {}).get(tier.name, _NOWHERE)


def points_of(rows: Sequence[tuple[str, Mapping[str, str]]]) -> list[Point]:
    """Return the points of a series as it is read backwards, the oldest first; what is none is passed over."""
    found = []
    for _, fields in reversed(rows):
        try:
            found.append(msgspec.json.decode(fields["point"], type=Point))
        except (msgspec.MsgspecError, KeyError):
            _log.warning("trend.point_not_read")
    return found


def _counts(told: Mapping[str, str]) -> dict[str, Counts]:
    """Return what the replicas tell; the guard says of one that cannot be read."""
    found = {}
    for name, text in told.items():
        try:
            found[name] = msgspec.json.decode(text, type=Counts)
        except msgspec.MsgspecError:
            continue
    return found


def _cursor(text: str) -> Cursor | None:
    try:
        return msgspec.json.decode(text, type=Cursor)
    except msgspec.MsgspecError:
        return None
