"""Who is to be told what now, and what becomes of it: pure. See alerts/outbox.py for who acts on it.

A receiver is told of an alert once, again while it lasts if it forgets (`repost_seconds`), of changes if it
folds them into one incident (`takes_updates`), and once that it is over. A delivery is claimed before it is
sent: a sender that dies leaves behind an attempt whose end nobody knows, which the next one repeats.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from alerts.alert import Alert, Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from alerts.notifiers.base import Acknowledgement, NotDelivered, Receiver

UNDELIVERED = "undelivered"
_MOST_URGENT_FIRST = (Severity.PAGE, Severity.WARNING, Severity.INFO)
_FIRST_WAIT_SECONDS = 1.0
_LONGEST_BACKOFF_SECONDS = 300.0
_LONGEST_WAIT_SECONDS = 900.0
"""A receiver that asks for more, or a clock that jumped, must not keep a page from being sent."""
_CLOCK_SKEW_SECONDS = 300.0


class DeliverySettings(msgspec.Struct, frozen=True, kw_only=True):
    """How long is tried."""

    timeout_seconds: float = 5.0
    """For one send."""
    max_attempts: int = 12
    give_up_seconds: float = 600.0
    """A delivery is dead after so many attempts in at least so long."""
    late_seconds: float = 120.0
    """The other receivers hear of a page that one has not taken for so long."""
    dead_retry_seconds: float = 900.0
    """A dead delivery is tried again so often, for somebody may have mended the receiver."""
    dead_page_retry_seconds: float = 45.0
    """Likewise, of a page: an ingress that restarts answers 404, too."""
    update_seconds: float = 10.0
    """At least so long lies between two updates of one alert."""
    retention_seconds: float = 86_400.0
    """An alert is forgotten so long after it was over."""


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What one receiver knows of one alert."""

    receiver: str
    alert_key: str
    revision: int = 0
    """Grows with each change: only one of two senders can make the next one."""
    version: int = 0
    """Of the alert that it took last; 0: none."""
    is_over_delivered: bool = False
    attempts: int = 0
    """Since it took something; more than 0: it may or may not have got the last one."""
    next_at: float = 0.0
    """Unix seconds of the next attempt, or of the next post of the same."""
    failing_since: float | None = None
    last_error: str | None = None
    is_dead: bool = False
    """Given up: the other receivers are told of it."""
    told_at: float | None = None
    """Unix seconds when it first took the alert."""
    delivered_at: float | None = None
    """Unix seconds when it last took something."""
    acknowledged_at: float | None = None
    acknowledged_by: str | None = None
    is_closed: bool = False
    """Whether somebody closed it there while it lasts."""

    @property
    def id(self) -> str:
        """Unique among the deliveries."""
        return delivery_id(self.receiver, self.alert_key)


class Send(msgspec.Struct, frozen=True):
    """One alert that one receiver has to be told now."""

    alert: Alert
    delivery: Delivery


def delivery_id(receiver: str, alert_key: str) -> str:
    """Return the id of the delivery of an alert to a receiver."""
    return f"{receiver}|{alert_key}"


def due(
    alerts: Iterable[Alert],
    deliveries: Mapping[str, Delivery],
    receivers: Sequence[Receiver],
    now: float,
    settings: DeliverySettings,
) -> list[Send]:
    """Return what is to be sent now, pages first, then the older first."""
    found = []
    for alert in sorted(
        alerts, key=lambda alert: (_MOST_URGENT_FIRST.index(alert.severity), alert.starts_at, alert.key)
    ):
        for receiver in receivers:
            known = deliveries.get(delivery_id(receiver.name, alert.key))
            delivery = known or Delivery(receiver=receiver.name, alert_key=alert.key)
            if is_due(alert, delivery, receiver, now, settings):
                found.append(Send(alert, delivery))
    return found


def is_routed(alert: Alert, receiver: Receiver) -> bool:
    """Tell whether *alert* is for *receiver*: what one did not take is for all the others."""
    if alert.kind == UNDELIVERED:
        return alert.key != undelivered_key(alert.flag, receiver.name)
    return alert.severity in receiver.severities


def is_due(alert: Alert, delivery: Delivery, receiver: Receiver, now: float, settings: DeliverySettings) -> bool:
    """Tell whether *receiver* has to be told now."""
    if delivery.attempts > 0 and _is_ahead(delivery.next_at, now):
        return False
    if alert.is_over:
        return not delivery.is_over_delivered and (delivery.version > 0 or delivery.attempts > 0)
    if delivery.version == 0 or delivery.is_over_delivered:
        return is_routed(alert, receiver) and alert.version > delivery.version
    if delivery.attempts > 0:
        return True
    if alert.version > delivery.version and receiver.takes_updates and not delivery.is_closed:
        return not 0 <= now - (delivery.delivered_at or 0.0) < settings.update_seconds
    return receiver.repost_seconds is not None and not _is_ahead(delivery.next_at, now)


def claimed(delivery: Delivery, now: float, settings: DeliverySettings) -> Delivery:
    """Return *delivery* as it is to be saved before the send: nobody else sends it until that is over."""
    if delivery.is_over_delivered:  # it began again: of what was before only the version counts
        delivery = Delivery(
            receiver=delivery.receiver,
            alert_key=delivery.alert_key,
            revision=delivery.revision,
            version=delivery.version,
        )
    return replace(
        delivery,
        revision=delivery.revision + 1,
        attempts=delivery.attempts + 1,
        next_at=now + 2 * settings.timeout_seconds,
        failing_since=now if delivery.failing_since is None else delivery.failing_since,
    )


def delivered(delivery: Delivery, alert: Alert, now: float, repost_seconds: float | None) -> Delivery:
    """Return the claimed *delivery* after its receiver took *alert*."""
    return replace(
        delivery,
        revision=delivery.revision + 1,
        version=alert.version,
        is_over_delivered=alert.is_over,
        attempts=0,
        next_at=now + (repost_seconds or 0.0),
        failing_since=None,
        last_error=None,
        is_dead=False,
        told_at=now if delivery.told_at is None else delivery.told_at,
        delivered_at=now,
    )


def failed(
    delivery: Delivery, alert: Alert, error: NotDelivered, now: float, jitter: float, settings: DeliverySettings
) -> Delivery:
    """Return the claimed *delivery* after its receiver did not take *alert*; *jitter* is a number from 0 to 1."""
    has_tried_long = now - (delivery.failing_since or now) >= settings.give_up_seconds
    is_dead = delivery.is_dead or error.is_final or (delivery.attempts >= settings.max_attempts and has_tried_long)
    wait = backoff_seconds(delivery.attempts, jitter, error.retry_after_seconds)
    is_page = alert.severity is Severity.PAGE
    if is_page:
        wait = min(wait, max(settings.dead_page_retry_seconds, error.retry_after_seconds or 0.0))
    if is_dead:
        wait = max(wait, settings.dead_page_retry_seconds) if is_page else settings.dead_retry_seconds
    return replace(
        delivery,
        revision=delivery.revision + 1,
        next_at=now + wait,
        last_error=error.reason,
        is_dead=is_dead,
    )


def acknowledged(delivery: Delivery, found: Acknowledgement) -> Delivery:
    """Return *delivery* as seen by somebody; the same object for word of an incident that is over or seen already."""
    is_old = delivery.is_over_delivered or found.at + _CLOCK_SKEW_SECONDS < (delivery.told_at or 0.0)
    if is_old or (delivery.acknowledged_at is not None and found.is_closed <= delivery.is_closed):
        return delivery
    is_first = delivery.acknowledged_at is None
    return replace(
        delivery,
        revision=delivery.revision + 1,
        acknowledged_at=found.at if is_first else delivery.acknowledged_at,
        acknowledged_by=found.who if is_first else delivery.acknowledged_by,
        is_closed=found.is_closed,
    )


def backoff_seconds(attempts: int, jitter: float, retry_after_seconds: float | None) -> float:
    """Return the wait after so many attempts: doubled each time up to 5 minutes, or what the receiver asked for."""
    longest = min(_FIRST_WAIT_SECONDS * 2.0 ** min(attempts - 1, 30), _LONGEST_BACKOFF_SECONDS)
    asked = min(max(retry_after_seconds or 0.0, 0.0), _LONGEST_WAIT_SECONDS)
    return max(longest * (0.5 + 0.5 * jitter), asked)


def _is_ahead(at: float, now: float) -> bool:
    """Tell whether *at* is still to come, and no leftover of a clock that was wrong."""
    return 0 < at - now <= _LONGEST_WAIT_SECONDS


def undelivered_key(flag: str, receiver: str) -> str:
    """Return the key of the alert that says that *receiver* does not take the alerts of *flag*."""
    return f"{UNDELIVERED}:{flag}:{receiver}"


def undelivered(
    alerts: Mapping[str, Alert],
    deliveries: Mapping[str, Delivery],
    receivers: Sequence[Receiver],
    now: float,
    settings: DeliverySettings,
) -> list[Alert]:
    """Return what has changed of the alerts that say which receiver does not take its alerts, for the other ones."""
    changed = []
    flag = next((alert.flag for alert in alerts.values()), "")  # an outbox is of one flag
    keys = {undelivered_key(flag, receiver.name): receiver.name for receiver in receivers}
    was = {alert.key for alert in alerts.values() if alert.kind == UNDELIVERED}
    for key in sorted(was | keys.keys()):
        known = alerts.get(key)
        of_it = ((alert, deliveries.get(delivery_id(keys.get(key, ""), alert.key))) for alert in alerts.values())
        missed = [(alert, found) for alert, found in of_it if found and _is_missed(alert, found, now, settings)]
        said = _say_undelivered(known, missed) if missed else known and known.ended(now)
        if said is not None and said is not known:
            changed.append(said)
    return changed


def _is_missed(alert: Alert, delivery: Delivery, now: float, settings: DeliverySettings) -> bool:
    is_late = delivery.failing_since is not None and now - delivery.failing_since >= settings.late_seconds
    return delivery.is_dead or (is_late and alert.severity is Severity.PAGE)


def _say_undelivered(known: Alert | None, missed: Sequence[tuple[Alert, Delivery]]) -> Alert:
    """Return the alert about one receiver; *known* itself where it says just that."""
    worst = min((alert for alert, _ in missed), key=lambda alert: _MOST_URGENT_FIRST.index(alert.severity))
    name = missed[0][1].receiver
    errors = {found.last_error for _, found in missed if found.last_error}
    said = Alert(
        key=undelivered_key(worst.flag, name),
        kind=UNDELIVERED,
        severity=worst.severity,
        flag=worst.flag,
        title=f"{name} does not take its alerts.",
        starts_at=min(found.failing_since or alert.starts_at for alert, found in missed),
        facts=(
            ("Not delivered", " ".join(sorted(alert.title for alert, _ in missed))),
            ("Because", ", ".join(sorted(errors)) or "no answer"),
            ("Done", "It is tried again from time to time; this message went to the other receivers."),
            ("Next", f"Tell whom {name} would have told, then check its address and key."),
        ),
    )
    if known is None:
        return said
    return replace(said, version=known.version + 1) if known.is_over else said.follows(known)


def forgettable(
    alerts: Iterable[Alert],
    deliveries: Mapping[str, Delivery],
    receivers: Sequence[Receiver],
    now: float,
    settings: DeliverySettings,
) -> list[Alert]:
    """Return the alerts that were over long ago and that no receiver has still to be told of."""

    def is_open(alert: Alert) -> bool:
        of_it = [deliveries.get(delivery_id(receiver.name, alert.key)) for receiver in receivers]
        return any(found and not found.is_over_delivered and not found.is_dead for found in of_it)

    old = [a for a in alerts if a.ends_at is not None and now - a.ends_at > settings.retention_seconds]
    return [alert for alert in old if not is_open(alert)]
