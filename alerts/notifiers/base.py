"""What all ways to tell people share: the port, its error, and an alert as text."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:
    from collections.abc import Collection

    from alerts.alert import Alert, Severity


class NotDelivered(Exception):
    """A receiver did not take an alert; *reason* holds no secret and no URL."""

    def __init__(self, reason: str, *, retry_after_seconds: float | None = None, is_final: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds
        self.is_final = is_final
        """Whether the same again would be refused again."""


class Receiver(Protocol):
    """Somebody who is told."""

    @property
    def name(self) -> str:
        """Unique among the receivers, without ``|``; stays the same over restarts."""

    @property
    def severities(self) -> Collection[Severity]:
        """Of the alerts that go to it."""

    @property
    def repost_seconds(self) -> float | None:
        """After which it has to hear again of an alert that lasts; None: it does not forget."""

    @property
    def takes_updates(self) -> bool:
        """Whether it folds a change into the incident that it has; if not, each would be one more message."""


class Notifier(Receiver, Protocol):
    """Tells one receiver."""

    async def send(self, alert: Alert) -> None:
        """Tell of *alert*, or that it is over; the receiver folds all under its key where it can.

        Raises:
            NotDelivered: the receiver did not take it.

        """


class Acknowledgement(msgspec.Struct, frozen=True):
    """Somebody at a receiver has seen an alert."""

    alert_key: str
    who: str
    at: float
    """Unix seconds."""
    is_closed: bool
    """Whether the incident was closed there: an update would open a new one."""


def as_text(alert: Alert) -> str:
    """Return all that a person needs, a line each: what, since when, the facts, where to look."""
    links = [f"{label}: {url}" for label, url in alert.links]
    return "\n".join([headline(alert), span(alert), *facts_as_lines(alert), *links])


def headline(alert: Alert) -> str:
    """Return what happened in one line, with how urgent it is, or that it is over."""
    return f"[{'over' if alert.is_over else alert.severity}] {alert.title}"


def span(alert: Alert) -> str:
    """Return since when, or from when to when, in UTC."""
    if alert.ends_at is None:
        return f"Since {_clock(alert.starts_at)} UTC"
    return f"From {_clock(alert.starts_at)} to {_clock(alert.ends_at)} UTC"


def facts_as_lines(alert: Alert) -> list[str]:
    """Return one line a fact."""
    return [f"{label}: {text}" for label, text in alert.facts]


def web_links(alert: Alert) -> dict[str, str]:
    """Return the links that are URLs of pages, by their labels: receivers refuse a whole alert for any other."""
    return {
        label: url
        for label, url in alert.links
        if url.startswith(("http://", "https://")) and url.isprintable() and " " not in url
    }


def iso(at: float) -> str:
    """Return Unix seconds in the form of RFC 3339, in UTC."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")


def _clock(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")
