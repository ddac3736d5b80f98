"""What a replica tells the others, once a second in one round trip; requests never wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import msgspec
import structlog
from redis.exceptions import RedisError

from flags.store import EmbeddedValkey, StoreNotStarted
from proxy.budget import HOUR, Spend

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from proxy.budget import FallbackBudget

_log = structlog.get_logger(__name__)


class Exchange:
    """Writes this replica's spend to the store and reads the others'. Without the store each counts for itself."""

    def __init__(
        self,
        store: Redis,
        prefix: str,
        instance_id: str,
        budget: FallbackBudget,
        *,
        embedded: EmbeddedValkey | None = None,
        interval_seconds: float = 1.0,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._instance_id = instance_id
        self._budget = budget
        self._embedded = embedded
        self._interval = interval_seconds
        self._task: asyncio.Task[None] | None = None
        self.error: str | None = "not yet reached"
        self.reached_at: float | None = None
        """Unix seconds of the last round trip."""

    def start(self) -> None:
        """Begin to exchange, in the background."""
        self._task = asyncio.create_task(self._run(), name="exchange")

    async def close(self) -> None:
        """Exchange a last time."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self.once()

    async def _run(self) -> None:
        while True:
            await self.once()
            if self.error is not None and self._embedded is not None:
                await self._revive(self._embedded)
            await asyncio.sleep(self._interval)

    async def once(self) -> None:
        """Do one round trip; a failure is noted, and the next one tells all that this one would have told."""
        now = time.time()
        hour = int(now // HOUR)
        try:
            spends = await self._round_trip((hour, hour - 1))
        except (RedisError, OSError, TimeoutError, msgspec.MsgspecError) as exc:
            if self.error is None:
                _log.warning("store.lost", error=type(exc).__name__)
            self.error = type(exc).__name__
            return
        self._budget.set_others(spends)
        if self.error is not None:
            _log.info("store.reached")
        self.error, self.reached_at = None, now

    async def _round_trip(self, hours: tuple[int, ...]) -> dict[int, Spend]:
        """Write this replica's own sums and return those of all others."""
        # one hash tag for all keys, so that a cluster keeps them in one slot and takes one pipeline
        keys = [f"{{{self._prefix}}}:spend:{hour}" for hour in hours]
        async with self._store.pipeline(transaction=False) as pipe:
            for key, hour in zip(keys, hours, strict=True):
                if (own := self._budget.own(hour)) != Spend():
                    pipe.hset(key, self._instance_id, msgspec.json.encode(own).decode())
                    pipe.expire(key, 2 * HOUR + 60)
            for key in keys:
                pipe.hgetall(key)
            *_, newest, before = await pipe.execute()
        return {hour: self._others(found) for hour, found in zip(hours, (newest, before), strict=True)}

    def _others(self, found: dict[str, str]) -> Spend:
        others = [msgspec.json.decode(text, type=Spend) for name, text in found.items() if name != self._instance_id]
        return sum(others, Spend())

    async def _revive(self, embedded: EmbeddedValkey) -> None:
        try:
            await embedded.start()
        except StoreNotStarted as exc:
            _log.error("store.not_started", error=str(exc))
