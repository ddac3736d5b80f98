"""Hears of each change of the record the moment it is made; what it misses, the exchange brings a second later."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

import msgspec
import structlog
from redis.exceptions import RedisError

from flags.record_store import decode

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from flags.ramp_control import RampControl

_log = structlog.get_logger(__name__)

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
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(RedisError, OSError):
                await self._listen()
            await asyncio.sleep(_RETRY_SECONDS)

    async def _listen(self) -> None:
        async with self._store.pubsub() as feed:
            await feed.subscribe(self._channel)
            while True:
                message = await feed.get_message(ignore_subscribe_messages=True, timeout=_PATIENCE_SECONDS)
                if message is None:
                    continue
                try:
                    self._control.follow(decode(message["data"]))
                except msgspec.MsgspecError as exc:
                    _log.error("record.unreadable", error=str(exc))
