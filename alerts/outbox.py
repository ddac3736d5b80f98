"""What is to be said, kept in Redis until everybody heard it, and the one who says it.

Whoever leads calls `Dispatcher.once`; all that it knows is in the store, so that the next leader goes on.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import structlog
from redis.exceptions import RedisError

from alerts.alert import Alert
from alerts.delivery import (
    Delivery,
    DeliverySettings,
    Send,
    acknowledged,
    claimed,
    delivered,
    delivery_id,
    due,
    failed,
    forgettable,
    undelivered,
)
from alerts.notifiers.base import NotDelivered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from redis.asyncio import Redis

    from alerts.notifiers.base import Acknowledgement, Notifier

_log = structlog.get_logger(__name__)

T = TypeVar("T", Alert, Delivery)

_PUT = """
local there = redis.call('HGET', KEYS[1], ARGV[1])
local is_read, known = pcall(cjson.decode, there or '')
if is_read and known.version >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""
_SAVE = """
local there = redis.call('HGET', KEYS[1], ARGV[1])
local is_read, known = pcall(cjson.decode, there or '')
if (is_read and known.revision or 0) + 1 ~= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
"""
_FORGET = """
local there = redis.call('HGET', KEYS[1], ARGV[1])
local is_read, known = pcall(cjson.decode, there or '')
if is_read and known.version ~= tonumber(ARGV[2]) then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1])
for i = 3, #ARGV do redis.call('HDEL', KEYS[2], ARGV[i]) end
return 1
"""
_ACKNOWLEDGE_TRIES = 5
_PATIENCE_SECONDS = 0.25
_MOST_AT_ONCE = 4


class Outbox:
    """Alerts and their deliveries. Errors of the connection (RedisError, OSError) go to the caller."""

    def __init__(self, store: Redis, prefix: str) -> None:
        self._store = store
        self._alerts_key = f"{{{prefix}}}:alerts"
        self._deliveries_key = f"{{{prefix}}}:deliveries"

    async def put(self, alert: Alert) -> bool:
        """Keep *alert* for delivery and tell whether it is news: the same or an older version changes nothing."""
        text = msgspec.json.encode(alert).decode()
        return await self._eval(_PUT, 1, self._alerts_key, alert.key, str(alert.version), text)

    async def all(self) -> tuple[dict[str, Alert], dict[str, Delivery]]:
        """Return the alerts by key and the deliveries by id."""
        async with self._store.pipeline(transaction=True) as pipe:
            pipe.hgetall(self._alerts_key)
            pipe.hgetall(self._deliveries_key)
            alerts, deliveries = await pipe.execute()
        return _decoded(alerts, Alert), _decoded(deliveries, Delivery)

    async def save(self, delivery: Delivery) -> bool:
        """Keep *delivery* if it is the next revision of the one that is there, and tell whether it was."""
        text = msgspec.json.encode(delivery).decode()
        return await self._eval(_SAVE, 1, self._deliveries_key, delivery.id, str(delivery.revision), text)

    async def acknowledge(self, receiver: str, found: Acknowledgement) -> bool:
        """Note who has seen an alert, and tell whether it is one that *receiver* was told of."""
        for _ in range(_ACKNOWLEDGE_TRIES):
            text: Any = await self._store.hget(self._deliveries_key, delivery_id(receiver, found.alert_key))
            if not text:
                return False
            known = msgspec.json.decode(text, type=Delivery)
            seen = acknowledged(known, found)
            if seen is known or await self.save(seen):
                return True
        return False

    async def forget(self, alert: Alert, delivery_ids: Sequence[str]) -> bool:
        """Drop *alert* and its deliveries, unless it was changed."""
        keys = (self._alerts_key, self._deliveries_key)
        return await self._eval(_FORGET, 2, *keys, alert.key, str(alert.version), *delivery_ids)

    async def _eval(self, script: str, keys: int, *arguments: str) -> bool:
        answer: Awaitable[Any] | Any = self._store.eval(script, keys, *arguments)
        return bool(await answer)


class Dispatcher:
    """Tells the receivers what they have to be told, each on its own: one that never answers delays no other."""

    def __init__(
        self,
        outbox: Outbox,
        notifiers: Sequence[Notifier],
        settings: DeliverySettings,
        *,
        on_delivery: Callable[[str, str], None] = lambda _receiver, _outcome: None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        """Take *on_delivery*, which is called with a receiver and ``delivered``, ``failed`` or ``given_up``."""
        self._outbox = outbox
        self._notifiers = {notifier.name: notifier for notifier in notifiers}
        self._settings = settings
        self._on_delivery = on_delivery
        self._jitter = jitter
        self._sending: dict[str, asyncio.Task[None]] = {}

    async def once(self, now: float) -> None:
        """Send what is due; one that takes longer than a moment goes on while the caller does.

        Raises:
            RedisError, OSError: the store did not answer.

        """
        receivers = tuple(self._notifiers.values())
        alerts, deliveries = await self._outbox.all()
        for alert in undelivered(alerts, deliveries, receivers, now, self._settings):
            if await self._outbox.put(alert):
                alerts[alert.key] = alert
        for send in due(alerts.values(), deliveries, receivers, now, self._settings):
            self._start(send, now)
        for alert in forgettable(alerts.values(), deliveries, receivers, now, self._settings):
            of_it = [delivery.id for delivery in deliveries.values() if delivery.alert_key == alert.key]
            await self._outbox.forget(alert, of_it)
        if self._sending:
            await asyncio.wait(self._sending.values(), timeout=_PATIENCE_SECONDS)

    async def close(self) -> None:
        """Wait for the sends that are on their way; none takes longer than its time."""
        if self._sending:
            await asyncio.wait(self._sending.values(), timeout=2 * self._settings.timeout_seconds)

    def _start(self, send: Send, now: float) -> None:
        receiver, key = send.delivery.receiver, send.delivery.id
        busy = sum(sent.startswith(f"{receiver}|") for sent in self._sending)
        if key in self._sending or busy >= _MOST_AT_ONCE:
            return
        task = asyncio.create_task(self._deliver(self._notifiers[receiver], send, now))
        self._sending[key] = task
        task.add_done_callback(lambda _: self._sending.pop(key, None))

    async def _deliver(self, notifier: Notifier, send: Send, now: float) -> None:
        began = asyncio.get_running_loop().time()
        claim = claimed(send.delivery, now, self._settings)
        try:
            if not await self._outbox.save(claim):
                return  # another leader sends it
            error = await self._send(notifier, send.alert)
            after = now + asyncio.get_running_loop().time() - began
            await self._keep(self._outcome(claim, send.alert, error, after))
        except (RedisError, OSError) as exc:  # a claim runs out, and it is sent again
            _log.warning("alert.not_saved", receiver=notifier.name, key=send.alert.key, error=type(exc).__name__)

    async def _keep(self, outcome: Delivery) -> None:
        """Save *outcome*, again where the connection was one of before a restart: what is not saved is sent twice."""
        try:
            await self._outbox.save(outcome)
        except (RedisError, OSError):
            await self._outbox.save(outcome)

    async def _send(self, notifier: Notifier, alert: Alert) -> NotDelivered | None:
        """Return why it was not taken; None: it was."""
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                await notifier.send(alert)
        except NotDelivered as exc:
            return exc
        except TimeoutError:
            return NotDelivered("no answer in time")
        except Exception as exc:  # noqa: BLE001 - a fault of one notifier comes to light through the others
            return NotDelivered(f"a fault of our own ({type(exc).__name__})")  # its words could hold a secret
        return None

    def _outcome(self, claim: Delivery, alert: Alert, error: NotDelivered | None, now: float) -> Delivery:
        """Return what became of a claimed delivery; say and count it."""
        log = _log.bind(receiver=claim.receiver, key=alert.key, kind=alert.kind, is_over=alert.is_over)
        if error is None:
            self._on_delivery(claim.receiver, "delivered")
            log.info("alert.delivered", version=alert.version, attempts=claim.attempts)
            return delivered(claim, alert, now, self._notifiers[claim.receiver].repost_seconds)
        outcome = failed(claim, alert, error, now, self._jitter(), self._settings)
        if outcome.is_dead and not claim.is_dead:
            self._on_delivery(claim.receiver, "given_up")
            log.error("alert.given_up", error=error.reason, attempts=claim.attempts)
        else:
            self._on_delivery(claim.receiver, "failed")
            log.warning("alert.not_delivered", error=error.reason, attempts=claim.attempts, next_at=outcome.next_at)
        return outcome


def _decoded(found: dict[str, str], of: type[T]) -> dict[str, T]:
    """Return what can be read: one entry that cannot must not keep the others from being sent."""
    read: dict[str, T] = {}
    for key, text in found.items():
        try:
            read[key] = msgspec.json.decode(text, type=of)
        except msgspec.MsgspecError:
            _log.error("outbox.unreadable", key=key)
    return read
