"""What fallback and shadows may cost, and how often the fallback may answer: over the last hour, all replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from proxy.quality_settings import Shadow
    from proxy.settings import Fallback

HOUR = 3600


class Spend(msgspec.Struct, frozen=True):
    """What the candidate's requests, or the shadows, came to in some time. Adds up."""

    requests: int = 0
    """Of users; a tester's say nothing of how often the candidate doubts. Or shadows."""
    low_scores: int = 0
    """Fallbacks because of a low score; those after a failure are not a matter of budget."""
    microdollars: int = 0
    """Of all fallbacks, those of testers who force the candidate too: they are no user's, but are paid for."""

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


class HourlySpend:
    """The last hour as this clock hour plus what the hour before it still weighs.

    That is the sliding window counter; it never lets more than a few percent over a limit through. Each
    replica keeps its own sums and tells the others those, not what was added: told twice, they count once.
    """

    def __init__(self) -> None:
        self._own: dict[int, Spend] = {}
        self._others: dict[int, Spend] = {}

    def add(self, spend: Spend, now: float) -> None:
        """Count what one request came to."""
        hour = int(now // HOUR)
        if hour not in self._own:
            self._own = {h: s for h, s in self._own.items() if h >= hour - 1}
        self._own[hour] = self.own(hour) + spend

    def own(self, hour: int) -> Spend:
        """Return what this replica spent in a clock hour, the newest or the one before it."""
        return self._own.get(hour, Spend())

    def set_others(self, spends: dict[int, Spend]) -> None:
        """Take what all other replicas spent, by clock hour."""
        self._others = spends

    def last_hour(self, now: float) -> Spend:
        """Return the spend of the last hour, of all replicas."""
        hour = int(now // HOUR)
        return self._all(hour) + self._all(hour - 1).scaled(1 - now % HOUR / HOUR)

    def _all(self, hour: int) -> Spend:
        return self.own(hour) + self._others.get(hour, Spend())


class FallbackBudget(HourlySpend):
    """What the fallback answers for the candidate."""

    def __init__(self, settings: Fallback) -> None:
        super().__init__()
        self._settings = settings

    def exceeded(self, now: float) -> str | None:
        """Return which limit is reached, in words for a warning; None: there is budget left."""
        spend = self.last_hour(now)
        if spend.microdollars >= self._settings.max_dollars_per_hour * 1e6:
            return f"the fallback budget of ${self._settings.max_dollars_per_hour:g} an hour is spent"
        enough = spend.requests >= self._settings.min_requests or not self._settings.max_share
        if enough and spend.low_scores >= self._settings.max_share * spend.requests:
            return f"the fallback budget of {self._settings.max_share:.0%} of the requests is spent"
        return None


class ShadowBudget(HourlySpend):
    """What shadows cost, apart from the fallback's budget: neither takes from the other."""

    def __init__(self, settings: Shadow) -> None:
        super().__init__()
        self._settings = settings

    def is_spent(self, now: float) -> bool:
        """Tell whether the dollars of the last hour are spent; what runs by then may still add a little."""
        return self.last_hour(now).microdollars >= self._settings.max_dollars_per_hour * 1e6
