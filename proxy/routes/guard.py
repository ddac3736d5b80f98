"""The control plane's view of the guard and of who is told."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec
import structlog
from litestar import Request, Response, get, post
from redis.exceptions import RedisError

from alerts.alert import Alert, Severity
from alerts.notifiers.base import NotDelivered
from alerts.notifiers.pagerduty import acknowledgement_of, is_signed
from proxy.errors import InvalidRequest, NotReady, Unauthorized
from proxy.keys import presented_key
from proxy.receivers import PagerDutyReceiver

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler

    from alerts.notifiers.base import Notifier
    from proxy.parts import Parts

_Request = Request[Any, Any, Any]
_log = structlog.get_logger(__name__)
_TEST_LASTS_SECONDS = 300.0
_SEND_SECONDS = 10.0


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a test message to one receiver."""

    receiver: str
    kind: str
    severities: tuple[str, ...]
    is_delivered: bool
    error: str = ""
    seconds: float = 0.0


@get("/guard", summary="verdict, guardrails, evidence")
async def guard(request: _Request) -> dict[str, Any]:
    """Return what the leader last found."""
    parts = _enter(request, "viewer")
    found = parts.guard
    return {
        "is_on": found is not None,
        "report": found.report if found else None,
        "now": time.time(),
    }


@get("/alerts", summary="what is told, to whom")
async def alerts(request: _Request) -> dict[str, Any]:
    """Return the alerts of the outbox and how far each receiver is."""
    parts = _enter(request, "viewer")
    try:
        known, deliveries = await parts.alerting.outbox.all()
    except (RedisError, OSError) as exc:
        raise NotReady(f"the shared store cannot be reached: {type(exc).__name__}", retry_after_seconds=1) from exc
    return {
        "receivers": [_receiver(parts, each) for each in parts.alerting.notifiers],
        "alerts": sorted(known.values(), key=lambda each: -each.starts_at),
        "deliveries": list(deliveries.values()),
    }


@post("/alerts/test", summary="tell every receiver that this is a test", status_code=200)
async def test_alert(request: _Request) -> list[Told]:
    """Send a test message to each receiver, now, and say that it is over."""
    parts = _enter(request, "operator")
    now = time.time()
    alert = Alert(
        key=f"test:{uuid4().hex[:12]}",
        kind="test",
        severity=Severity.INFO,
        flag=parts.settings.flag.key,
        title=f"{parts.settings.flag.key}: this is a test. Nothing is wrong.",
        starts_at=now,
        facts=(("Why", "somebody ran `rerank-canary alert --test`"), ("Next", "nothing")),
        links=(("dashboard", parts.settings.alerts.dashboard_url),) if parts.settings.alerts.dashboard_url else (),
    )
    return list(await asyncio.gather(*(_tell(parts, each, alert) for each in parts.alerting.notifiers)))


@post("/webhooks/pagerduty/{name:str}", summary="PagerDuty says who has seen an alert", status_code=202)
async def pagerduty(request: _Request, name: str) -> Response[bytes]:
    """Take a signed webhook V3; the signature is the key."""
    parts: Parts = request.app.state.parts
    receiver = parts.settings.alerts.receivers.get(name)
    if not isinstance(receiver, PagerDutyReceiver) or receiver.webhook_secret is None:
        raise InvalidRequest(f"name: no PagerDuty receiver {name!r} with a webhook_secret", field="name")
    body = await request.body()
    secret = receiver.webhook_secret.reveal()
    if not is_signed(body, request.headers, secret):
        raise Unauthorized("X-PagerDuty-Signature: is missing or wrong")
    found = acknowledgement_of(body, request.headers, secret)
    if found is not None:
        try:
            await parts.alerting.outbox.acknowledge(name, found)
        except (RedisError, OSError) as exc:
            raise NotReady("the shared store cannot be reached", retry_after_seconds=1) from exc
        _log.info("alert.acknowledged", receiver=name, key=found.alert_key, by=found.who, is_closed=found.is_closed)
    return Response(b"")


async def _tell(parts: Parts, notifier: Notifier, alert: Alert) -> Told:
    began = time.perf_counter()
    error = ""
    try:
        async with asyncio.timeout(_SEND_SECONDS):
            if notifier.repost_seconds is None:
                await notifier.send(alert)
                await notifier.send(alert.ended(time.time()))
            else:  # it gathers for a while before it tells, and tells nothing of what is over by then
                await notifier.send(alert.ended(time.time() + _TEST_LASTS_SECONDS))
    except NotDelivered as exc:
        error = exc.reason
    except TimeoutError:
        error = "no answer in time"
    return Told(
        **_receiver(parts, notifier), is_delivered=not error, error=error, seconds=round(time.perf_counter() - began, 3)
    )


def _receiver(parts: Parts, notifier: Notifier) -> dict[str, Any]:
    kind = parts.settings.alerts.receivers[notifier.name].__struct_config__.tag
    return {"receiver": notifier.name, "kind": str(kind), "severities": tuple(sorted(notifier.severities))}


def _enter(request: _Request, role: str) -> Parts:
    parts: Parts = request.app.state.parts
    parts.keys.check_control(presented_key(request.headers), role)
    return parts


def guard_routes() -> list[HTTPRouteHandler]:
    """Return the routes."""
    return [guard, alerts, test_alert, pagerduty]
