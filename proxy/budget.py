"""How often the fallback may answer, and for how much: over the last hour and all replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from proxy.settings import Fallback

HOUR = 3600


class Spend(msgspec.Struct, frozen=True):
    """What the candidate's requests came to in some time. Adds up."""

    requests: int = 0
    low_scores: int = 0
    """Fallbacks because of a low score; those after a failure are not a matter of budget."""
    microdollars: int = 0
    """Of all fallbacks."""

    def __add__(self, other: Spend) -> Spend:
        """Add up."""
        return Spend(
            self.requests + other.requests,
            self.low_scores + other.low_scores,
            self.microdollars + other.microdollars,
        )

    def scaled(self, share: float) -> Spend:
        """Return a share of it, rounded down."""
        return Spend(int(self.requests * share), int(self.low_scores * share), int(self.microdollars * share))


class FallbackBudget:
    """The last hour as this clock hour plus what the hour before it still weighs.

    That is the sliding window counter; it never lets more than a few percent over a limit through, and
    needs two numbers a replica. What this replica spent since the last exchange is counted at once.
    """

    def __init__(self, settings: Fallback) -> None:
        self._settings = settings
        self._hour = -1
        self._shared = Spend()
        self._shared_before = Spend()
        self._unsent = Spend()

    def add(self, spend: Spend) -> None:
        """Count what one request came to."""
        self._unsent += spend

    def take_unsent(self) -> Spend:
        """Return what was not shared yet; it counts as shared from now on."""
        spend, self._unsent = self._unsent, Spend()
        self._shared += spend
        return spend

    def set_shared(self, hour: int, this_hour: Spend, hour_before: Spend) -> None:
        """Take the totals of all replicas as the store has them."""
        self._hour, self._shared, self._shared_before = hour, this_hour, hour_before

    def put_back(self, spend: Spend) -> None:
        """Count *spend* as unsent again: the store did not take it."""
        self._unsent += spend
        self._shared += Spend(-spend.requests, -spend.low_scores, -spend.microdollars)

    def last_hour(self, now: float) -> Spend:
        """Return the spend of the last hour."""
        self._turn(now)
        return self._shared + self._unsent + self._shared_before.scaled(1 - now % HOUR / HOUR)

    def exceeded(self, now: float) -> str | None:
        """Return which limit is reached, in words for a warning; None: there is budget left."""
        spend = self.last_hour(now)
        if spend.microdollars >= self._settings.max_dollars_per_hour * 1e6:
            return f"the fallback budget of ${self._settings.max_dollars_per_hour:g} an hour is spent"
        enough = spend.requests >= self._settings.min_requests
        if enough and spend.low_scores >= self._settings.max_share * spend.requests:
            return f"the fallback budget of {self._settings.max_share:.0%} of the requests is spent"
        return None

    def _turn(self, now: float) -> None:
        hour = int(now // HOUR)
        if hour != self._hour:
            self._shared_before = self._shared if hour == self._hour + 1 else Spend()
            self._shared = Spend()
            self._hour = hour
