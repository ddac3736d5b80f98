"""The guard's loop: read counts, judge, act. Every replica runs one; only the holder of the lease judges.

It is part of the exchange of each second and adds no round trip: the counts are read, and the state after
the tick before is saved, in the one pipeline of this replica. State and cursor are saved together under a
version; whoever saves onto another version than it read has lost, forgets what it knows and reads again. So
a change of leaders neither repeats nor skips a count, and two leaders at once cannot both write.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import time
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import numpy as np
import structlog
from msgspec.structs import replace

from alerts.findings import findings_of
from alerts.guard_state import Saved, core_tick, pack_spread, restored, saved_of, unpack_spread
from alerts.health import TICK_SECONDS, Health
from alerts.relative_limit import ControlLatency, as_counts
from alerts.report import Evidence, Report
from alerts.signals import Example, InvalidSignals, Signals, latency_since, no_tick, tick_of
from alerts.verdict import HoldReason, Judgement, judge
from flags.ramp import Phase, Verdict
from flags.ramp_control import By
from flags.record import Through

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio.client import Pipeline

    from alerts.judge import Judge, State
    from alerts.signals import Tick
    from flags.ramp import Ramp
    from flags.ramp_control import RampControl
    from flags.record import RampRecord

_log = structlog.get_logger(__name__)

_FINDINGS_SECONDS = 10.0
_SPREAD_TICKS = 60
_SPLIT_GRACE_TICKS = 5
_FORGOTTEN_SECONDS = 3600.0
_EXAMPLES = 5

_SAVE = """
local version = redis.call('HGET', KEYS[1], 'version') or '0'
if version ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'state', ARGV[3], 'report', ARGV[4])
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'spread', ARGV[5]) end
if ARGV[6] ~= '' then redis.call('SET', KEYS[2], ARGV[6]) end
return 1
"""


class Lease(Protocol):
    """Tells whether this replica judges."""

    @property
    def is_leader(self) -> bool:
        """Whether it holds the lease."""


class Guard:
    """Judges on the leader, and knows on every replica what was judged."""

    def __init__(
        self,
        *,
        prefix: str,
        instance_id: str,
        judge: Judge,
        control: RampControl,
        lease: Lease,
        relative_ratio: float,
        health: Health,
        on_report: Callable[[Report], None] = lambda _: None,
    ) -> None:
        self._keys = (f"{{{prefix}}}:guard", f"{{{prefix}}}:limits", f"{{{prefix}}}:signals")
        self._instance_id = instance_id
        self._judge = judge
        self._control = control
        self._lease = lease
        self._ratio = relative_ratio
        self._health = health
        self._on_report = on_report
        self._work: _Work | None = None
        self._asked: tuple[str, ...] = ()
        self._saving = False
        self._acting = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._judged_at = -1e9
        self.report: Report | None = None
        """What the leader last found; None: nothing was ever judged."""

    def start(self) -> None:
        """Begin to act on what is judged, in the background."""
        self._task = asyncio.create_task(self._run(), name="guard")

    async def close(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def ask(self, pipe: Pipeline) -> None:
        """Save what was judged, and ask for the counts, on the leader; ask for the report elsewhere."""
        guard, limits, signals = self._keys
        self._asked = ()
        if not self._lease.is_leader:
            self._work = None
            pipe.hget(guard, "report")
            self._asked = ("report",)
            return
        if self._work is None:
            pipe.hmget(guard, "version", "state", "spread", "report")
            self._asked = ("state",)
        else:
            work = self._work
            pipe.eval(_SAVE, 2, guard, limits, *work.to_save(self.report))
            self._asked = ("saved",)
        pipe.hgetall(signals)
        self._asked += ("signals",)
        if self._work is not None and (old := self._work.forgotten(time.time())):
            pipe.hdel(signals, *old)
            self._asked += ("deleted",)

    def take(self, answers: Sequence[Any]) -> None:
        """Take the answers, and judge one tick on the leader."""
        for name, answer in zip(self._asked, answers, strict=True):
            if name == "report" and answer:
                self.report = msgspec.json.decode(answer, type=Report)
                self._judged_at = time.monotonic()
            elif name == "saved" and not answer:
                _log.warning("guard.state_lost", reason="another leader saved first")
                self._work = None
                return
            elif name == "state":
                self._work = _Work(self._judge, self._ratio, *answer[:3])
                self.report = msgspec.json.decode(answer[3], type=Report) if answer[3] else self.report
            elif name == "signals" and self._work is not None:
                self._tick(self._work, answer)

    def verdict(self, ramp: Ramp) -> tuple[Verdict, str]:
        """Return what the evidence says now, for whoever steps the ramp: hold where nothing is known."""
        del ramp
        if self.report is None or time.monotonic() - self._judged_at > 5 * TICK_SECONDS:
            return Verdict.HOLD, HoldReason.STORE_AWAY.value
        judgement = self.report.judgement
        if judgement.verdict is Verdict.ROLLBACK:  # which the guard does itself, with its evidence
            return Verdict.HOLD, judgement.reason
        return judgement.verdict, judgement.reason

    def _tick(self, work: _Work, told: dict[str, str]) -> None:
        record = self._control.latch.record
        if record is None:
            return
        work.follow(record)
        now = time.time()
        tick = work.read(told, now)
        holds = work.judge_tick(tick, record, now)
        holds += self._health.holds(now)
        self._judged_at = time.monotonic()
        report = self.report
        is_due = report is None or now - report.findings_at >= _FINDINGS_SECONDS
        breached = (work.state.has_breached & self._judge.enforced).any()
        if (breached and not record.is_rolled_back) or is_due:
            self._acting.set()
        self.report = work.report(report, self._instance_id, record, holds, now)
        self._on_report(self.report)

    async def _run(self) -> None:
        while True:
            await self._acting.wait()
            self._acting.clear()
            try:
                await self._find()
            except Exception:  # noqa: BLE001 - whatever one turn meets, the next is tried
                _log.exception("guard.failed")

    async def _find(self) -> None:
        """Work out the findings beside the event loop, and act on a breach."""
        work, record, report = self._work, self._control.latch.record, self.report
        if work is None or record is None or report is None:
            return
        state = copy.deepcopy(work.state)
        findings = await asyncio.to_thread(findings_of, self._judge, state)
        judgement = judge(findings, report.holds, extended_stages=extended_stages(record.ramp, time.time()))
        self.report = replace(self.report or report, findings=findings, findings_at=time.time())
        if judgement.verdict is not Verdict.ROLLBACK or record.is_rolled_back or not record.ramp.share_percent:
            return
        _log.error("guardrail.breached", guardrail=judgement.finding.guardrail if judgement.finding else "")
        evidence = msgspec.json.encode(work.evidence(judgement, self.report)).decode()
        self._on_report(replace(self.report, judgement=judgement))
        by = By(actor="guard", through=Through.GUARD, reason=judgement.reason, evidence=evidence)
        await self._control.roll_back(by)


class _Work:
    """The state of a leader."""

    def __init__(self, judge: Judge, ratio: float, version: str | None, state: str | None, spread: str | None) -> None:
        self._judge = judge
        self._ratio = ratio
        self._version = int(version or 0)
        self.control = ControlLatency.none()
        self.cursors: dict[str, Signals] = {}
        self.rollout, self.share_percent, self.ticks = "", -1, 0
        self.held_ticks: dict[str, int] = {}
        self.idle_ticks = 0
        self.users = 0.0
        self.state: State = judge.begin()
        self._is_new = state is None
        self._limit = ""
        self._at: dict[str, float] = {}
        self.invalid: dict[str, str] = {}
        self.examples: dict[str, list[Example]] = {}
        if state is not None:
            self._restore(msgspec.json.decode(state, type=Saved), spread)

    def _restore(self, saved: Saved, spread: str | None) -> None:
        self.state = restored(saved, self._judge)
        self.cursors = dict(saved.cursors)
        self.rollout, self.share_percent, self.ticks = saved.rollout, saved.share_percent, saved.ticks
        self.held_ticks, self.idle_ticks, self.users = dict(saved.held_ticks), saved.idle_ticks, saved.users
        if spread:
            unpack_spread(spread, self.state, self.control)

    def to_save(self, report: Report | None) -> list[str]:
        """Return the arguments of `_SAVE`."""
        saved = saved_of(
            self.state,
            self._judge,
            self.cursors,
            rollout=self.rollout,
            share_percent=self.share_percent,
            ticks=self.ticks,
            held_ticks=self.held_ticks,
            idle_ticks=self.idle_ticks,
            users=self.users,
        )
        before, self._version = self._version, self._version + 1
        spread = pack_spread(self.state, self.control) if self.ticks % _SPREAD_TICKS == 1 else ""
        told = msgspec.json.encode(report).decode() if report else ""
        return [str(before), str(self._version), msgspec.json.encode(saved).decode(), told, spread, self._limit]

    def forgotten(self, now: float) -> list[str]:
        """Return the replicas that have been silent for long, and forget them."""
        old = [name for name, at in self._at.items() if now - at > _FORGOTTEN_SECONDS]
        for name in old:
            self._at.pop(name)
            self.cursors.pop(name, None)
            self.examples.pop(name, None)
        return old

    def follow(self, record: RampRecord) -> None:
        """Begin afresh with another rollout, or after a rollback; enter a stage with another share."""
        ramp = record.ramp
        rollout = f"{ramp.rollout_id}:{ramp.group_id}:{ramp.rollbacks}"
        if rollout != self.rollout:
            self.state = self._judge.begin()
            self.held_ticks, self.idle_ticks = {}, 0
        elif ramp.share_percent != self.share_percent:
            self._judge.enter_stage(self.state)
        if (rollout, ramp.share_percent) != (self.rollout, self.share_percent):
            self.rollout, self.share_percent, self.ticks, self.users = rollout, ramp.share_percent, 0, 0.0

    def read(self, told: dict[str, str], now: float) -> Tick:
        """Return what all replicas added since the last tick, and move the cursors."""
        del now
        total, latency = no_tick(), as_counts({})
        self.invalid = {}
        for name, text in told.items():
            try:
                signals = msgspec.json.decode(text, type=Signals)
                self._at[name] = signals.at
                self.examples[name] = signals.examples
                before = self.cursors.get(name)
                if before is None and self._is_new:
                    before = signals  # what was before the guard's time is nobody's tick
                if before is not None:
                    signals, before = core_tick(signals, before)
                total += tick_of(signals, before)
                latency += as_counts(latency_since(signals, before, 0))
            except (InvalidSignals, msgspec.MsgspecError) as exc:
                self.invalid[name] = str(exc)
                continue
            self.cursors[name] = signals
        self._is_new = False
        self.control.add(latency, 1)
        return total

    def judge_tick(self, tick: Tick, record: RampRecord, now: float) -> list[HoldReason]:
        """Take one tick into the detectors, and return what of the counts themselves says to wait."""
        ramp = record.ramp
        replicas = max(1, sum(now - at < 3 * TICK_SECONDS for at in self._at.values()))
        self.users += float(tick.new_users[0, 1])
        weight = 1 / replicas if self.ticks >= _SPLIT_GRACE_TICKS else 0.0
        if not ramp.is_rolled_back:
            tick = replace(tick, new_users=tick.new_users * weight)
            share = np.array([max(1, min(99, ramp.share_percent)) / 100])
            self._judge.step(self.state, tick, share)
        self.ticks += 1
        if self.ticks % _SPREAD_TICKS == 0:
            limit = float(self.control.limit(self._ratio)[0])
            self._limit = "" if np.isnan(limit) else f"{limit:.6g}"
        self.idle_ticks = 0 if tick.requests[0, 1] or not ramp.share_percent else self.idle_ticks + 1
        is_fresh = any(now - at < 5 * TICK_SECONDS for at in self._at.values())
        found = [HoldReason.NO_DATA] if not is_fresh else []
        found += [HoldReason.INVALID] if self.invalid else []
        found += (
            [HoldReason.SPLIT] if 0 < ramp.share_percent < 100 and self._judge.is_split_wrong(self.state)[0] else []
        )
        found += [HoldReason.NO_TRAFFIC] if self.idle_ticks > 60 else []
        return found

    def evidence(self, judgement: Judgement, report: Report) -> Evidence:
        """Return what is kept with a rollback."""
        examples = sorted((each for found in self.examples.values() for each in found), key=lambda each: -each.at)
        return Evidence(
            finding=judgement.finding,
            candidate_requests=report.candidate_requests,
            candidate_users=report.candidate_users,
            stage_seconds=float(self.ticks),
            examples=examples[:_EXAMPLES],
        )

    def report(
        self, before: Report | None, leader: str, record: RampRecord, holds: list[HoldReason], now: float
    ) -> Report:
        """Return what is known after this tick; the findings are those of the last time they were worked out."""
        findings = list(before.findings) if before and before.rollout == self.rollout else []
        judgement = judge(findings, holds, extended_stages=extended_stages(record.ramp, now))
        if not findings and judgement.verdict is Verdict.ADVANCE:
            judgement = Judgement(verdict=Verdict.HOLD, reason="not judged yet", hold=HoldReason.INCONCLUSIVE)
        if not self.share_percent:  # nobody has the candidate: there is nothing to judge
            reason = "rolled back" if record.is_rolled_back else "nobody has the candidate"
            judgement = Judgement(verdict=Verdict.HOLD, reason=reason)
        reasons = [*holds, *([judgement.hold] if judgement.hold is HoldReason.INCONCLUSIVE else [])]
        self.held_ticks = {each.value: self.held_ticks.get(each.value, 0) + 1 for each in reasons}
        stage = self.state.stage
        evidence = self._judge.evidence(self.state)[0]
        live = {each.name: max(0.0, float(evidence[place])) for place, each in enumerate(self._judge.guardrails)}
        return Report(
            at=now,
            leader=leader,
            rollout=self.rollout,
            share_percent=self.share_percent,
            judgement=judgement,
            holds=holds,
            held_seconds={name: count * TICK_SECONDS for name, count in self.held_ticks.items()},
            findings=[replace(each, evidence=live.get(each.guardrail, each.evidence)) for each in findings],
            findings_at=before.findings_at if before and before.rollout == self.rollout else 0.0,
            candidate_requests=float(stage.requests[0, 1]),
            control_requests=float(stage.requests[0, 0]),
            candidate_users=self.users,
            relative_limit_seconds=float(self._limit) if self._limit else None,
            invalid=dict(self.invalid),
        )


def extended_stages(ramp: Ramp, now: float) -> float:
    """Return how far past its time a stage is, in times of that; 0 before, and where no stage is timed."""
    if ramp.stage is None or ramp.phase is not Phase.RAMPING:
        return 0.0
    bake = ramp.plan[ramp.stage].bake_seconds
    return max(0.0, (now - ramp.entered_at - bake) / bake) if bake else 0.0
