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

    def shut_by(self) -> Reason | None:
        """Return why nobody may be given to the candidate; None: the flag decides.

        A flag that was last read before the latch opened says what held before the rollback.
        """
        if self._latch.is_set or self._is_flag_older_than_opening():
            return Reason.LATCHED
        if self._pulse.is_unsure or not self._latch.is_known:
            return Reason.UNSURE
        return None

    def _is_flag_older_than_opening(self) -> bool:
        opened_at = self._latch.opened_at
        return opened_at is not None and (self._gate.state.fresh_at or 0.0) < opened_at

    def assign(self, context: FlagContext) -> Assignment:
        """Return the arm of *context*. Never raises, never blocks."""
        assignment = self._gate.assign(context)
        if (why := self.shut_by()) is not None:
            return replace(assignment, arm=Arm.CONTROL, reason=why)
        if self._latch.is_retired:
            return replace(assignment, arm=Arm.CANDIDATE, reason=Reason.RETIRED)
        return assignment

    async def start(self) -> None:
        """Begin to follow the flag."""
        await self._gate.start()

    async def close(self) -> None:
        """Stop following."""
        await self._gate.close()
