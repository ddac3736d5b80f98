"""The gate that every request meets: the flag's answer, unless a rollback holds or the old arm is retired."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from flags.vocabulary import Arm, Reason

if TYPE_CHECKING:
    from flags.gate import Gate, GateState
    from flags.latch import Latch
    from flags.pulse import Pulse
    from flags.record import RampRecord
    from flags.rollout import Rollout
    from flags.vocabulary import Assignment, FlagContext


class LatchedGate:
    """Effective assignment = flag AND NOT latch."""

    def __init__(self, gate: Gate, latch: Latch, pulse: Pulse) -> None:
        self._gate = gate
        self._latch = latch
        self._pulse = pulse
        self._followed: float | None = None
        """The opening of the latch since which the flag has said what the record says."""

    @property
    def state(self) -> GateState:
        """What the flag says."""
        return self._gate.state

    def shut_by(self) -> Reason | None:
        """Return why nobody may be given to the candidate; None: the flag decides."""
        if self._latch.is_set or self._is_flag_of_before():
            return Reason.LATCHED
        if self._pulse.is_unsure or not self._latch.is_known:
            return Reason.UNSURE
        return None

    def _is_flag_of_before(self) -> bool:
        """Tell whether the flag may still say what held before the rollback.

        That it was read since the latch opened is not enough: the answer may have been on its way, or a flag server
        may answer the old state for a moment after it was told the new one. So it has to say what the record says once.
        """
        opened_at, state = self._latch.opened_at, self._gate.state
        if opened_at is None or self._followed == opened_at:
            return False
        if _agrees(self._latch.record, state.rollout) and (state.fresh_at or 0.0) >= opened_at:
            self._followed = opened_at
        return self._followed != opened_at

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


def _agrees(record: RampRecord | None, rollout: Rollout | None) -> bool:
    """Tell whether the flag gives the candidate to whom the record says; nobody is nobody of any hash group."""
    if record is None:
        return True
    share = 0 if rollout is None else rollout.given_percent
    is_same_group = share == 0 or rollout is None or rollout.group_id == record.ramp.group_id
    return share == record.ramp.share_percent and is_same_group
