"""Who is there, and who of them writes: heartbeats and a lease in the shared store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio.client import Pipeline

LEASE_SECONDS = 4.0
GONE_SECONDS = 10.0
_FORGOTTEN_SECONDS = 3600.0

_TAKE_LEASE = """
local holder = redis.call('GET', KEYS[1])
if not holder or holder == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return ARGV[1]
end
return holder
"""
_GIVE_UP_LEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One replica, as it last said of itself."""

    instance_id: str
    at: float
    """Unix seconds of the heartbeat."""
    host: str
    started_at: float
    version: str
    is_ready: bool
    is_latched: bool
    record_version: int
    flag_share_percent: int | None
    flag_age_seconds: float | None
    candidate_requests: int
    """Of the last minute, assigned to the candidate by the flag."""
    requests: int
    """Of the last minute, all that were assigned."""

    def is_gone(self, now: float) -> bool:
        """Tell whether nothing was heard of it for a while."""
        return now - self.at > GONE_SECONDS


def _member(text: str) -> Member | None:
    """Return who said this; None: somebody of another version, whom this one cannot read."""
    try:
        return msgspec.json.decode(text, type=Member)
    except msgspec.MsgspecError:
        return None


class Membership:
    """Tells the others of this replica and holds the lease if nobody else does.

    The lease says who acts, and does not have to keep two from acting at once: every change of the record
    and of the flag is a compare-and-set, which a holder whose lease ran out loses.
    """

    def __init__(self, prefix: str, instance_id: str, describe: Callable[[], Member]) -> None:
        self._members_key = f"{{{prefix}}}:members"
        self._lease_key = f"{{{prefix}}}:lease"
        self._instance_id = instance_id
        self._describe = describe
        self._asked_at = 0.0
        self._held_until = 0.0
        self._beats: dict[str, tuple[float, float]] = {}
        """Of each: its last heartbeat by its own clock, and by ours when that was first seen."""
        self.leader: str | None = None
        self.members: list[Member] = []

    @property
    def is_leader(self) -> bool:
        """Whether this replica holds the lease; false after its time, however long this process slept."""
        return time.monotonic() < self._held_until

    def ask(self, pipe: Pipeline) -> None:
        """Tell, take or keep the lease, and ask who is there."""
        self._asked_at = time.monotonic()
        pipe.eval(_TAKE_LEASE, 1, self._lease_key, self._instance_id, str(round(LEASE_SECONDS * 1000)))
        pipe.hset(self._members_key, self._instance_id, msgspec.json.encode(self._describe()).decode())
        now = time.time()
        if self.is_leader and (old := [m.instance_id for m in self.members if now - m.at > _FORGOTTEN_SECONDS]):
            pipe.hdel(self._members_key, *old)
        pipe.hgetall(self._members_key)

    def take(self, answers: Sequence[Any]) -> None:
        """Take who leads and who is there."""
        self.leader = answers[0]
        if self.leader == self._instance_id:
            self._held_until = self._asked_at + LEASE_SECONDS
        else:
            self._held_until = 0.0
        found: dict[str, str] = answers[-1]
        members = [self._by_our_clock(member) for text in found.values() if (member := _member(text)) is not None]
        self.members = sorted(members, key=lambda member: member.started_at)
        self._beats = {each.instance_id: self._beats[each.instance_id] for each in members}

    def _by_our_clock(self, member: Member) -> Member:
        """Return *member* with the time when this replica saw its heartbeat: clocks of hosts differ."""
        theirs, ours = self._beats.get(member.instance_id, (0.0, 0.0))
        if member.at != theirs:
            ours = time.time() if theirs else min(time.time(), member.at)
            self._beats[member.instance_id] = (member.at, ours)
        return replace(member, at=ours)

    def leave(self, pipe: Pipeline) -> None:
        """Give up the lease and be forgotten."""
        self._held_until = 0.0
        pipe.eval(_GIVE_UP_LEASE, 1, self._lease_key, self._instance_id)
        pipe.hdel(self._members_key, self._instance_id)
