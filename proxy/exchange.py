"""What a replica tells the others and asks of them, once a second in one round trip; requests never wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from redis.exceptions import RedisError

from flags.store import StoreNotStarted
from flags.tasks import end
from proxy.budget import HOUR, Spend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis
    from redis.asyncio.client import Pipeline

    from flags.membership import Membership
    from flags.pulse import Pulse
    from flags.store import EmbeddedValkey, Exchanged
    from proxy.budget import HourlySpend

_log = structlog.get_logger(__name__)


class SharedSpend:
    """Writes this replica's spend and reads the others'; without the store each counts for itself."""

    def __init__(self, budget: HourlySpend, prefix: str, instance_id: str, *, name: str = "spend") -> None:
        self._budget = budget
        self._key = f"{{{prefix}}}:{name}"
        self._instance_id = instance_id
        self._hours: tuple[int, int] = (0, 0)

    def ask(self, pipe: Pipeline) -> None:
        """Queue the sums of this replica and the question for all of them."""
        hour = int(time.time() // HOUR)
        self._hours = (hour, hour - 1)
        # one hash tag for all keys, so that a cluster keeps them in one slot and takes one pipeline
        keys = [f"{self._key}:{h}" for h in self._hours]
        for key in keys:
            pipe.hgetall(key)
        for key, h in zip(keys, self._hours, strict=True):
            if (own := self._budget.own(h)) != Spend():
                pipe.hset(key, self._instance_id, msgspec.json.encode(own).decode())
                pipe.expire(key, 2 * HOUR + 60)

    def take(self, answers: Sequence[Any]) -> None:
        """Take what all others spent."""
        found = zip(self._hours, answers[:2], strict=True)
        self._budget.set_others({hour: self._others(fields) for hour, fields in found})

    def _others(self, found: dict[str, str]) -> Spend:
        others = [msgspec.json.decode(text, type=Spend) for name, text in found.items() if name != self._instance_id]
        return sum(others, Spend())


class _Nobody:
    """Stands for one that could not ask, and takes whatever the half of its questions got."""

    def ask(self, pipe: Pipeline) -> None:
        """Ask nothing."""

    def take(self, answers: Sequence[Any]) -> None:
        """Take it."""


class Exchange:
    """The one round trip of a second, for all who have something to tell or to ask."""

    def __init__(
        self,
        store: Redis,
        exchanged: Sequence[Exchanged],
        membership: Membership,
        pulse: Pulse,
        *,
        embedded: EmbeddedValkey | None = None,
        interval_seconds: float = 1.0,
    ) -> None:
        self._store = store
        self._exchanged = (*exchanged, membership)
        self._membership = membership
        self._pulse = pulse
        self._embedded = embedded
        self._interval = interval_seconds
        self._task: asyncio.Task[None] | None = None
        self.error: str | None = "not yet reached"

    def start(self) -> None:
        """Begin to exchange, in the background."""
        self._task = asyncio.create_task(self._run(), name="exchange")

    async def close(self) -> None:
        """Exchange a last time, and leave; nothing where it was never started: the store may be another process's."""
        if self._task is None:
            return
        await end(self._task)
        await self.once()
        with contextlib.suppress(RedisError, OSError):
            async with self._store.pipeline(transaction=False) as pipe:
                self._membership.leave(pipe)
                await pipe.execute()

    async def _run(self) -> None:
        while True:
            await self.once()
            if self.error is not None and self._embedded is not None:
                await self._revive(self._embedded)
            await asyncio.sleep(self._interval)

    async def once(self) -> None:
        """Do one round trip; a failure is noted, and the next one tells all that this one would have told."""
        began_at = time.monotonic()
        try:
            await self._round_trip()
        except (RedisError, OSError, msgspec.MsgspecError) as exc:
            if self.error is None:
                _log.warning("store.lost", error=type(exc).__name__)
            self.error = type(exc).__name__
            return
        finally:
            self._pulse.asked(began_at)
        if self.error is not None:
            _log.info("store.reached")
        self.error = None

    async def _round_trip(self) -> None:
        async with self._store.pipeline(transaction=False) as pipe:
            asked: list[tuple[Exchanged, int]] = []
            for each in self._exchanged:
                try:
                    each.ask(pipe)
                except Exception:  # noqa: BLE001 - a fault of one must not silence the others: who leads, who latched
                    _log.exception("exchange.not_asked", part=type(each).__name__)
                    asked.append((_Nobody(), len(pipe)))
                else:
                    asked.append((each, len(pipe)))
            answers = await pipe.execute()
        begin = 0
        for each, last in asked:
            try:
                each.take(answers[begin:last])
            except RedisError:
                raise
            except Exception:  # noqa: BLE001 - likewise
                _log.exception("exchange.not_taken", part=type(each).__name__)
            begin = last

    async def _revive(self, embedded: EmbeddedValkey) -> None:
        try:
            await embedded.start()
        except StoreNotStarted as exc:
            _log.error("store.not_started", error=str(exc))
