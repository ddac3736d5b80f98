"""Serves the stand-in for the language model on a loopback port of its own."""

from __future__ import annotations

from proxy.arms.stand_in import create_stand_in
from proxy.listeners import Listener


class StandIn:
    """A real endpoint over a real socket, so that the arm in front of it is the same as with OpenAI."""

    def __init__(self, delay_seconds: float) -> None:
        self._app = create_stand_in(delay_seconds)
        self._listener = Listener("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._listener.port}/v1"

    async def start(self) -> None:
        """Serve."""
        await self._listener.start(self._app)

    async def close(self) -> None:
        """Stop."""
        await self._listener.close()
