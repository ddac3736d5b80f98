"""Changes of the record, on whichever replica they are asked for: a command, a rollback, a store that lost it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING
from uuid import uuid4

import structlog
from msgspec.structs import replace
from redis.exceptions import RedisError

from flags.ramp import Refused, Rollback
from flags.record import ROLLBACK, AuditEntry, By, RampRecord, Through, changed, entry_of, wins, with_rollback
from flags.record_store import NewerRecord, RecordStore, UnreadableRecord, decode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio.client import Pipeline

    from flags.latch import Latch
    from flags.ramp import Ramp

_log = structlog.get_logger(__name__)

_TRIES = 8
_LOST_CONNECTIONS = 3
"""Tries that may fail for want of a connection: those of before a restart of the store are found dead one by one."""


class StoreAway(Exception):
    """The shared store cannot be reached, or has no record yet."""


class RampControl:
    """The only one that writes the record. Follows it, too: by the exchange and by the feed."""

    def __init__(self, latch: Latch, records: RecordStore, on_audit: Callable[[AuditEntry], None]) -> None:
        self.latch = latch
        self._records = records
        self._on_audit = on_audit
        self._is_behind: RampRecord | None = None
        self.has_none = False
        """The store answered, and had no record."""
        self.error: str | None = None
        """Why the store's record cannot be read."""

    def ask(self, pipe: Pipeline) -> None:
        """Ask for the record."""
        pipe.get(self._records.key)

    def take(self, answers: Sequence[str | None]) -> None:
        """Follow what the store says."""
        self.hear(answers[0])

    def hear(self, text: str | None) -> None:
        """Follow what was read or announced; of what is no record of ours only note that."""
        try:
            self.follow(decode(text))
        except UnreadableRecord as exc:
            if self.error is None:
                _log.error("record.unreadable", error=str(exc))
            self.error = str(exc)

    def follow(self, record: RampRecord | None) -> None:
        """Follow a record; None: the store has none."""
        self.error = None
        self.latch.hear()
        self.has_none = record is None
        self._is_behind = None
        if record is not None and not self.latch.take(record):
            self._is_behind = record

    async def change(
        self, action: str, work: Callable[[Ramp], Ramp], by: By, *, needs_settled: bool = False
    ) -> RampRecord:
        """Return the record after *work* was done on its ramp; a request that was done before changes nothing.

        Raises:
            Refused: the ramp does not allow it, or *needs_settled* and the flag does not say the last change yet.
            StoreAway: nothing was changed, or it is not known whether it was: ask again with the same request id.

        """
        why = "the record was changed by others each time"
        lost = 0
        for _ in range(_TRIES):
            try:
                record = await self._read()
                done = record.action_of(by.request_id)
                if done not in {None, action}:
                    raise Refused(f"the request id {by.request_id} was that of another command: {done}")
                if done:
                    return record
                if needs_settled and record.is_pending:
                    share = record.ramp.share_percent
                    raise Refused(f"the flag does not say {share} % yet; wait, or set it there by hand")
                ramp = work(record.ramp)
                if ramp is record.ramp:
                    return record
                after = changed(record, ramp, by, action=action)
                if await self._swap(record, after, action, by):
                    return after
            except (RedisError, OSError) as exc:
                why = (
                    str(exc)
                    if isinstance(exc, UnreadableRecord)
                    else f"the shared store cannot be reached: {type(exc).__name__}"
                )
                lost += 1
                if lost > _LOST_CONNECTIONS:
                    break
        raise StoreAway(why)

    async def roll_back(self, by: By) -> Rollback:
        """Take the candidate out, here at once, everywhere as soon as the store has it.

        It is never refused. With the store away it holds on this replica, is delivered when the store is
        back, and the flag, set to 0 by whoever can, stops the others. One that holds already is found in the
        store, not in memory: what is known here may be old.
        """
        record = self.latch.record
        rollback = Rollback(
            rollback_id=uuid4().hex[:12],
            at=time.time(),
            actor=by.actor,
            reason=by.reason,
            from_share_percent=record.ramp.share_percent if record else 0,
            through=by.through,
            request_id=by.request_id,
            evidence=by.evidence,
        )
        self.latch.decide(rollback)
        await self.deliver()
        record = self.latch.record
        return record.ramp.rollback if record and record.ramp.rollback and self.latch.undelivered is None else rollback

    async def deliver(self) -> None:
        """Bring a rollback that was decided here into the store, with who decided it, when and why."""
        rollback = self.latch.undelivered
        if rollback is None:
            return
        by = By(
            actor=rollback.actor,
            through=Through(rollback.through or Through.RECOVERY),
            reason=rollback.reason,
            request_id=rollback.request_id,
            evidence=rollback.evidence,
        )
        try:
            for _ in range(_TRIES):
                record = await self._read()
                self.latch.take(record)
                if self.latch.undelivered is None:
                    return
                if record.action_of(rollback.request_id) == ROLLBACK:
                    self.latch.forget(rollback)  # the same order again, after it was ended
                    return
                after = with_rollback(record, rollback, time.time())
                if await self._swap(record, after, ROLLBACK, by, at=rollback.at):
                    return
        except (RedisError, OSError, StoreAway) as exc:
            _log.error("rollback.not_delivered", rollback_id=rollback.rollback_id, error=type(exc).__name__)

    async def restore(self) -> None:
        """Put the record back into a store that lost it, or came back with an older one."""
        mine = self.latch.record
        theirs = self._is_behind
        if mine is None or not (self.has_none or (theirs is not None and wins(mine, theirs))):
            return
        version = max(mine.version, theirs.version + 1 if theirs else 1)
        after = replace(mine, version=version)
        by = By(actor="recovery", through=Through.RECOVERY, reason="the store had lost the record")
        before = RampRecord(ramp=mine.ramp, version=theirs.version if theirs else 0)
        try:
            await self._swap(before, after, "restore", by)
        except (RedisError, OSError) as exc:
            _log.warning("record.not_restored", error=type(exc).__name__)

    async def begin(self, record: RampRecord) -> None:
        """Make the first record of a rollout."""
        by = By(actor=record.actor, through=Through.FLAG, reason=record.reason)
        await self._swap(replace(record, version=0), record, "begin", by)

    async def settle(self, record: RampRecord, after: RampRecord, action: str, by: By) -> bool:
        """Set the record after what was done to the flag; False: somebody changed it meanwhile."""
        return await self._swap(record, replace(after, version=record.version + 1), action, by)

    async def history(self, count: int) -> list[AuditEntry]:
        """Return the newest audit entries, the newest first.

        Raises:
            StoreAway: they cannot be read.

        """
        try:
            return await self._records.history(count)
        except (RedisError, OSError) as exc:
            raise StoreAway(f"the shared store cannot be reached: {type(exc).__name__}") from exc

    async def _read(self) -> RampRecord:
        record = await self._records.read()
        mine = self.latch.record
        if record is None or (mine is not None and wins(mine, record)):
            self.follow(record)
            await self.restore()
            record = await self._records.read()
        if record is None:
            raise StoreAway("there is no record of the rollout yet; it is made when the flag was read")
        return record

    async def _swap(
        self, before: RampRecord, after: RampRecord, action: str, by: By, *, at: float | None = None
    ) -> bool:
        entry = entry_of(before, after, by, at=time.time() if at is None else at, action=action)
        try:
            await self._records.swap(before.version, after, entry)
        except NewerRecord as exc:
            self.follow(exc.record)
            return False
        self.follow(after)
        self._on_audit(entry)
        return True


def refuse_without(writer: object | None) -> None:
    """Raise where a share is to be changed and nobody may.

    Raises:
        Refused: there is no way to write the flag.

    """
    if writer is None:
        raise Refused("there is no admin token (UNLEASH_ADMIN_TOKEN): change the share in Unleash, it is adopted")
