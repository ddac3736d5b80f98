"""Who can be told, and how each is configured."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from alerts.notifiers.pagerduty import EVENTS_URL
from proxy.bounds import Seconds, Section
from proxy.secrets import Secret

_Severities = tuple[Literal["page", "warning", "info"], ...]
_ALL: _Severities = ("page", "warning", "info")


class AlertmanagerReceiver(Section, frozen=True, tag_field="kind", tag="alertmanager"):
    """One Alertmanager, or the members of a cluster."""

    urls: Annotated[tuple[str, ...], Meta(min_length=1)]
    """Without ``/api/v2``."""
    severities: _Severities = _ALL
    bearer_token: Secret | None = None
    username: str | None = None
    password: Secret | None = None
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    """Added to every alert."""
    repost_seconds: Seconds = 60.0


class PagerDutyReceiver(Section, frozen=True, tag_field="kind", tag="pagerduty"):
    """A service of PagerDuty, by the Events API v2."""

    routing_key: Secret
    severities: _Severities = ("page",)
    url: str = EVENTS_URL
    webhook_secret: Secret | None = None
    """Of a V3 webhook to ``/webhooks/pagerduty/NAME``, by which an acknowledgement is seen."""


class SlackReceiver(Section, frozen=True, tag_field="kind", tag="slack"):
    """A channel, by an incoming webhook."""

    url: Secret
    severities: _Severities = _ALL


class WebhookReceiver(Section, frozen=True, tag_field="kind", tag="webhook"):
    """Anything else, signed."""

    url: str
    secret: Secret
    severities: _Severities = _ALL


AnyReceiver = AlertmanagerReceiver | PagerDutyReceiver | SlackReceiver | WebhookReceiver


class Alerts(Section, frozen=True):
    """Who is told of what, and where the messages point."""

    receivers: dict[str, AnyReceiver] = msgspec.field(default_factory=dict)
    dashboard_url: str = ""
    """Ending with ``/ui``, it is our own: the page of a rollback then leads to all that is known of that one."""
    traces_url: str = ""
    """With ``{trace_id}``: where a trace is looked at."""
    runbook_url: str = "https://github.com/rerank-canary/rerank-canary/blob/main/helm/rerank-canary/docs/runbooks"
