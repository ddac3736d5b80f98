"""The record in Redis or Valkey: one key, changed by compare-and-set, with its trail beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from redis.exceptions import RedisError

from flags.record import AuditEntry, RampRecord

if TYPE_CHECKING:
    from redis.asyncio import Redis

_SWAP = """
local there = redis.call('GET', KEYS[1])
local version = 0
if there then version = cjson.decode(there).version end
if version ~= tonumber(ARGV[1]) then return there end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'entry', ARGV[3])
redis.call('PUBLISH', ARGV[5], ARGV[2])
return false
"""
"""Sets the record if its version is the expected one (0: there is none); else returns the one that is there."""


class UnreadableRecord(RedisError):
    """What the store has is no record of ours: whoever meets it goes on as without the store."""


class NewerRecord(Exception):
    """Somebody changed the record first."""

    def __init__(self, record: RampRecord) -> None:
        super().__init__(f"the record is at version {record.version} by now")
        self.record = record


class RecordStore:
    """Reads and changes the one record. Errors of the connection (RedisError, OSError) go to the caller."""

    def __init__(self, store: Redis, prefix: str, audit_entries: int) -> None:
        self._store = store
        self.key = f"{{{prefix}}}:ramp"
        self.channel = f"{{{prefix}}}:ramp"
        self._audit_key = f"{{{prefix}}}:audit"
        self._audit_entries = audit_entries

    async def read(self) -> RampRecord | None:
        """Return the record; None: there is none."""
        return decode(await self._store.get(self.key))

    async def swap(self, expected: int, record: RampRecord, entry: AuditEntry) -> None:
        """Set the record, note why and tell all replicas, in one step.

        Raises:
            NewerRecord: the version there is not the *expected* one.

        """
        there = await self._store.eval(
            _SWAP,
            2,
            self.key,
            self._audit_key,
            str(expected),
            msgspec.json.encode(record).decode(),
            msgspec.json.encode(entry).decode(),
            str(self._audit_entries),
            self.channel,
        )
        found = decode(there)
        if found is not None:
            raise NewerRecord(found)

    async def history(self, count: int) -> list[AuditEntry]:
        """Return the newest audit entries, the newest first."""
        found: Any = await self._store.xrevrange(self._audit_key, count=count)
        return [msgspec.json.decode(fields["entry"], type=AuditEntry) for _, fields in found]


def decode(text: Any) -> RampRecord | None:
    """Return the record that *text* is; None for nothing.

    Raises:
        UnreadableRecord: it is something else.

    """
    try:
        return msgspec.json.decode(text, type=RampRecord) if text else None
    except msgspec.MsgspecError as exc:
        raise UnreadableRecord(f"the store's record of the rollout cannot be read: {exc}") from exc
