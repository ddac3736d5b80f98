"""What a page shows of the past, read from the store at most every other second however many look."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec
import structlog
from redis.exceptions import RedisError

from proxy.dashboard.recorder import Incident, points_of
from proxy.dashboard.tiers import incident_key, keys_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from redis.asyncio import Redis

    from alerts.alert import Alert
    from alerts.delivery import Delivery
    from alerts.outbox import Outbox
    from alerts.trend import Point
    from flags.ramp_control import RampControl
    from flags.record import AuditEntry
    from proxy.dashboard.tiers import Tier

_log = structlog.get_logger(__name__)

_FRESH_SECONDS = 2.0
_NEVER = -1e9
T = TypeVar("T")


class _Kept(Generic[T]):
    """What was last read, and when."""

    def __init__(self, nothing: T) -> None:
        self.value = nothing
        self.at = _NEVER


class Past:
    """Reads points, audit entries and alerts. With the store away it says what it last knew, and `error` why."""

    def __init__(self, store: Redis, prefix: str, control: RampControl, outbox: Outbox) -> None:
        self._store = store
        self._prefix = prefix
        self._control = control
        self._outbox = outbox
        self._points: dict[str, _Kept[list[Point]]] = {}
        self._entries: dict[int, _Kept[list[AuditEntry]]] = {}
        self._alerts: _Kept[tuple[dict[str, Alert], dict[str, Delivery]]] = _Kept(({}, {}))
        self.error: str | None = None

    async def points(self, tier: Tier) -> list[Point]:
        """Return the points of a series, the oldest first."""

        async def read() -> list[Point]:
            series, _ = keys_of(self._prefix)
            rows: Any = await self._store.xrevrange(f"{series}:{tier.name}", count=tier.points)
            oldest = time.time() - tier.seconds * tier.points
            return [point for point in points_of(rows) if point.at >= oldest]

        return await self._fresh(self._points.setdefault(tier.name, _Kept([])), read)

    async def covering(self, since: float, tiers: Sequence[Tier]) -> list[Point]:
        """Return the points of the finest series that reaches back to a moment, or of the longest."""
        age = time.time() - since
        tier = next((each for each in tiers if each.seconds * each.points >= age), tiers[-1])
        return await self.points(tier)

    async def history(self, count: int = 1000) -> list[AuditEntry]:
        """Return the newest audit entries, the newest first."""
        kept = self._entries.setdefault(count, _Kept([]))
        return await self._fresh(kept, lambda: self._control.history(count))

    async def alerts(self) -> tuple[dict[str, Alert], dict[str, Delivery]]:
        """Return alerts and deliveries."""
        return await self._fresh(self._alerts, self._outbox.all)

    async def incident(self, rollback_id: str) -> Incident | None:
        """Return what was around a rollback; None: nothing was kept."""
        try:
            text: Any = await self._store.get(incident_key(self._prefix, rollback_id))
            return msgspec.json.decode(text, type=Incident) if text else None
        except (RedisError, OSError, msgspec.MsgspecError) as exc:
            self.error = f"The shared store cannot be reached ({type(exc).__name__})."
            return None

    def forget(self) -> None:
        """Read everything anew when it is next asked for."""
        for points in self._points.values():
            points.at = _NEVER
        for entries in self._entries.values():
            entries.at = _NEVER
        self._alerts.at = _NEVER

    async def _fresh(self, kept: _Kept[T], read: Callable[[], Awaitable[T]]) -> T:
        if time.monotonic() - kept.at < _FRESH_SECONDS:
            return kept.value
        kept.at = time.monotonic()  # others who ask meanwhile get what there is
        try:
            kept.value = await read()
        except Exception as exc:  # noqa: BLE001 - a page is shown whatever the store says
            self.error = f"The shared store cannot be reached ({type(exc).__name__}): what is shown is what was known."
            _log.info("dashboard.store_away", error=type(exc).__name__)
        else:
            self.error = None
        return kept.value
