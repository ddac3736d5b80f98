"""The proxy with arms in its process that answer at once: what is left is its own work.

``python -m tests.perf.instant``, configured as ``rerank-canary serve`` is, by the environment.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from typing import TYPE_CHECKING

import uvloop

from proxy.app import create_control_app, create_data_app
from proxy.arms.base import ArmAnswer
from proxy.configuration import load
from proxy.listeners import Listener
from proxy.logs import configure_logs
from proxy.parts import Parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.settings import Settings


class InstantArm:
    """Says of any documents that the last is the best."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.is_ready = self.is_well = True
        self._answers: dict[int, ArmAnswer] = {}

    async def start(self) -> None:
        """Nothing to load."""

    async def score(
        self,
        query: str,
        documents: Sequence[str],
        *,
        deadline: float,
        max_document_tokens: int | None = None,
        is_fresh: bool = False,
    ) -> ArmAnswer:
        """Return the answer made for this many documents before."""
        del query, deadline, max_document_tokens, is_fresh
        count = len(documents)
        if count not in self._answers:
            self._answers[count] = ArmAnswer(
                logits=tuple(float(i) for i in range(count)),
                probabilities=tuple((i + 1) / (count + 1) for i in range(count)),
                model=self.model,
            )
        return self._answers[count]

    async def first_too_long(self, query: str, documents: Sequence[str], *, deadline: float) -> int | None:
        """Return None: it reads everything."""
        del query, documents, deadline
        return None

    async def close(self) -> None:
        """Nothing to give back."""


def instant_parts(settings: Settings) -> Parts:
    """Return the parts of a proxy whose every arm answers at once."""
    return Parts(settings, os.environ, {"gpt": InstantArm("instant-gpt"), "cross-encoder": InstantArm("instant-ce")})


async def serve(settings: Settings) -> None:
    """Serve as `proxy.server.serve` does, until SIGTERM."""
    data = Listener(settings.server.host, settings.server.port)
    control = Listener(settings.server.control_host, settings.server.control_port)
    parts = instant_parts(settings)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    try:
        await parts.start()
        await control.start(create_control_app(parts))
        await data.start(create_data_app(parts))
        gc.collect()
        gc.freeze()
        await stop.wait()
    finally:
        await data.close()
        await parts.close()
        await control.close()


if __name__ == "__main__":
    configured = load(os.environ)
    configure_logs(configured.telemetry)
    uvloop.run(serve(configured))
