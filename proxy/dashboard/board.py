"""What the pages are made of, put together once for a process: sessions, the past, and fragments that many look at."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError

from proxy.dashboard.charts import Mark
from proxy.dashboard.guardrail_rows import row_of, rows_of
from proxy.dashboard.incident import incident_of
from proxy.dashboard.past import Past
from proxy.dashboard.plots import charts_around, charts_of, marks_of, money_so_far
from proxy.dashboard.render import fragment
from proxy.dashboard.session import EndedSessions, Sessions
from proxy.dashboard.state import state_of
from proxy.dashboard.tiers import FINEST, TIERS, Tier

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from alerts.report import Report
    from proxy.dashboard.guardrail_rows import Row
    from proxy.dashboard.recent import RecentRequests, SeenRequest
    from proxy.parts import Parts

_SHORTEST_PREFIX = 6
_STATE_SECONDS = 1.5
_CHART_SECONDS = 4.5


class Board:
    """The dashboard of one process."""

    def __init__(self, parts: Parts, recent: RecentRequests) -> None:
        prefix = parts.settings.rollout_prefix
        self.parts = parts
        self.recent = recent
        self.sessions = Sessions(parts.keys, parts.salt)
        self.wrong_tokens = asyncio.Lock()
        self.ended = EndedSessions(parts.store, prefix)
        self.past = Past(parts.store, prefix, parts.rollout.control, parts.alerting.outbox)
        self._kept: dict[tuple[str, str], tuple[float, str]] = {}

    @property
    def report(self) -> Report | None:
        """What the guard last found."""
        return self.parts.guard.report if self.parts.guard else None

    async def charts(self, tier: Tier) -> dict[str, Any]:
        """Return the plots of a span of time, what was saved so far, and whether nothing is known of it."""
        points = await self.past.points(tier)
        marks = marks_of(await self.past.history())
        charts = charts_of(points, marks, tier)
        since = charts[0].since if charts else 0.0
        return {
            "charts": charts,
            "marks": [mark for mark in marks if mark.at >= since],
            "money": await money_so_far(self.past, TIERS),
            "is_empty": not points,
        }

    async def rows(self) -> list[Row]:
        """Return the guardrails."""
        return rows_of(self.parts.settings, self.report, await self.past.points(FINEST))

    async def incident(self, rollback_id: str) -> dict[str, Any] | None:
        """Return what the page of a rollback shows; None: the trail knows no such rollback."""
        past, settings = self.past, self.parts.settings
        entries = await past.history()
        if not any(entry.rollback_id == rollback_id for entry in entries):
            past.forget()  # it may be younger than what was last read
            entries = await past.history()
        kept = await past.incident(rollback_id)
        _, deliveries = await past.alerts()
        points = kept.points if kept else await past.points(FINEST)
        view = incident_of(rollback_id, entries, kept, deliveries, points, time.time())
        if view is None:
            return None
        faults = [Mark(each.at, each.words, "action") for each in view.moments if each.kind == "fault"]
        return {
            "view": view,
            "flag": settings.flag.key,
            "row": row_of(settings, view.finding, view.points) if view.finding else None,
            "charts": charts_around(view.points, [*marks_of(entries), *faults]) if view.points else [],
            "has_receivers": bool(self.parts.alerting.notifiers),
            "traces_url": settings.alerts.traces_url,
        }

    async def incident_html(self, rollback_id: str) -> str:
        """Return the page of a rollback, without the form."""

        async def make() -> str:
            found = await self.incident(rollback_id)
            return "" if found is None else fragment("_incident.html", **found)

        return await self._fresh("incident", rollback_id, _STATE_SECONDS, make)

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
            return fragment("_charts.html", **await self.charts(tier))

        return await self._fresh("charts", tier.name, _CHART_SECONDS, make)

    async def replicas_html(self) -> str:
        """Return the replicas' table."""

        async def make() -> str:
            status = self.parts.rollout.status()
            return fragment("_replicas.html", replicas=status["replicas"], leader=status["leader"])

        return await self._fresh("replicas", "", _STATE_SECONDS, make)

    async def find(self, request_id: str) -> tuple[SeenRequest | None, str]:
        """Return one request, or why there is none: from memory, the store, or the event log.

        The first characters of one of the newest will do.
        """
        ids = [line.request_id for line in await self.recent.newest()]
        begun = [each for each in ids if each.startswith(request_id.lower())]
        if len(begun) == 1 and len(request_id) >= _SHORTEST_PREFIX:
            request_id = begun[0]
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
