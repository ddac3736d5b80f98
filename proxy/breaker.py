"""Spares an arm that keeps failing, and lets one request at a time find out whether it is back.

No caller can open it for the others: a timeout speaks only of requests that are as heavy, and of none if
the arm answered somebody in the meantime; an answer that is no ranking may be due to what was asked, so
it counts once a user.
"""

from __future__ import annotations

from bisect import insort


class Breaker:
    """Opens after *failures* in a row; from *seconds* later on one trial at a time. Time is an argument."""

    def __init__(self, failures: int, seconds: float) -> None:
        self._limit = failures
        self._seconds = seconds
        self._weights: list[int] = []
        """Of the requests that failed in a row, the lightest first; as many as it takes to open."""
        self._confused: set[str] = set()
        self._retry_at = 0.0
        self._answered_at = float("-inf")

    @property
    def is_open(self) -> bool:
        """Whether requests are being spared: all of them, or the heavy ones."""
        return len(self._weights) >= self._limit

    def allows(self, now: float, weight: int = 0) -> bool:
        """Tell whether to try a request of this *weight*; in an open breaker a yes is the one trial of the pause."""
        if not self._spares(weight):
            return True
        if now < self._retry_at:
            return False
        self._retry_at = now + self._seconds
        return True

    def succeeded(self, now: float) -> None:
        """Close."""
        self._answered_at = now
        self._weights.clear()
        self._confused.clear()

    def failed(self, now: float) -> None:
        """Count a failure that any request would have met; the last straw opens."""
        self._count(now, 0)

    def timed_out(self, now: float, began: float, weight: int) -> None:
        """Count a request that was tried from *began* on; not if the arm answered another one since."""
        if self._answered_at < began:
            self._count(now, weight)

    def answered_nonsense(self, now: float, user: str) -> None:
        """Count a refusal, or an answer that is no ranking."""
        if user not in self._confused and len(self._confused) < self._limit:
            self._confused.add(user)
            self._count(now, 0)

    def _spares(self, weight: int) -> bool:
        return len(self._weights) >= self._limit and self._weights[-1] <= weight

    def _count(self, now: float, weight: int) -> None:
        insort(self._weights, weight)
        del self._weights[self._limit :]
        if self.is_open:
            self._retry_at = now + self._seconds
