"""The event log of one process, or nothing where it is off: the rest of the proxy need not know which."""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from proxy.errors import InvalidSettings
from proxy.events.records import Kind
from proxy.secrets import shown_url

if TYPE_CHECKING:
    from alerts.guard import Lease
    from proxy.events.event_log import EventLog
    from proxy.events.records import FeedbackEvent
    from proxy.events.retention import Retention
    from proxy.observers import RankingObserver
    from proxy.otel_observer import OtelObserver
    from proxy.settings import Settings

_PACKAGES = ("pyarrow", "fsspec")


def check_events(settings: Settings) -> None:
    """Pass settings whose event log this machine can open; whether it may write there shows when it writes.

    Raises:
        InvalidSettings: a package is missing.

    """
    if settings.events.is_on:
        require_packages("$.events.is_on")
        from proxy.events.storage import Storage  # noqa: PLC0415 - comes with the extra

        Storage(settings.events_url)


def require_packages(what: str) -> None:
    """Pass where the extra is installed.

    Raises:
        InvalidSettings: it is not; *what* needs it.

    """
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        raise InvalidSettings(f"{what}: needs {' and '.join(missing)}: pip install 'rerank-canary[events]'")


class Events:
    """What of the event log belongs to one process."""

    def __init__(self, settings: Settings, salt: bytes, instance_id: str, lease: Lease) -> None:
        """Make it; nothing is written before `start`.

        Raises:
            InvalidSettings: it is on, and a package is missing or the URL is none.

        """
        self._url = settings.events_url
        self.log: EventLog | None = None
        self.retention: Retention | None = None
        if not settings.events.is_on:
            return
        require_packages("$.events.is_on")
        from proxy.events.event_log import EventLog  # noqa: PLC0415 - comes with the extra
        from proxy.events.redaction import Redaction  # noqa: PLC0415
        from proxy.events.retention import Retention  # noqa: PLC0415
        from proxy.events.storage import Storage  # noqa: PLC0415

        storage = Storage(self._url)
        self.log = EventLog(settings.events, storage, Redaction(settings.events, salt), instance_id)
        if settings.events.keep_days is not None:
            self.retention = Retention(storage, settings.events.keep_days, lease)

    @property
    def ranking_observers(self) -> list[RankingObserver]:
        """Who is to be handed rankings with their texts."""
        return [self.log] if self.log else []

    def record_feedback(self, event: FeedbackEvent) -> None:
        """Keep what a user said, if anything is kept. Does not block; called on the event loop."""
        if self.log is not None:
            self.log.record_feedback(event)

    def start(self) -> None:
        """Begin, in the background."""
        if self.log is not None:
            self.log.start()
        if self.retention is not None:
            self.retention.start()

    async def close(self) -> None:
        """Write what is held."""
        if self.retention is not None:
            await self.retention.close()
        if self.log is not None:
            await asyncio.to_thread(self.log.close)

    def status(self) -> dict[str, Any] | None:
        """Return what an operator asks first; None: it is off."""
        if self.log is None:
            return None
        counts = self.log.counts
        return {
            "url": shown_url(self._url),
            "written": {kind.value: counts.written[kind] for kind in Kind},
            "dropped": {kind.value: counts.dropped(kind) for kind in Kind},
            "held_rows": counts.held_rows,
            "files": counts.files,
            "write_failures": counts.failures,
            "error": counts.error,
            "deleted_hours": self.retention.deleted if self.retention else 0,
        }


def export_events(telemetry: OtelObserver, events: Events) -> None:
    """Export the state of the event log; nothing where it is off."""
    log, retention = events.log, events.retention
    if log is None:
        return
    counts, gauge = log.counts, telemetry.gauge

    def label(kind: Kind) -> dict[str, str]:
        return {"rerank.events.kind": kind.value}

    gauge("rerank.events.written", "{row}", "Rows written", lambda: [(counts.written[k], label(k)) for k in Kind])
    gauge("rerank.events.dropped", "{row}", "Rows lost", lambda: [(counts.dropped(k), label(k)) for k in Kind])
    gauge("rerank.events.held", "{row}", "Rows in memory, unwritten", lambda: [(counts.held_rows, {})])
    gauge("rerank.events.held_bytes", "By", "Memory that they take, about", lambda: [(counts.held_bytes, {})])
    gauge("rerank.events.write_failures", "{try}", "Tries to write that failed", lambda: [(counts.failures, {})])
    gauge("rerank.events.up", "1", "1 while the last try to write passed", lambda: [(float(counts.error is None), {})])
    if retention is not None:
        gauge(
            "rerank.events.delete_failures", "{try}", "Tries to delete that failed", lambda: [(retention.failures, {})]
        )
