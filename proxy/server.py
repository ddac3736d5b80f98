"""Runs both planes until told to stop, and then drains."""

from __future__ import annotations

import asyncio
import gc
import signal
from typing import TYPE_CHECKING

import structlog

from proxy.app import create_control_app, create_data_app
from proxy.listeners import Listener
from proxy.parts import Parts
from proxy.secrets import shown_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from proxy.logs import Lines
    from proxy.settings import Settings

_log = structlog.get_logger(__name__)


async def serve(
    settings: Settings, env: Mapping[str, str], on_ready: Callable[[Parts, Listener, Listener], None], lines: Lines
) -> None:
    """Serve until SIGTERM or SIGINT; *lines* is where the log goes.

    Then: readiness says no, what runs is finished, counts, events and telemetry are flushed.

    Raises:
        InvalidSettings, InvalidModel, StoreNotStarted: nothing was served.

    """
    server = settings.server
    data = Listener(server.host, server.port, grace_seconds=server.grace_seconds)
    control = Listener(server.control_host, server.control_port)
    parts = Parts(settings, env, lines_lost=lambda: lines.lost)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        await parts.start()
        await control.start(create_control_app(parts))
        await data.start(create_data_app(parts))
        gc.collect()
        gc.freeze()  # what start-up made stays; collections look at requests only
        _say_ready(parts, data, control)
        on_ready(parts, data, control)
        await stop.wait()
        _log.info("server.draining", in_flight=parts.in_flight.count)
        parts.is_draining = True
        await asyncio.sleep(server.drain_seconds)
    finally:
        await data.close()
        await parts.close()
        await control.close()
        _log.info("server.stopped")


def _say_ready(parts: Parts, data: Listener, control: Listener) -> None:
    """Log where it listens and what is real: without a terminal nothing else tells."""
    state = parts.gate.state
    flag, store = parts.settings.flag, parts.settings.store
    _log.info(
        "server.ready",
        version=parts.version,
        instance_id=parts.instance_id,
        data_plane=data.url,
        control_plane=control.url,
        models=parts.models(),
        flag=state.flag,
        flag_source=state.source,
        flag_url=shown_url(flag.url) if flag.url else None,
        store=shown_url(store.url.reveal()) if store.url else "embedded",
        share_percent=None if state.rollout is None else state.rollout.share_percent,
        is_stand_in=parts.stand_in is not None,
    )
    if parts.stand_in is not None:
        _log.warning("arm.stand_in", reason="no OPENAI_API_KEY and no base_url: a stand-in answers for the LLM")
