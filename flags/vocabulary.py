"""The words of an assignment, shared by every package."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Arm(StrEnum):
    """One of the two rerankers that users are split between."""

    CONTROL = "control"
    CANDIDATE = "candidate"


class Reason(StrEnum):
    """Why a request was given its arm."""

    SPLIT = "split"
    """The flag's strategies decided by the user's bucket."""
    TARGETED = "targeted"
    """The flag has strategies, and none of them splits by bucket."""
    DISABLED = "disabled"
    """The flag is off in this environment."""
    NO_FLAG = "no_flag"
    """The flag server answers, and does not know the flag."""
    NEVER_SEEN = "never_seen"
    """No state of the flag was ever received: control."""
    FORCED = "forced"
    """A tester asked for the arm with the control-plane key."""
    SWITCHED_OFF = "switched_off"
    """USE_CROSS_ENCODER is false: control, whatever the flag says."""
    NOT_READY = "not_ready"
    """The candidate cannot serve (loading, unhealthy): control."""
    LATCHED = "latched"
    """A rollback holds: control, whatever the flag says."""
    UNSURE = "unsure"
    """This process slept and has not yet asked whether a rollback holds: control."""
    RETIRED = "retired"
    """The old arm is retired to a fallback: candidate, whatever the flag says."""


FREE_REASONS = frozenset({Reason.SPLIT, Reason.TARGETED, Reason.RETIRED})
"""The flag's own choice, which is what the guard judges an arm by."""


class FlagContext(msgspec.Struct, frozen=True):
    """Whom the flag is asked about; field by field the context of an Unleash SDK."""

    user_id: str
    session_id: str | None = None
    remote_address: str | None = None
    properties: dict[str, str] = {}

    def as_unleash(self) -> dict[str, object]:
        """Return the context as the Unleash engine reads it."""
        context: dict[str, object] = {"userId": self.user_id, "properties": self.properties}
        if self.session_id is not None:
            context["sessionId"] = self.session_id
        if self.remote_address is not None:
            context["remoteAddress"] = self.remote_address
        return context


class Assignment(msgspec.Struct, frozen=True):
    """The arm of one request, and why."""

    arm: Arm
    reason: Reason
    bucket: int | None = None
    """1 to 100, or None where the flag's stickiness gives none."""
    share_percent: int | None = None
    """What the flag said at that moment; None without a flag."""
