"""Deletes what the event log need not keep, on the replica that leads."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import structlog

from flags.tasks import end
from proxy.events.records import Kind
from proxy.events.storage import hour_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from alerts.guard import Lease
    from proxy.events.storage import Storage

_log = structlog.get_logger(__name__)

_LOOK_SECONDS = 10.0
_DAY_SECONDS = 86400.0


class Retention:
    """Looks once an hour."""

    def __init__(self, storage: Storage, keep_days: int, lease: Lease, *, look_seconds: float = _LOOK_SECONDS) -> None:
        self._storage = storage
        self._keep_seconds = keep_days * _DAY_SECONDS
        self._lease = lease
        self._look_seconds = look_seconds
        self._hour: int | None = None
        self._is_closing = threading.Event()
        self._task: asyncio.Task[None] | None = None
        self.deleted = 0
        """Hours, of any kind."""
        self.failures = 0

    def start(self) -> None:
        """Begin, in the background."""
        self._task = asyncio.create_task(self._run(), name="events-retention")

    async def close(self) -> None:
        """Stop; an hour that is being deleted is deleted as a whole."""
        self._is_closing.set()
        await end(self._task)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._look_seconds)
            await self.look(time.time())

    async def look(self, now: float) -> None:
        """Delete what is old at *now*, if this replica leads and has not looked in this hour."""
        if not self._lease.is_leader or self._hour == hour_of(now):
            return
        try:
            before = now - self._keep_seconds
            self.deleted += await asyncio.to_thread(delete_old, self._storage, before, self._is_closing.is_set)
        except Exception as exc:  # noqa: BLE001 - each store's client has errors of its own; the next look may pass
            if not self.failures:
                _log.warning("events.not_deleted", error=type(exc).__name__, reason=str(exc))
            self.failures += 1
        else:
            self._hour = hour_of(now)


def delete_old(storage: Storage, before: float, is_closing: Callable[[], bool] = lambda: False) -> int:
    """Delete the hours that ended before *before* (Unix seconds), and return how many; what is no hour stays."""
    deleted = 0
    for kind in Kind:
        for partition in storage.partitions(kind):
            if partition.ends_at > before or is_closing():
                break
            storage.delete(partition)
            deleted += 1
    if deleted:
        _log.info("events.deleted", hours=deleted)
    return deleted
