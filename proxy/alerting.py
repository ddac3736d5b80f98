"""Who is told: receivers as configured, and the loop that tells them."""

from __future__ import annotations

import base64
import time
from typing import TYPE_CHECKING

from alerts.alarms import Alarms
from alerts.alert import Severity
from alerts.delivery import DeliverySettings
from alerts.health import Health
from alerts.notifiers.alertmanager import Alertmanager
from alerts.notifiers.http import new_client
from alerts.notifiers.pagerduty import PagerDuty
from alerts.notifiers.slack import Slack
from alerts.notifiers.webhook import Webhook
from alerts.outbox import Dispatcher, Outbox
from alerts.wanted import Links, Situation
from proxy.receivers import AlertmanagerReceiver, PagerDutyReceiver, SlackReceiver, WebhookReceiver

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx
    from redis.asyncio import Redis

    from alerts.guard import Guard
    from alerts.notifiers.base import Notifier
    from proxy.budget import FallbackBudget
    from proxy.receivers import AnyReceiver
    from proxy.rollout import Rollout
    from proxy.settings import Settings


class Alerting:
    """What one process tells with; started and closed with it."""

    def __init__(
        self,
        settings: Settings,
        store: Redis,
        *,
        rollout: Rollout,
        guard: Guard | None,
        budget: FallbackBudget,
        store_error: Callable[[], str | None],
        on_delivery: Callable[[str, str], None],
    ) -> None:
        self._settings = settings
        self._rollout = rollout
        self._guard = guard
        self._budget = budget
        self._behind_since: float | None = None
        self._health = Health(rollout.membership, settings.flag.poll_seconds)
        self._client = new_client()
        self.notifiers = [_notifier(name, each, self._client) for name, each in settings.alerts.receivers.items()]
        self.outbox = Outbox(store, settings.rollout_prefix)
        self.alarms = Alarms(
            flag=settings.flag.key,
            outbox=self.outbox,
            dispatcher=Dispatcher(self.outbox, self.notifiers, DeliverySettings(), on_delivery=on_delivery),
            notifiers=self.notifiers,
            lease=rollout.membership,
            look=self.situation,
            store_error=store_error,
            links=Links(
                dashboard=settings.alerts.dashboard_url,
                traces=settings.alerts.traces_url,
                runbook=settings.alerts.runbook_url,
            ),
        )

    def start(self) -> None:
        """Begin to tell."""
        self.alarms.start()

    async def close(self) -> None:
        """Stop."""
        await self.alarms.close()
        await self._client.aclose()

    def situation(self) -> Situation:
        """Return the state of things."""
        now = time.time()
        record = self._rollout.latch.record
        is_behind = record is not None and record.is_pending
        self._behind_since = (self._behind_since or now) if is_behind else None
        return Situation(
            flag=self._settings.flag.key,
            record=record,
            report=self._guard.report if self._guard else None,
            flag_error=self._rollout.reconciler.error if is_behind else None,
            flag_behind_seconds=now - self._behind_since if self._behind_since else 0.0,
            is_undelivered=self._rollout.latch.undelivered is not None,
            budget=self._budget.exceeded(now),
            stale=tuple(self._health.stale(now)),
            silent_seconds=self._guard.silent_seconds if self._guard else 0.0,
        )


def _notifier(name: str, receiver: AnyReceiver, client: httpx.AsyncClient) -> Notifier:
    severities = [Severity(each) for each in receiver.severities]
    match receiver:
        case AlertmanagerReceiver():
            return Alertmanager(
                name,
                receiver.urls,
                client,
                severities=severities,
                headers=_authorization(receiver),
                labels=receiver.labels,
                repost_seconds=receiver.repost_seconds,
            )
        case PagerDutyReceiver():
            return PagerDuty(name, receiver.routing_key.reveal(), client, severities=severities, url=receiver.url)
        case SlackReceiver():
            return Slack(name, receiver.url.reveal(), client, severities=severities)
        case WebhookReceiver():
            return Webhook(name, receiver.url, receiver.secret.reveal(), client, severities=severities)


def _authorization(receiver: AlertmanagerReceiver) -> dict[str, str]:
    if receiver.bearer_token is not None:
        return {"authorization": f"Bearer {receiver.bearer_token.reveal()}"}
    if receiver.username is not None:
        password = receiver.password.reveal() if receiver.password else ""
        return {"authorization": f"Basic {base64.b64encode(f'{receiver.username}:{password}'.encode()).decode()}"}
    return {}
