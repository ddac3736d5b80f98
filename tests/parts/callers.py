"""Users who ask a proxy: each once, or all of them again and again until they are stopped."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

import httpx
import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

QUICK = {
    "RERANK_CANARY__BACKENDS__GPT__KIND": "llm",
    "RERANK_CANARY__BACKENDS__GPT__STAND_IN_DELAY_SECONDS": "0",
    "RERANK_CANARY__GUARD__IS_ON": "false",
}
"""Makes the stand-in language model answer at once, and lets nobody judge: a candidate is slower than that."""
_BODY = {"query": "cats", "documents": ["cats", "dogs"]}


class Answer(msgspec.Struct, frozen=True):
    """What one user got."""

    user: str
    status: int
    """0: no answer at all."""
    seconds: float
    arm: str | None = None
    served_by: str | None = None
    reason: str | None = None
    bucket: int | None = None


def ask(client: httpx.Client, user: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Ask for a short ranking."""
    began = time.perf_counter()
    try:
        found = client.post("/v1/rerank", json=_BODY, headers={"x-user-id": user, **(headers or {})})
    except httpx.TransportError:
        return Answer(user, 0, time.perf_counter() - began)
    bucket = found.headers.get("x-rerank-bucket", "none")
    return Answer(
        user=user,
        status=found.status_code,
        seconds=time.perf_counter() - began,
        arm=found.headers.get("x-rerank-arm"),
        served_by=found.headers.get("x-rerank-served-by"),
        reason=found.headers.get("x-rerank-reason"),
        bucket=None if bucket == "none" else int(bucket),
    )


def ask_all(url: str, users: Sequence[str], headers: Mapping[str, str] | None = None) -> list[Answer]:
    """Ask once for each of *users*, several at a time."""
    with httpx.Client(base_url=url, timeout=30) as client, ThreadPoolExecutor(8) as pool:
        return list(pool.map(lambda user: ask(client, user, headers), users))


class Callers:
    """Users who take turns without a pause, while the test does something else."""

    def __init__(self, url: str, users: Sequence[str], threads: int = 4) -> None:
        self._url = url
        self._users = itertools.cycle(users)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(threads)]
        self.answers: list[Answer] = []

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def failed(self) -> list[Answer]:
        """The first few that were not answered 200."""
        return [answer for answer in self.answers if answer.status != 200][:5]

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=30) as client:
            while not self._stop.is_set():
                with self._lock:
                    user = next(self._users)
                self.answers.append(ask(client, user))
