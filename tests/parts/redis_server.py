"""A real Redis on a loopback port of its own."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Self

import redis

from tests.parts.programs import Program
from tests.running import free_port

if TYPE_CHECKING:
    from pathlib import Path


def is_redis_here() -> bool:
    return shutil.which("redis-server") is not None


class RedisServer:
    """Keeps its data over a restart, as an append-only file."""

    def __init__(self, folder: Path, *hosts: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        settings = {"port": str(self.port), "dir": str(folder), "appendonly": "yes", "save": "", "protected-mode": "no"}
        arguments = [part for name, value in settings.items() for part in (f"--{name}", value)]
        arguments += ["--bind", "127.0.0.1", *hosts]
        self.program = Program(["redis-server", *arguments], log=folder / "redis.log")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.program.stop()

    def start(self) -> None:
        self.program.start()
        self.program.wait_until(self._answers)

    def client(self) -> redis.Redis:
        return redis.Redis.from_url(self.url, decode_responses=True)

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False
