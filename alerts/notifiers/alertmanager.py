"""Alertmanager, API v2: one or several that form a cluster."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from alerts.alert import Severity, alert_name
from alerts.notifiers.base import NotDelivered, facts_as_lines, iso, span, web_links
from alerts.notifiers.http import post

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import httpx

    from alerts.alert import Alert

_log = structlog.get_logger(__name__)

_SEVERITY = {Severity.PAGE: "critical", Severity.WARNING: "warning", Severity.INFO: "info"}
_LABEL_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")


class Alertmanager:
    """Posts to every member of a cluster, for members do not pass alerts on to each other.

    An alert that lasts has no end, and Alertmanager ends it after its ``resolve_timeout`` (5 minutes):
    hence the posts again and again, and an alert of a guard that died does not stay for ever.
    """

    takes_updates = True

    def __init__(
        self,
        name: str,
        urls: Sequence[str],
        client: httpx.AsyncClient,
        *,
        severities: Collection[Severity] = tuple(Severity),
        headers: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
        repost_seconds: float = 60.0,
        member_timeout_seconds: float = 3.0,
    ) -> None:
        """Take *urls* without ``/api/v2``, *headers* (an ``Authorization``) and *labels* that all alerts get.

        The time for a member has to be shorter than the one for a send: one that hangs must not hide the
        others' answers.
        """
        wrong = [label for label in labels or {} if not _LABEL_NAME.fullmatch(label)]
        if wrong:
            raise ValueError(f"not the name of a label: {wrong[0]!r}")
        self.name = name
        self.severities = frozenset(severities)
        self.repost_seconds = repost_seconds
        self._urls = [f"{url.rstrip('/')}/api/v2/alerts" for url in urls]
        self._client = client
        self._headers = dict(headers or {})
        self._labels = dict(labels or {})
        self._member_timeout_seconds = member_timeout_seconds

    async def send(self, alert: Alert) -> None:
        """Post to all; taken by one it is delivered."""
        body = msgspec.json.encode([alert_body(alert, self._labels)])
        errors = [error for error in await asyncio.gather(*(self._post(url, body) for url in self._urls)) if error]
        if errors and len(errors) < len(self._urls):
            _log.warning("alertmanager.member_missed", receiver=self.name, members=len(errors), error=errors[0].reason)
            return
        if errors:
            raise NotDelivered(
                ", ".join(sorted({error.reason for error in errors})),
                retry_after_seconds=min((e.retry_after_seconds or 0.0 for e in errors), default=None),
                is_final=all(error.is_final for error in errors),
            )

    async def _post(self, url: str, body: bytes) -> NotDelivered | None:
        """Return why it was not taken; None: it was."""
        try:
            async with asyncio.timeout(self._member_timeout_seconds):
                await post(self._client, url, body, self._headers)
        except NotDelivered as exc:
            return exc
        except TimeoutError:
            return NotDelivered("no answer in time")
        return None


def alert_body(alert: Alert, labels: Mapping[str, str]) -> dict[str, Any]:
    """Return *alert* as Alertmanager takes it. Its identity is its labels, so that nothing that changes is in them."""
    links = web_links(alert)
    named = {"runbook_url": links.get("runbook"), "dashboard": links.get("dashboard")}
    times = {"startsAt": iso(alert.starts_at)}
    if alert.ends_at is not None:  # one that ends before it begins, as after a clock that jumped, is refused
        times["endsAt"] = iso(max(alert.ends_at, alert.starts_at))
    return {
        "labels": dict(labels)
        | {
            "alertname": alert_name(alert.kind),
            "severity": _SEVERITY[alert.severity],
            "flag": alert.flag,
            "incident": alert.key,
        },
        "annotations": {
            "summary": alert.title,
            "description": "\n".join([span(alert), *facts_as_lines(alert)]),
            **{name: url for name, url in named.items() if url},
        },
        **times,
        **({"generatorURL": links["dashboard"]} if "dashboard" in links else {}),
    }
