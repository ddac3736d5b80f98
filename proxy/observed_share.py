"""Which share of the users' requests really went to the candidate, over the last minute."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from flags.vocabulary import Arm

if TYPE_CHECKING:
    from proxy.exposure import Exposure

_BUCKET_SECONDS = 5
_BUCKETS = 12


class ObservedShare:
    """Counts assignments in buckets of a few seconds; those of testers who force an arm are left out."""

    def __init__(self) -> None:
        self._counts: dict[int, list[int]] = {}

    def observe(self, exposure: Exposure) -> None:
        """Count one."""
        if exposure.is_forced:
            return
        now = int(time.time() // _BUCKET_SECONDS)
        if now not in self._counts:
            self._counts = {b: c for b, c in self._counts.items() if b > now - _BUCKETS}
        counts = self._counts.setdefault(now, [0, 0])
        counts[0] += exposure.assignment.arm is Arm.CANDIDATE
        counts[1] += 1

    def last_minute(self) -> tuple[int, int]:
        """Return the requests of the candidate, and all."""
        oldest = int(time.time() // _BUCKET_SECONDS) - _BUCKETS
        recent = [counts for bucket, counts in self._counts.items() if bucket > oldest]
        return sum(c[0] for c in recent), sum(c[1] for c in recent)
