"""What was said before: each thing that is said of a ranking counts once, whichever replica hears it again."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import structlog
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

_log = structlog.get_logger(__name__)
_MOST_REMEMBERED = 50_000
"""Of this replica's own memory, while the store is away."""
_CLOSE_SECONDS = 5.0


class _Claim(msgspec.Struct, frozen=True):
    mark: bytes
    words: Sequence[str]
    answer: asyncio.Future[list[bool]]


class Doubles:
    """A set in the store for each ranking, for as long as feedback is taken.

    What comes while a round trip is under way goes together in the next: so that one connection and one round trip at a
    time do for thousands of claims a second.
    """

    def __init__(
        self, store: Redis, prefix: str, window_seconds: float, store_error: Callable[[], str | None] = lambda: None
    ) -> None:
        """Take *store_error*, which says why the store is away: this process then remembers by itself at once."""
        self._store = store
        self._prefix = f"{{{prefix}}}:feedback:"
        self._seconds = max(1, round(window_seconds))
        self._store_error = store_error
        self._waiting: list[_Claim] = []
        self._task: asyncio.Task[None] | None = None
        self._seen: OrderedDict[tuple[bytes, str], None] = OrderedDict()

    async def claim(self, mark: bytes, words: Sequence[str]) -> list[bool]:
        """Return for each of *words* whether it is said of the ranking *mark* for the first time."""
        if not words:
            return []
        answer: asyncio.Future[list[bool]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Claim(mark, words, answer))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="feedback-doubles")
        return await answer

    async def _run(self) -> None:
        while self._waiting:
            claims, self._waiting = self._waiting, []
            try:
                answers = await self._ask(claims)
            except BaseException as exc:  # nobody may wait for ever
                for claim in claims:
                    claim.answer.cancel(f"feedback: {type(exc).__name__}")
                raise
            for claim, answer in zip(claims, answers, strict=True):
                if not claim.answer.done():
                    claim.answer.set_result(answer)

    async def _ask(self, claims: Sequence[_Claim]) -> list[list[bool]]:
        if self._store_error() is None:
            try:
                return await self._ask_store(claims)
            except (RedisError, OSError) as exc:
                _log.warning("feedback.doubles_by_itself", error=type(exc).__name__)
        return [[self._is_new(claim.mark, word) for word in claim.words] for claim in claims]

    async def _ask_store(self, claims: Sequence[_Claim]) -> list[list[bool]]:
        async with self._store.pipeline(transaction=False) as pipe:
            for claim in claims:
                key = f"{self._prefix}{claim.mark.hex()}"
                for word in claim.words:
                    pipe.sadd(key, word)
                pipe.expire(key, self._seconds)
            answers = iter(await pipe.execute())
        found = []
        for claim in claims:
            found.append([next(answers) == 1 for _ in claim.words])
            next(answers)
        return [
            [is_new and self._is_new(claim.mark, word) for is_new, word in zip(news, claim.words, strict=True)]
            if self._seen
            else news
            for claim, news in zip(claims, found, strict=True)
        ]

    def _is_new(self, mark: bytes, word: str) -> bool:
        if (mark, word) in self._seen:
            return False
        self._seen[mark, word] = None
        if len(self._seen) > _MOST_REMEMBERED:
            self._seen.popitem(last=False)
        return True

    async def close(self) -> None:
        """Answer what waits."""
        if self._task is not None:
            await asyncio.wait([self._task], timeout=_CLOSE_SECONDS)
