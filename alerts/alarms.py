"""Keeps the outbox in step with what should be told, and tells it. Every replica runs one; the leader acts.

With the store away there is no outbox: then the last leader tells the receivers itself, and again until it
is over; they fold what comes under one key.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import msgspec
import structlog
from redis.exceptions import RedisError

from alerts.alert import Alert, Severity
from alerts.delivery import UNDELIVERED
from alerts.notifiers.base import NotDelivered
from alerts.verdict import GRACE_SECONDS, HoldReason
from alerts.wanted import wanted
from flags.tasks import end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from alerts.guard import Lease
    from alerts.notifiers.base import Notifier
    from alerts.outbox import Dispatcher, Outbox
    from alerts.wanted import Links, Situation

_log = structlog.get_logger(__name__)

_TICK_SECONDS = 1.0
_IDLE_TICKS = 30
"""With nothing to tell, the outbox is looked at only so often."""
_AWAY_REPOST_SECONDS = 60.0
_CLEAR_SECONDS = 30.0
"""A warning that comes and goes is one: it is over when it was gone for so long. A page is over at once."""


_FLAPPING = {"fallback_budget", *(reason.value for reason in HoldReason), "ready_to_advance"}


class Alarms:
    """One loop a replica."""

    def __init__(
        self,
        *,
        flag: str,
        outbox: Outbox,
        dispatcher: Dispatcher,
        notifiers: Sequence[Notifier],
        lease: Lease,
        look: Callable[[], Situation],
        store_error: Callable[[], str | None],
        links: Links,
    ) -> None:
        self._flag = flag
        self._outbox = outbox
        self._dispatcher = dispatcher
        self._notifiers = notifiers
        self._lease = lease
        self._look = look
        self._store_error = store_error
        self._links = links
        self._task: asyncio.Task[None] | None = None
        self._was_leader = False
        self._away_since: float | None = None
        self._away_told: dict[str, float] = {}
        self._away_alert: Alert | None = None
        self._gone_since: dict[str, float] = {}
        self._idle = 0
        self.active: dict[str, Alert] = {}
        """What is being told, as the leader last saw it."""

    def start(self) -> None:
        """Begin, in the background."""
        self._task = asyncio.create_task(self._run(), name="alarms")

    async def close(self) -> None:
        """Stop; what is not told yet, the next leader tells."""
        if self._task is not None:
            await end(self._task)
            await self._dispatcher.close()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            try:
                await self.tick(time.time())
            except (RedisError, OSError) as exc:
                _log.warning("alarms.store_away", error=type(exc).__name__)
            except Exception:  # noqa: BLE001 - whatever one turn meets, the next is tried
                _log.exception("alarms.failed")

    async def tick(self, now: float) -> None:
        """Put what is news into the outbox, and let the dispatcher send what is due."""
        await self._watch_store(now)
        if not self._lease.is_leader:
            self._idle = _IDLE_TICKS
            return
        self._was_leader = True
        should = wanted(self._look(), self._links, now)
        is_quiet = not should and not any(not each.is_over for each in self.active.values())
        self._idle = self._idle + 1 if is_quiet else _IDLE_TICKS
        if self._idle < _IDLE_TICKS:
            return
        self._idle = 0
        known, _ = await self._outbox.all()
        for alert in changes(self._lasting(should, known, now), known, now):
            if await self._outbox.put(alert):
                known[alert.key] = alert
                _log.warning("alert.raised" if not alert.is_over else "alert.over", key=alert.key, title=alert.title)
        self.active = known
        await self._dispatcher.once(now)

    def _lasting(self, should: dict[str, Alert], known: dict[str, Alert], now: float) -> dict[str, Alert]:
        """Return *should* with the warnings that are only just gone."""
        gone = {
            key: each
            for key, each in known.items()
            if key not in should and not each.is_over and each.severity is not Severity.PAGE and each.kind in _FLAPPING
        }
        self._gone_since = {key: self._gone_since.get(key, now) for key in gone}
        just = {key: each for key, each in gone.items() if now - self._gone_since[key] < _CLEAR_SECONDS}
        return should | just

    async def _watch_store(self, now: float) -> None:
        """Tell it directly while the store is away, on the replica that led last or holds a rollback by itself."""
        if self._store_error() is None:
            if self._away_told and self._away_alert is not None:
                await self._tell_directly(self._away_alert.ended(now), now)
            self._away_since = None
            if not self._lease.is_leader:
                self._was_leader = False
            return
        self._away_since = self._away_since or now
        is_mine = self._was_leader or self._look().is_undelivered
        if is_mine and now - self._away_since >= GRACE_SECONDS[HoldReason.STORE_AWAY]:
            alert = self._away(self._away_since)
            self._away_alert = alert.follows(self._away_alert) if self._away_told and self._away_alert else alert
            await self._tell_directly(self._away_alert, now)

    def _away(self, since: float) -> Alert:
        situation = self._look()
        alert = Alert(
            key=f"hold:{HoldReason.STORE_AWAY}:{self._flag}",
            kind=HoldReason.STORE_AWAY.value,
            severity=Severity.WARNING,
            flag=self._flag,
            title=f"{self._flag}: the shared store cannot be reached: nobody is judged, nothing is promoted.",
            starts_at=self._away_since or since,
            facts=(
                ("Done already", "every replica goes on with the split, and the rollback, that it knew last"),
                ("Next", "Look at Redis; nothing else has to be done."),
            ),
        )
        if situation.is_undelivered:
            facts = (*alert.facts, ("Mind", "a rollback holds on one replica and waits for the store"))
            alert = msgspec.structs.replace(alert, facts=facts, severity=Severity.PAGE)
        return alert

    async def _tell_directly(self, alert: Alert, now: float) -> None:
        for notifier in self._notifiers:
            is_due = now - self._away_told.get(notifier.name, 0.0) >= (notifier.repost_seconds or _AWAY_REPOST_SECONDS)
            is_told = notifier.name in self._away_told
            is_news = is_told if alert.is_over else not is_told or (notifier.repost_seconds is not None and is_due)
            if alert.severity not in notifier.severities or not is_news:
                continue
            try:
                async with asyncio.timeout(5.0):
                    await notifier.send(alert)
            except (NotDelivered, TimeoutError) as exc:
                _log.warning("alert.not_delivered", receiver=notifier.name, key=alert.key, error=type(exc).__name__)
            else:
                self._away_told[notifier.name] = now
                if alert.is_over:
                    del self._away_told[notifier.name]


def changes(should: dict[str, Alert], known: dict[str, Alert], now: float) -> list[Alert]:
    """Return what has to go into the outbox: what is new or says something else, and what is over."""
    found = []
    for key, alert in should.items():
        before = known.get(key)
        if before is None:
            found.append(alert)
        elif before.is_over:
            found.append(msgspec.structs.replace(alert, version=before.version + 1))
        elif (after := alert.follows(before)) is not before:
            found.append(after)
    gone = [each for key, each in known.items() if key not in should and each.kind != UNDELIVERED]
    return found + [ended for each in gone if (ended := each.ended(now)) is not each]
