"""Keeps flag and record in step. Every replica runs one; only the holder of the lease writes.

The flag is the truth of the share: what the record wants is written to it and read back, and what
somebody else wrote there is adopted. Only a rollback is stronger: then the flag is put back to 0.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

import structlog
from msgspec.structs import replace
from redis.exceptions import RedisError

from flags.flag_writer import FlagMoved, FlagNotWritten, FlagShare
from flags.ramp import Phase, Verdict, adopt, begun, replan, step
from flags.record import REVERTED_BY, ROLLED_BACK, By, RampRecord, Through, changed, record_from_flag, title_of
from flags.tasks import end

if TYPE_CHECKING:
    from flags.flag_writer import FlagWriter
    from flags.gate import Gate
    from flags.membership import Membership
    from flags.ramp import Ramp, Stage
    from flags.ramp_control import RampControl

_log = structlog.get_logger(__name__)

_TICK_SECONDS = 0.5
_RETRY_SECONDS = 1.0


class Judge(Protocol):
    """Says what the evidence is, whenever it is asked."""

    def verdict(self, ramp: Ramp) -> tuple[Verdict, str]:
        """Return the verdict and its reason."""


class TimeAlone:
    """The judge of those who have none: a stage is passed when its time is over."""

    def verdict(self, ramp: Ramp) -> tuple[Verdict, str]:
        """Return that it goes on."""
        del ramp
        return Verdict.ADVANCE, "the stage's time is over"


def _action(verdict: Verdict, ramp: Ramp) -> str:
    if verdict is Verdict.REVERT:
        return "revert"
    return "promote" if ramp.phase is Phase.PROMOTED else "ready" if ramp.is_ready else "advance"


def _says_other(found: FlagShare | None, ramp: Ramp) -> bool:
    """Tell whether the flag gives the candidate to others than the ramp; to nobody is to nobody by any group."""
    if found is None:
        return False
    is_same_group = found.group_id == ramp.group_id or not found.share_percent
    return found.share_percent != ramp.share_percent or not is_same_group


class Reconciler:
    """One loop a replica, woken by each change of the record."""

    def __init__(
        self,
        *,
        control: RampControl,
        gate: Gate,
        writer: FlagWriter | None,
        membership: Membership,
        plan: tuple[Stage, ...],
        auto_advance: bool,
        judge: Judge | None = None,
    ) -> None:
        self._control = control
        self._gate = gate
        self._writer = writer
        self._membership = membership
        self._plan = plan
        self._auto_advance = auto_advance
        self._judge = judge or TimeAlone()
        self._retry_at = 0.0
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.error: str | None = None
        """Why the flag could not be written at the last try."""

    def start(self) -> None:
        """Begin, in the background."""
        self._control.latch.on_change(self._wake.set)
        self._task = asyncio.create_task(self._run(), name="reconciler")

    async def close(self) -> None:
        """Stop."""
        await end(self._task)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.tick()
            except (RedisError, OSError) as exc:
                _log.warning("reconciler.store_away", error=type(exc).__name__)
            except Exception:  # noqa: BLE001 - whatever one tick meets, the next is tried
                _log.exception("reconciler.failed")

    async def tick(self) -> None:
        """Do the next thing that is to be done, if any."""
        latch = self._control.latch
        if latch.undelivered is not None:
            await self._stop_others()
            await self._control.deliver()
        await self._control.restore()
        if not self._membership.is_leader:
            return
        record = latch.record
        if record is None:
            await self._begin()
        elif record.is_pending:
            await self._write(record)
        elif not await self._adopt(record) and not await self._replan(record):
            await self._step(record)

    async def _stop_others(self) -> None:
        """With a rollback that the store does not take, set the flag to 0: the others read that, if not the store."""
        latch = self._control.latch
        state = self._gate.state
        is_out = state.rollout is not None and not (state.rollout.is_enabled and state.rollout.share_percent)
        if self._writer is None or latch.undelivered is None or is_out:
            return
        known = latch.record.ramp.group_id if latch.record else None
        group_id = known or (state.rollout.group_id if state.rollout else state.flag)
        title = f"{ROLLED_BACK}{latch.undelivered.rollback_id}"
        with contextlib.suppress(FlagNotWritten):
            await self._writer.write(0, expected=None, group_id=group_id, title=title)

    async def _begin(self) -> None:
        if not self._control.has_none:
            return
        # a token that may not even read must not keep the rollout from beginning: what the gate knows will do
        found = await self._read() or self._seen() or self._absent()
        if found is not None:
            state = self._gate.state
            await self._control.begin(
                record_from_flag(
                    flag=state.flag,
                    group_id=found.group_id,
                    share_percent=found.share_percent,
                    title=found.title,
                    plan=self._plan,
                    now=time.time(),
                )
            )

    async def _write(self, record: RampRecord) -> None:
        if time.monotonic() < self._retry_at:
            return
        ramp = record.ramp
        by = By(actor=record.actor, through=Through(record.through or Through.API), reason=record.reason)
        if self._writer is None:
            found = self._seen()
            is_said = found is not None and found.share_percent == ramp.share_percent
            self.error = None if is_said else "there is no admin token (UNLEASH_ADMIN_TOKEN)"
            if is_said:
                await self._settle_written(record, by)
            return
        try:
            written = await self._writer.write(
                ramp.share_percent,
                expected=record.flag_share_percent,
                group_id=ramp.group_id,
                title=title_of(record),
            )
        except FlagMoved as moved:
            if moved.share_percent in record.passed_shares:
                before = replace(record, flag_share_percent=moved.share_percent, passed_shares=())
                await self._write(before)
                return
            after = replace(
                record,
                ramp=adopt(ramp, moved.share_percent, time.time()),
                is_pending=False,
                actor="unleash",
                reason=f"{moved.share_percent} % was set in the flag meanwhile",
            )
            await self._control.settle(record, after, "conflict", replace(by, through=Through.FLAG))
        except FlagNotWritten as exc:
            self._retry_at = time.monotonic() + _RETRY_SECONDS
            if self._seen() == FlagShare(ramp.share_percent, ramp.group_id):
                by = replace(by, through=Through.FLAG, reason="somebody set the flag by hand")
                await self._settle_written(record, by)
                return
            if str(exc) != self.error:
                _log.error("flag.not_written", error=str(exc), share_percent=ramp.share_percent)
            self.error = str(exc)
        else:
            self.error = None
            await self._settle_written(record, replace(by, flag_event_id=written.event_id))

    async def _settle_written(self, record: RampRecord, by: By) -> None:
        """Note that the flag says it: a stage begins when its users get the candidate."""
        after = replace(record, is_pending=False, ramp=begun(record.ramp, time.time()))
        await self._control.settle(record, after, "flag_written", by)

    async def _adopt(self, record: RampRecord) -> bool:
        """Follow what somebody else set in the flag; tell whether anything was done."""
        if not _says_other(self._seen(), record.ramp):
            return False
        found = await self._read()
        if found is None or not _says_other(found, record.ramp):
            return False
        by = By(actor="unleash" if self._gate.state.source == "unleash" else "file", through=Through.FLAG)
        if record.is_rolled_back:
            if self._writer is None:
                return False
            reason = f"the flag was set to {found.share_percent} % while a rollback holds"
            after = replace(record, is_pending=True, flag_share_percent=None)
            return await self._control.settle(record, after, "flag_overruled", replace(by, reason=reason))
        group_id = found.group_id if found.share_percent else record.ramp.group_id
        ramp = adopt(record.ramp, found.share_percent, time.time(), group_id=group_id)
        what = "a stage" if ramp.stage is not None else "no stage of the plan" if ramp.share_percent else "nobody"
        reason = f"set in the flag itself: {found.share_percent} % is {what}"
        reason += f"; other users, by the hash group {group_id}" if group_id != record.ramp.group_id else ""
        reason += "; the old arm is no longer retired" if record.ramp.phase is Phase.RETIRED else ""
        after = replace(changed(record, ramp, replace(by, reason=reason)), is_pending=False)
        return await self._control.settle(record, after, "adopt", replace(by, reason=reason))

    async def _replan(self, record: RampRecord) -> bool:
        """Follow the plan of the settings; tell whether it is another one."""
        ramp = replan(record.ramp, self._plan)
        if ramp is record.ramp:
            return False
        by = By(actor="settings", through=Through.TIME, reason="the settings have another plan")
        return await self._control.settle(record, changed(record, ramp, by), "plan", by)

    async def _step(self, record: RampRecord) -> None:
        now = time.time()
        verdict, reason = self._judge.verdict(record.ramp)
        may_move = self._writer is not None
        ramp = step(
            record.ramp,
            verdict,
            now,
            auto_advance=self._auto_advance and may_move,
            rollback_id=uuid4().hex[:12],
            reason=reason,
        )
        if ramp is record.ramp or (verdict is Verdict.REVERT and not may_move):
            return
        if ramp.is_rolled_back:
            await self._control.roll_back(By(actor="guard", through=Through.GUARD, reason=reason))
            return
        action = _action(verdict, ramp)
        actor, through = (REVERTED_BY, Through.GUARD) if verdict is Verdict.REVERT else ("time", Through.TIME)
        by = By(actor=actor, through=through, reason=reason)
        await self._control.settle(record, changed(record, ramp, by), action, by)

    def _seen(self) -> FlagShare | None:
        """Return what this replica's gate knows; None while it does not know the newest."""
        state = self._gate.state
        if state.rollout is None or state.error is not None:
            return None
        share = state.rollout.given_percent
        return FlagShare(share, state.rollout.group_id)

    def _absent(self) -> FlagShare | None:
        """Return nobody's share where the flag's keeper was read and has no such flag; a rollback needs a record."""
        state = self._gate.state
        is_read = state.fresh_at is not None and state.error is None
        return FlagShare(0, state.flag) if is_read and state.rollout is None else None

    async def _read(self) -> FlagShare | None:
        """Return what the flag says, asked directly where that is possible; None: it cannot be known now."""
        seen = self._seen()
        if self._writer is None or seen is None:
            return seen
        try:
            return await self._writer.read()
        except FlagNotWritten as exc:
            self.error = str(exc)
            return None
