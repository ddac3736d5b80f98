"""Notices that this process slept: stopped, swapped out or starved, and so may have missed a rollback."""

from __future__ import annotations

import asyncio
import time

import structlog

from flags.tasks import end

_log = structlog.get_logger(__name__)

_BEAT_SECONDS = 0.25
_ASLEEP_SECONDS = 2.0


class Pulse:
    """Beats several times a second. After a pause nothing is sure until the store was asked again."""

    def __init__(self) -> None:
        self._beat_at = time.monotonic()
        self._has_slept = False
        self._woke_at = 0.0
        self._task: asyncio.Task[None] | None = None

    @property
    def is_unsure(self) -> bool:
        """Whether this process slept and has not asked yet what it missed."""
        return self._has_slept or time.monotonic() - self._beat_at > _ASLEEP_SECONDS

    def start(self) -> None:
        """Begin to beat."""
        self._beat_at = time.monotonic()
        self._task = asyncio.create_task(self._run(), name="pulse")

    async def close(self) -> None:
        """Stop."""
        await end(self._task)

    def asked(self, began_at: float) -> None:
        """Take note that the store was asked, with or without an answer; *began_at* is monotonic seconds.

        A question that was under way when this process fell asleep says nothing of the time since.
        """
        if began_at > self._woke_at:
            self._has_slept = False

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_BEAT_SECONDS)
            now = time.monotonic()
            if now - self._beat_at > _ASLEEP_SECONDS:
                self._has_slept, self._woke_at = True, now
                _log.warning("process.slept", seconds=round(now - self._beat_at, 1))
            self._beat_at = now
