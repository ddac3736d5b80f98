"""What the pages are made of, put together once for a process: sessions, the past, and fragments that many look at."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from proxy.dashboard.guardrail_rows import rows_of
from proxy.dashboard.past import Past
from proxy.dashboard.plots import charts_of, marks_of, money_so_far
from proxy.dashboard.render import fragment
from proxy.dashboard.session import Sessions
from proxy.dashboard.state import state_of
from proxy.dashboard.tiers import FINEST, TIERS, Tier

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from alerts.report import Report
    from alerts.trend import Money
    from proxy.dashboard.charts import Chart
    from proxy.dashboard.guardrail_rows import Row
    from proxy.dashboard.recent import RecentRequests, SeenRequest
    from proxy.parts import Parts

_STATE_SECONDS = 1.5
_CHART_SECONDS = 4.5


class Board:
    """The dashboard of one process."""

    def __init__(self, parts: Parts, recent: RecentRequests) -> None:
        prefix = parts.settings.rollout_prefix
        self.parts = parts
        self.recent = recent
        self.sessions = Sessions(parts.keys, parts.salt)
        self.past = Past(parts.store, prefix, parts.rollout.control, parts.alerting.outbox)
        self._kept: dict[tuple[str, str], tuple[float, str]] = {}

    @property
    def report(self) -> Report | None:
        """What the guard last found."""
        return self.parts.guard.report if self.parts.guard else None

    async def charts(self, tier: Tier) -> tuple[list[Chart], Money, bool]:
        """Return the plots of a span of time, what was saved so far, and whether nothing is known of it."""
        points = await self.past.points(tier)
        marks = marks_of(await self.past.history())
        return charts_of(points, marks, tier), await money_so_far(self.past, TIERS), not points

    async def rows(self) -> list[Row]:
        """Return the guardrails."""
        return rows_of(self.parts.settings, self.report, await self.past.points(FINEST))

    async def state_html(self, role: str) -> str:
        """Return what stands above the plots."""

        async def make() -> str:
            return fragment("_state.html", state=state_of(self.parts, role))

        return await self._fresh("state", "", _STATE_SECONDS, make)

    async def actions_html(self, role: str) -> str:
        """Return the buttons of somebody with *role*."""

        async def make() -> str:
            return fragment("_actions.html", state=state_of(self.parts, role))

        return await self._fresh("actions", role, _STATE_SECONDS, make)

    async def guardrails_html(self) -> str:
        """Return the guardrails' table."""

        async def make() -> str:
            return fragment("_guardrails.html", rows=await self.rows(), is_on=self.parts.guard is not None)

        return await self._fresh("guardrails", "", _CHART_SECONDS, make)

    async def charts_html(self, tier: Tier) -> str:
        """Return the plots of a span of time."""

        async def make() -> str:
            charts, money, is_empty = await self.charts(tier)
            return fragment("_charts.html", charts=charts, money=money, is_empty=is_empty)

        return await self._fresh("charts", tier.name, _CHART_SECONDS, make)

    async def replicas_html(self) -> str:
        """Return the replicas' table."""

        async def make() -> str:
            status = self.parts.rollout.status()
            return fragment("_replicas.html", replicas=status["replicas"], leader=status["leader"])

        return await self._fresh("replicas", "", _STATE_SECONDS, make)

    async def find(self, request_id: str) -> tuple[SeenRequest | None, str]:
        """Return one request, or why there is none: from memory, the store, or the event log."""
        error = f"No request {request_id} is kept."
        try:
            if (seen := await self.recent.find(request_id)) is not None:
                return seen, ""
        except (RedisError, OSError):
            error = "It is not among the newest of this replica, and the shared store cannot be asked."
        if self.parts.events.log is None:
            return None, error
        from proxy.dashboard.logged import find_logged  # noqa: PLC0415 - comes with the extra
        from proxy.events.reading import UnreadableEvents  # noqa: PLC0415

        try:
            seen = await asyncio.to_thread(find_logged, self.parts.settings.events_url, request_id, time.time())
        except UnreadableEvents as exc:
            return None, f"The event log cannot be read: {exc}"
        return seen, "" if seen else error

    def forget(self) -> None:
        """Make everything anew for the next who looks: something was changed here."""
        self._kept.clear()
        self.past.forget()

    async def _fresh(self, name: str, variant: str, seconds: float, make: Callable[[], Awaitable[str]]) -> str:
        """Return a fragment that is made once, however many look."""
        at, text = self._kept.get((name, variant), (-1e9, ""))
        if time.monotonic() - at >= seconds:
            text = await make()
            self._kept[name, variant] = (time.monotonic(), text)
        return text
