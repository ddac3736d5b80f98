"""The gate that every request meets: the flag's answer, unless a rollback holds or the old arm is retired."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from flags.vocabulary import Arm, Reason

if TYPE_CHECKING:
    from flags.gate import Gate, GateState
    from flags.latch import Latch
    from flags.pulse import Pulse
    from flags.vocabulary import Assignment, FlagContext


class LatchedGate:
    """Effective assignment = flag AND NOT latch."""

    def __init__(self, gate: Gate, latch: Latch, pulse: Pulse) -> None:
        self._gate = gate
        self._latch = latch
        self._pulse = pulse

    @property
    def state(self) -> GateState:
        """What the flag says."""
        return self._gate.state

    def assign(self, context: FlagContext) -> Assignment:
        """Return the arm of *context*. Never raises, never blocks."""
        assignment = self._gate.assign(context)
        if self._latch.is_set:
            return replace(assignment, arm=Arm.CONTROL, reason=Reason.LATCHED)
        if self._pulse.is_unsure:
            return replace(assignment, arm=Arm.CONTROL, reason=Reason.UNSURE)
        if self._latch.is_retired:
            return replace(assignment, arm=Arm.CANDIDATE, reason=Reason.RETIRED)
        return assignment

    async def start(self) -> None:
        """Begin to follow the flag."""
        await self._gate.start()

    async def close(self) -> None:
        """Stop following."""
        await self._gate.close()
