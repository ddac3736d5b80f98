"""Requests that can still be looked at, one by one: the newest of this replica, and samples of all in the store.

What is kept is who was asked, why and what it took, and document numbers with scores; no query, document or raw user.
A replica tells the store at most two requests a second: one of any, and one that went badly.
"""

from __future__ import annotations

import time
from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Any

import msgspec
from redis.exceptions import RedisError

from flags.vocabulary import Arm
from proxy.exposure import Exposure, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio import Redis
    from redis.asyncio.client import Pipeline

    from proxy.events.records import ServedRanking
    from proxy.shadow import Shadowed
    from proxy.wire.canonical import Ranked

_MOST_HERE = 500
_MOST_SCORES = 50
_STORE_SECONDS = 3600
_LISTED = 12


class SeenRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request."""

    exposure: Exposure
    replica: str
    scores: tuple[tuple[int, float], ...] = ()
    """Of the answer: document, as numbered in the request, and score; best first."""
    both: tuple[tuple[int, float, float], ...] = ()
    """Where it was shadowed: document, the user's arm's score, the other arm's."""
    shadowed_by: str = ""
    """Model of the other arm."""
    shadow_seconds: float = 0.0


def went_badly(exposure: Exposure) -> bool:
    """Tell whether somebody may want to look at it."""
    return exposure.outcome is not Outcome.OK or exposure.has_fallen_back


class _Kept:
    """What is remembered of one request: never its texts."""

    __slots__ = ("exposure", "results", "shadow")

    def __init__(self, exposure: Exposure, results: Sequence[Ranked]) -> None:
        self.exposure = exposure
        self.results = results
        self.shadow: Shadowed | None = None


class RecentRequests:
    """Remembers served requests, and tells the store of a few."""

    def __init__(self, store: Redis, prefix: str, instance_id: str) -> None:
        self._store = store
        self._prefix = f"{{{prefix}}}:request:"
        self._list_key = f"{{{prefix}}}:requests"
        self._instance_id = instance_id
        self._seen: OrderedDict[str, _Kept] = OrderedDict()
        self._to_tell: dict[bool, _Kept] = {}
        self._late: deque[_Kept] = deque(maxlen=4)
        """Shadowed since they were told: told once more, with both scores."""

    def observe_ranking(self, ranking: ServedRanking) -> None:
        """Remember one; what is shown of it is made when somebody asks."""
        kept = _Kept(ranking.exposure, ranking.results)
        self._seen[ranking.exposure.request_id] = kept
        if len(self._seen) > _MOST_HERE:
            self._seen.popitem(last=False)
        self._to_tell.setdefault(went_badly(ranking.exposure), kept)

    def shadowed(self, found: Shadowed) -> None:
        """Add the other arm's scores."""
        kept = self._seen.get(found.request_id)
        if kept is not None:
            kept.shadow = found
            self._late.append(kept)

    def ask(self, pipe: Pipeline) -> None:
        """Tell the store."""
        told = [self._shown(each) for each in (*self._to_tell.values(), *self._late)]
        self._to_tell = {}
        self._late.clear()
        for each in told:
            request_id = each.exposure.request_id
            pipe.set(self._prefix + request_id, msgspec.json.encode(each).decode(), ex=_STORE_SECONDS)
            pipe.lpush(self._list_key, _line(each))
        if told:
            pipe.ltrim(self._list_key, 0, 199)
            pipe.expire(self._list_key, _STORE_SECONDS)

    def take(self, answers: Sequence[Any]) -> None:
        """Take nothing."""

    async def find(self, request_id: str) -> SeenRequest | None:
        """Return one request; None: nobody kept it.

        Raises:
            RedisError, OSError: it is not here, and the store cannot be asked.

        """
        if (kept := self._seen.get(request_id)) is not None:
            return self._shown(kept)
        text: Any = await self._store.get(self._prefix + request_id)
        try:
            return msgspec.json.decode(text, type=SeenRequest) if text else None
        except msgspec.MsgspecError:  # of another version
            return None

    async def newest(self) -> list[SeenLine]:
        """Return the newest that can be looked at, those of all replicas where the store answers."""
        try:
            rows: Any = await self._store.lrange(self._list_key, 0, 199)
            found = [line for text in rows if (line := _read(text)) is not None]
        except (RedisError, OSError):
            found = []
        if not found:
            found = [_line_of(self._shown(each)) for each in reversed(self._seen.values())]
        by_id = {line.request_id: line for line in reversed(found)}
        lines = sorted(by_id.values(), key=lambda line: -line.at)
        badly = [line for line in lines if line.went_badly][:_LISTED]
        shadowed = [line for line in lines if line.is_shadowed and line not in badly][:_LISTED]
        others = [line for line in lines if line not in badly and line not in shadowed][:_LISTED]
        return sorted([*badly, *shadowed, *others], key=lambda line: -line.at)

    def _shown(self, kept: _Kept) -> SeenRequest:
        shadow = kept.shadow
        return SeenRequest(
            exposure=kept.exposure,
            replica=self._instance_id,
            scores=tuple((each.index, round(each.score, 6)) for each in kept.results[:_MOST_SCORES]),
            both=shadow.scores[:_MOST_SCORES] if shadow else (),
            shadowed_by=shadow.attempt.model if shadow else "",
            shadow_seconds=shadow.attempt.seconds if shadow else 0.0,
        )


class SeenLine(msgspec.Struct, frozen=True, kw_only=True):
    """One request in a list."""

    at: float
    request_id: str
    arm: Arm
    outcome: Outcome
    seconds: float
    went_badly: bool
    is_shadowed: bool


def _line_of(seen: SeenRequest) -> SeenLine:
    exposure = seen.exposure
    return SeenLine(
        at=exposure.started_at,
        request_id=exposure.request_id,
        arm=exposure.assignment.arm,
        outcome=exposure.outcome,
        seconds=exposure.seconds,
        went_badly=went_badly(exposure),
        is_shadowed=bool(seen.both),
    )


def _line(seen: SeenRequest) -> str:
    return msgspec.json.encode(_line_of(seen)).decode()


def _read(text: str) -> SeenLine | None:
    try:
        found = msgspec.json.decode(text, type=SeenLine)
    except msgspec.MsgspecError:
        return None
    return found if time.time() - found.at < _STORE_SECONDS else None
