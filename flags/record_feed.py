"""Hears of each change of the record the moment it is made; what it misses, the exchange brings a second later."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from flags.tasks import end

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from flags.ramp_control import RampControl

_RETRY_SECONDS = 0.5
_PATIENCE_SECONDS = 5.0


class RecordFeed:
    """One subscription, made again whenever it breaks."""

    def __init__(self, store: Redis, channel: str, control: RampControl) -> None:
        self._store = store
        self._channel = channel
        self._control = control
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to listen, in the background."""
        self._task = asyncio.create_task(self._run(), name="record-feed")

    async def close(self) -> None:
        """Stop."""
        await end(self._task)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(RedisError, OSError):
                await self._listen()
            await asyncio.sleep(_RETRY_SECONDS)

    async def _listen(self) -> None:
        async with self._store.pubsub() as feed:
            await feed.subscribe(self._channel)
            while True:
                began = time.monotonic()
                message = await feed.get_message(timeout=_PATIENCE_SECONDS)
                if message is not None:
                    if message["type"] == "message":
                        self._control.hear(message["data"])
                elif time.monotonic() - began < _PATIENCE_SECONDS / 2:
                    # the kernel's ETIMEDOUT reads as "no message", at once and for ever: only a new connection helps
                    raise ConnectionResetError("the subscription broke")
