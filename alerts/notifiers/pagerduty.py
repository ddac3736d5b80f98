"""PagerDuty: Events API v2 to tell it, webhooks V3 to hear who has seen it."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from alerts.alert import Severity
from alerts.notifiers.base import Acknowledgement, iso, web_links
from alerts.notifiers.http import post

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    import httpx

    from alerts.alert import Alert

EVENTS_URL = "https://events.pagerduty.com"
_SEVERITY = {Severity.PAGE: "critical", Severity.WARNING: "warning", Severity.INFO: "info"}
_LONGEST_SUMMARY = 1024
_LONGEST_KEY = 255


class PagerDuty:
    """Opens one incident a key, adds what changes to it, and resolves it."""

    repost_seconds = None

    def __init__(
        self,
        name: str,
        routing_key: str,
        client: httpx.AsyncClient,
        *,
        severities: Collection[Severity] = (Severity.PAGE,),
        url: str = EVENTS_URL,
        takes_updates: bool = True,
    ) -> None:
        """Take the integration key of an Events API v2 integration; *url* is another one in the EU."""
        self.name = name
        self.severities = frozenset(severities)
        self.takes_updates = takes_updates
        self._routing_key = routing_key
        self._url = f"{url.rstrip('/')}/v2/enqueue"
        self._client = client

    async def send(self, alert: Alert) -> None:
        """Trigger or resolve; PagerDuty takes events with 202 and nothing else."""
        body = msgspec.json.encode({"routing_key": self._routing_key, **event(alert)})
        await post(self._client, self._url, body, ok=202)


def event(alert: Alert) -> dict[str, Any]:
    """Return *alert* as an event, all but its routing key."""
    dedup_key = alert.key[:_LONGEST_KEY]
    if alert.is_over:
        return {"event_action": "resolve", "dedup_key": dedup_key}
    links = web_links(alert)
    return {
        "event_action": "trigger",
        "dedup_key": dedup_key,
        "client": "rerank-canary",
        **({"client_url": links["dashboard"]} if "dashboard" in links else {}),
        "payload": {
            "summary": alert.title[:_LONGEST_SUMMARY],
            "source": alert.flag,
            "severity": _SEVERITY[alert.severity],
            "timestamp": iso(alert.starts_at),
            "component": "rerank-canary",
            "group": alert.flag,
            "class": alert.kind,
            "custom_details": {**alert.details, **dict(alert.facts)},
        },
        "links": [{"href": url, "text": label} for label, url in links.items()],
    }


class _Agent(msgspec.Struct):
    summary: str = ""


class _Incident(msgspec.Struct):
    incident_key: str | None = None


class _Event(msgspec.Struct):
    event_type: str
    occurred_at: datetime
    data: _Incident
    agent: _Agent | None = None


class _Webhook(msgspec.Struct):
    event: _Event


def acknowledgement_of(body: bytes, headers: Mapping[str, str], secret: str) -> Acknowledgement | None:
    """Return who acknowledged or closed which alert by a webhook V3; None: it is of something else, or not signed.

    An incident's ``incident_key`` is the ``dedup_key`` of the event that opened it.
    """
    if not is_signed(body, headers, secret):
        return None
    try:
        found = msgspec.json.decode(body, type=_Webhook).event
    except msgspec.MsgspecError:
        return None
    is_closed = found.event_type == "incident.resolved"
    key = found.data.incident_key
    if not key or not (is_closed or found.event_type == "incident.acknowledged"):
        return None
    who = (found.agent and found.agent.summary) or "PagerDuty"
    return Acknowledgement(key, who, found.occurred_at.timestamp(), is_closed)


def is_signed(body: bytes, headers: Mapping[str, str], secret: str) -> bool:
    """Tell whether PagerDuty signed *body*: one of the signatures is ``v1=`` and its HMAC-SHA256 in hex."""
    header = next((value for name, value in headers.items() if name.lower() == "x-pagerduty-signature"), "")
    expected = b"v1=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest().encode()
    return bool(secret) and any(hmac.compare_digest(expected, part.strip().encode()) for part in header.split(","))
