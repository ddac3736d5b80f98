"""The port to whatever keeps the flag: a real Unleash server, or a file in its format."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from flags.rollout import Rollout

if TYPE_CHECKING:
    from flags.vocabulary import Assignment, FlagContext


class GateState(msgspec.Struct, frozen=True):
    """What a gate knows of its flag, and how fresh that is."""

    source: str
    """``unleash`` or ``file``."""
    flag: str
    rollout: Rollout | None
    fresh_at: float | None
    """Unix seconds of the last time the source confirmed this state; None: never."""
    changed_at: float | None
    """Unix seconds of the last change seen."""
    error: str | None = None
    """Why the source could not be read at the last try; None: it could."""

    def age_seconds(self, now: float) -> float | None:
        """Return the seconds since the source last confirmed this state; None: it never did."""
        return None if self.fresh_at is None else max(0.0, now - self.fresh_at)


class Gate(Protocol):
    """Decides in process, never by a call over the network; without any state it answers control."""

    @property
    def state(self) -> GateState:
        """What the gate knows at this moment."""

    def assign(self, context: FlagContext) -> Assignment:
        """Return the arm of *context*. Never raises, never blocks."""

    async def start(self) -> None:
        """Begin to follow the source; returns at once, with or without a first state."""

    async def close(self) -> None:
        """Stop following. The last state goes on deciding."""
