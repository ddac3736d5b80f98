"""Spares an arm that keeps failing, and lets one request at a time find out whether it is back."""

from __future__ import annotations


class Breaker:
    """Opens after *failures* in a row; from *seconds* later on one trial at a time. Time is an argument."""

    def __init__(self, failures: int, seconds: float) -> None:
        self._limit = failures
        self._seconds = seconds
        self._failures = 0
        self._retry_at = 0.0

    @property
    def is_open(self) -> bool:
        """Whether the arm is being spared."""
        return self._failures >= self._limit

    def allows(self, now: float) -> bool:
        """Tell whether to try; in an open breaker a yes is the one trial of the next *seconds*."""
        if not self.is_open:
            return True
        if now < self._retry_at:
            return False
        self._retry_at = now + self._seconds
        return True

    def succeeded(self) -> None:
        """Close."""
        self._failures = 0

    def failed(self, now: float) -> None:
        """Count a failure; the last straw opens."""
        self._failures += 1
        if self.is_open:
            self._retry_at = now + self._seconds
