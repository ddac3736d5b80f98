"""Runs both planes until told to stop, and then drains."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from typing import TYPE_CHECKING

import structlog

from proxy.app import create_control_app, create_data_app
from proxy.listeners import Listener
from proxy.parts import Parts

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from proxy.settings import Settings

_log = structlog.get_logger(__name__)


async def serve(
    settings: Settings, env: Mapping[str, str], on_ready: Callable[[Parts, Listener, Listener], None]
) -> None:
    """Serve until SIGTERM or SIGINT.

    Then: readiness says no, what runs is finished, counts, events and telemetry are flushed.

    Raises:
        InvalidSettings, InvalidModel, StoreNotStarted: nothing was served.

    """
    server = settings.server
    data = Listener(server.host, server.port, grace_seconds=server.grace_seconds)
    control = Listener(server.control_host, server.control_port)
    parts = Parts(settings, env)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await parts.start()
        await control.start(create_control_app(parts))
        await data.start(create_data_app(parts))
        gc.collect()
        gc.freeze()  # what start-up made stays; collections look at requests only
        on_ready(parts, data, control)
        await stop.wait()
        _log.info("server.draining", in_flight=parts.in_flight.count)
        parts.is_draining = True
        await asyncio.sleep(server.drain_seconds)
    finally:
        await data.close()
        with contextlib.suppress(Exception):  # closing goes on whatever one part says
            await parts.close()
        await control.close()
        _log.info("server.stopped")
