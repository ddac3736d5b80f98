"""What has to be well around the counts before they may speak for a candidate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alerts.verdict import HoldReason

if TYPE_CHECKING:
    from flags.membership import Membership

TICK_SECONDS = 1.0
_STALE_SECONDS = 10.0
_MISSED_POLLS = 3


class Health:
    """Asks the members how old their flag is."""

    def __init__(self, membership: Membership, poll_seconds: float) -> None:
        self._membership = membership
        self._stale_seconds = max(_STALE_SECONDS, _MISSED_POLLS * poll_seconds)

    def stale(self, now: float) -> list[str]:
        """Return the replicas that have not heard from the flag's source for a while."""
        return [
            member.instance_id
            for member in self._membership.members
            if not member.is_gone(now)
            and (member.flag_age_seconds is None or member.flag_age_seconds > self._stale_seconds)
        ]

    def holds(self, now: float) -> list[HoldReason]:
        """Return what says to wait."""
        return [HoldReason.FLAG_STALE] if self.stale(now) else []
