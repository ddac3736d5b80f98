"""Whether a server is there, without a call of ours having to find out first."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import structlog

from flags.tasks import end

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_log = structlog.get_logger(__name__)

_PROBE_SECONDS = 5.0
"""How often a server that is away is asked again."""
_PATIENCE_SECONDS = 2.0


class RemoteHealth:
    """Asks ``/health`` once at the start, after each call that failed, and until the server is back; else never.

    Any answer but a 5xx will do: not every server has the path. So no request of one caller can make a
    server look down, and one that is down is found back without a request.
    """

    def __init__(self, client: httpx.AsyncClient, on_up: Callable[[], Awaitable[None]]) -> None:
        self._client = client
        self._on_up = on_up
        self._doubt = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.is_up = False

    async def start(self) -> None:
        """Ask once, and watch from then on."""
        await self._probe()
        self._task = asyncio.create_task(self._watch(), name="remote health")

    async def close(self) -> None:
        """Stop."""
        await end(self._task)

    def doubt(self) -> None:
        """Take note of a call that failed."""
        self._doubt.set()

    async def _watch(self) -> None:
        while True:
            if self.is_up:
                await self._doubt.wait()
            else:
                await asyncio.sleep(_PROBE_SECONDS)
            self._doubt.clear()
            await self._probe()

    async def _probe(self) -> None:
        url = self._client.base_url  # logged without what may be a password
        try:
            is_up = (await self._client.get("/health", timeout=_PATIENCE_SECONDS)).status_code < 500
        except httpx.HTTPError:
            is_up = False
        if is_up and not self.is_up:
            await self._on_up()
            _log.info("remote.up", host=url.host, port=url.port)
        elif not is_up and (self.is_up or self._task is None):
            _log.warning("remote.away", host=url.host, port=url.port)
        self.is_up = is_up
