"""The guard's loop: read counts, judge, act. Every replica runs one; only the holder of the lease judges.

It is part of the exchange of each second and adds no round trip: the counts are read, and the state after
the tick before is saved, in the one pipeline of this replica. State and cursor are saved together under a
version; whoever saves onto another version than it read has lost, forgets what it knows and reads again. So
a change of leaders neither repeats nor skips a count, and two leaders at once cannot both write.
"""

from __future__ import annotations

import asyncio
import copy
import time
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
import structlog
from msgspec.structs import replace

from alerts.findings import findings_of
from alerts.health import TICK_SECONDS, Health
from alerts.judging import Judging, extended_stages
from alerts.report import Report
from alerts.verdict import HoldReason, judge
from flags.ramp import Verdict
from flags.record import By, Through
from flags.tasks import end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio.client import Pipeline

    from alerts.judge import Judge
    from alerts.relative_limit import Relative
    from flags.ramp import Ramp
    from flags.ramp_control import RampControl
    from flags.record import RampRecord

_log = structlog.get_logger(__name__)

_FINDINGS_SECONDS = 10.0

_SAVE = """
local version = redis.call('HGET', KEYS[1], 'version') or '0'
if version ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'version', ARGV[2], 'state', ARGV[3], 'report', ARGV[4])
if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'spread', ARGV[5]) end
if ARGV[6] ~= '' then redis.call('SET', KEYS[2], ARGV[6]) else redis.call('DEL', KEYS[2]) end
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
        relative: Relative,
        health: Health,
        on_report: Callable[[Report], None] = lambda _: None,
    ) -> None:
        self._keys = (f"{{{prefix}}}:guard", f"{{{prefix}}}:limits", f"{{{prefix}}}:signals")
        self._instance_id = instance_id
        self._judge = judge
        self._control = control
        self._lease = lease
        self._relative = relative
        self._health = health
        self._on_report = on_report
        self._work: Judging | None = None
        self._asked: tuple[str, ...] = ()
        self._saving = False
        self._acting = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._judged_at = time.monotonic()
        self._found_at = -1e9
        self.report: Report | None = None
        """What the leader last found; None: nothing was ever judged."""

    def start(self) -> None:
        """Begin to act on what is judged, in the background."""
        self._task = asyncio.create_task(self._run(), name="guard")

    async def close(self) -> None:
        """Stop."""
        await end(self._task)

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
        if self._work is not None and (old := self._work.forgotten(time.monotonic())):
            pipe.hdel(signals, *old)
            self._asked += ("deleted",)

    def take(self, answers: Sequence[Any]) -> None:
        """Take the answers, and judge one tick on the leader."""
        for name, answer in zip(self._asked, answers, strict=True):
            if name == "report" and answer:
                self._follow(answer)
            elif name == "saved" and not answer:
                _log.warning("guard.state_lost", reason="another leader saved first")
                self._work = None
                return
            elif name == "state":
                self._work = Judging(self._judge, self._relative, *answer[:3])
                if self._work.unreadable:
                    _log.error("guard.state_unreadable", error=self._work.unreadable)
                if answer[3]:
                    self._follow(answer[3])
            elif name == "signals" and self._work is not None:
                self._tick(self._work, answer)

    def _follow(self, text: str) -> None:
        """Take the leader's report; one of another version is nobody's."""
        try:
            report = msgspec.json.decode(text, type=Report)
        except msgspec.MsgspecError as exc:
            if self.report is not None:
                _log.warning("guard.report_unreadable", error=str(exc))
            self.report = None
            return
        if self.report is None or report.at != self.report.at:
            self._judged_at = time.monotonic()
        self.report = report

    @property
    def silent_seconds(self) -> float:
        """How long nothing was judged, on any replica, as far as this one knows."""
        return time.monotonic() - self._judged_at

    def verdict(self, ramp: Ramp) -> tuple[Verdict, str]:
        """Return what the evidence says now, for whoever steps the ramp: hold where nothing is known."""
        del ramp
        if self.report is None or self.silent_seconds > 5 * TICK_SECONDS:
            return Verdict.HOLD, HoldReason.STORE_AWAY.value
        judgement = self.report.judgement
        if judgement.verdict is Verdict.ROLLBACK:  # which the guard does itself, with its evidence
            return Verdict.HOLD, judgement.reason
        return judgement.verdict, judgement.reason

    def _tick(self, work: Judging, told: dict[str, str]) -> None:
        record = self._control.latch.record
        if record is None:
            return
        work.follow(record)
        now = time.time()
        tick = work.read(told, time.monotonic())
        holds = work.judge_tick(tick, record, time.monotonic())
        holds += self._health.holds(now)
        self._judged_at = time.monotonic()
        report = work.report(self.report, self._instance_id, record, holds, now)
        is_due = not report.findings_at or time.monotonic() - self._found_at >= _FINDINGS_SECONDS
        if self._has_to_act(work, record) or is_due:
            self._acting.set()
        self.report = report
        self._on_report(self.report)

    def _has_to_act(self, work: Judging, record: RampRecord) -> bool:
        """Tell whether a candidate that somebody has is to be taken out; in the dark it is only said."""
        has_breached = bool((work.state.has_breached & self._judge.enforced).any())
        return has_breached and not record.is_rolled_back and work.has_candidate

    async def _run(self) -> None:
        while True:
            await self._acting.wait()
            self._acting.clear()
            try:
                await self._find()
            except Exception:  # noqa: BLE001 - whatever one turn meets, the next is tried
                _log.exception("guard.failed")

    async def _find(self) -> None:
        """Work out the findings, beside the event loop where nothing is urgent, and act on a breach."""
        work, record, report = self._work, self._control.latch.record, self.report
        if work is None or record is None or report is None:
            return
        if self._has_to_act(work, record):  # no thread may be free just then
            findings = findings_of(self._judge, work.state)
        else:
            findings = await asyncio.to_thread(findings_of, self._judge, copy.deepcopy(work.state))
        judgement = judge(findings, report.holds, extended_stages=extended_stages(record.ramp, time.time()))
        newest = self.report or report
        if (newest.rollout, newest.share_percent) != (report.rollout, report.share_percent):
            return  # of a stage that is over
        self._found_at = time.monotonic()
        self.report = replace(newest, findings=findings, findings_at=time.time())
        if judgement.verdict is not Verdict.ROLLBACK or not self._has_to_act(work, record):
            return
        _log.error("guardrail.breached", guardrail=judgement.finding.guardrail if judgement.finding else "")
        evidence = msgspec.json.encode(work.evidence(judgement, self.report)).decode()
        self._on_report(replace(self.report, judgement=judgement))
        by = By(actor="guard", through=Through.GUARD, reason=judgement.reason, evidence=evidence)
        await self._control.roll_back(by)
