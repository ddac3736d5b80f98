"""How much of the event log is held in memory, and what became of the rest.

Each number is written by one thread only, and only ever grows: no lock is needed to read them.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from proxy.events.records import Kind


class Counts:
    """Of one process, since its start."""

    def __init__(self) -> None:
        # written by the event loop
        self.offered_rows = 0
        self.offered_bytes = 0
        self.refused: Counter[Kind] = Counter()
        """Rows that found the queue full."""
        # written by the thread that encodes
        self.taken_bytes = 0
        """Of records that are no longer in the queue."""
        self.encoded_bytes = 0
        self.unfit_rows = 0
        self.unfit: Counter[Kind] = Counter()
        """Rows that could not be encoded."""
        # written by the thread that uploads
        self.settled_rows = 0
        self.settled_bytes = 0
        self.written: Counter[Kind] = Counter()
        self.lost: Counter[Kind] = Counter()
        """Rows that were still not written when the process had to end, or could not be made a file."""
        self.files = 0
        self.failures = 0
        """Tries to write a part that failed."""
        self.error: str | None = None
        """What the last try failed with; None: it did not."""

    @property
    def held_rows(self) -> int:
        """Rows in memory."""
        return self.offered_rows - self.unfit_rows - self.settled_rows

    @property
    def held_bytes(self) -> int:
        """About how much memory they take."""
        return self.offered_bytes - self.taken_bytes + self.encoded_bytes - self.settled_bytes

    def dropped(self, kind: Kind) -> int:
        """Return how many rows are lost for good, for whatever reason."""
        return self.refused[kind] + self.unfit[kind] + self.lost[kind]
