"""What a replica tells the others, once a second in one round trip; requests never wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from flags.store import EmbeddedValkey, StoreNotStarted
from proxy.budget import HOUR, Spend

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from proxy.budget import FallbackBudget

_log = structlog.get_logger(__name__)


class Exchange:
    """Adds this replica's spend to the store and takes the total of all. Without the store each counts for itself."""

    def __init__(
        self,
        store: Redis,
        prefix: str,
        budget: FallbackBudget,
        *,
        embedded: EmbeddedValkey | None = None,
        interval_seconds: float = 1.0,
    ) -> None:
        self._store = store
        self._prefix = prefix
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
        """Do one round trip; a failure is noted and what was not taken is sent with the next."""
        now = time.time()
        spend = self._budget.take_unsent()
        try:
            this_hour, hour_before = await self._round_trip(int(now // HOUR), spend)
        except (RedisError, OSError, TimeoutError) as exc:
            self._budget.put_back(spend)
            if self.error is None:
                _log.warning("store.lost", error=type(exc).__name__)
            self.error = type(exc).__name__
            return
        self._budget.set_shared(int(now // HOUR), this_hour, hour_before)
        if self.error is not None:
            _log.info("store.reached")
        self.error, self.reached_at = None, now

    async def _round_trip(self, hour: int, spend: Spend) -> tuple[Spend, Spend]:
        # one hash tag for all keys, so that a cluster keeps them in one slot and takes one pipeline
        keys = [f"{{{self._prefix}}}:spend:{h}" for h in (hour, hour - 1)]
        async with self._store.pipeline(transaction=False) as pipe:
            for name in Spend.__struct_fields__:
                if value := getattr(spend, name):
                    pipe.hincrby(keys[0], name, value)
            pipe.expire(keys[0], 2 * HOUR + 60)
            for key in keys:
                pipe.hgetall(key)
            *_, this_hour, hour_before = await pipe.execute()
        return _spend(this_hour), _spend(hour_before)

    async def _revive(self, embedded: EmbeddedValkey) -> None:
        try:
            await embedded.start()
        except StoreNotStarted as exc:
            _log.error("store.not_started", error=str(exc))


def _spend(fields: dict[str, str]) -> Spend:
    return Spend(**{name: int(fields.get(name, 0)) for name in Spend.__struct_fields__})
