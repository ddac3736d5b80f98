"""Listening sockets and the servers behind them, all on one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING

import uvicorn

from proxy.errors import InvalidSettings
from proxy.http_protocol import JsonProtocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from litestar import Litestar


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to us: there are several in this process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


class Listener:
    """One application on one port. The port is taken at once, so a conflict shows before anything is loaded."""

    def __init__(self, host: str, port: int, *, grace_seconds: float = 1.0) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._socket = socket.create_server((host, port), family=family, backlog=2048)
        except OSError as exc:
            raise InvalidSettings(f"cannot listen on {host}:{port}: {exc.strerror or exc}") from exc
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        self._grace_seconds = grace_seconds
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    async def start(self, app: Litestar) -> None:
        """Serve *app*."""
        config = uvicorn.Config(
            app,
            http=JsonProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=75,  # longer than the 60 s of common load balancers, so they close first
            timeout_graceful_shutdown=int(max(1, self._grace_seconds)),
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve([self._socket]), name=f"listener-{self.port}")
        while not self._server.started and not self._task.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        """Take no new connection, let running requests finish within the grace time."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await self._task
        self._socket.close()
