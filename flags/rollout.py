"""What an Unleash flag says of the split: read from the server's answer or a file in its format."""

from __future__ import annotations

from typing import Any

import msgspec

from flags.bucketing import bucket
from flags.vocabulary import Arm, Assignment, FlagContext, Reason

ROLLOUT_STRATEGY = "flexibleRollout"


class InvalidFlags(Exception):
    """The flag state is not in Unleash's format; the message says where."""


class Rollout(msgspec.Struct, frozen=True):
    """The split of one flag as its first active flexibleRollout strategy states it."""

    is_enabled: bool
    share_percent: int
    """0 to 100; 100 where the flag has no strategy at all, as Unleash means it."""
    group_id: str
    stickiness: str
    splits: bool
    """Whether a flexibleRollout strategy is there to split by bucket."""

    @property
    def given_percent(self) -> int:
        """Share of the users that really have the candidate: none while the flag is off in the environment."""
        return self.share_percent if self.is_enabled else 0

    def bucket_of(self, context: FlagContext) -> int | None:
        """Return the bucket of the context's sticky key; None where it has none or it is random."""
        match self.stickiness:
            case "default" | "userId":
                key: str | None = context.user_id
            case "sessionId":
                key = context.session_id
            case "random":
                key = None
            case name:
                key = context.properties.get(name)
        return None if key is None or not self.splits else bucket(self.group_id, key)


class _Strategy(msgspec.Struct):
    name: str
    parameters: dict[str, str] = {}
    disabled: bool = False


class _Feature(msgspec.Struct):
    name: str
    enabled: bool = False
    strategies: list[_Strategy] = []


class _ClientFeatures(msgspec.Struct):
    """The part of ``GET /api/client/features`` that states a split."""

    features: list[_Feature]
    version: int = 2
    segments: list[dict[str, Any]] = []


def read_rollout(state: bytes | str, flag: str) -> Rollout | None:
    """Return what *state*, in the format of ``/api/client/features``, says of *flag*; None if it has no such flag.

    Raises:
        InvalidFlags: *state* is no such document; the message names the place.

    """
    try:
        features = msgspec.json.decode(state, type=_ClientFeatures).features
    except (msgspec.MsgspecError, UnicodeError) as exc:
        raise InvalidFlags(str(exc)) from exc
    feature = next((f for f in features if f.name == flag), None)
    if feature is None:
        return None
    active = [s for s in feature.strategies if not s.disabled]
    strategy = next((s for s in active if s.name == ROLLOUT_STRATEGY), None)
    if strategy is None:
        return Rollout(feature.enabled, 0 if feature.strategies else 100, flag, "default", splits=False)
    return Rollout(
        is_enabled=feature.enabled,
        share_percent=_whole_percent(strategy.parameters.get("rollout", "0")),
        group_id=strategy.parameters.get("groupId") or flag,
        stickiness=strategy.parameters.get("stickiness") or "default",
        splits=True,
    )


def _whole_percent(text: str) -> int:
    """Return a percentage as Unleash reads it: what is not a whole number from 0 to 100 turns the strategy off."""
    return int(text) if text.isascii() and text.isdecimal() and int(text) <= 100 else 0


def assign(*, is_on: bool, rollout: Rollout | None, was_seen: bool, context: FlagContext) -> Assignment:
    """Return the assignment that the flag makes; *is_on* is the Unleash engine's answer for *context*."""
    if rollout is None:
        return Assignment(Arm.CONTROL, Reason.NO_FLAG if was_seen else Reason.NEVER_SEEN)
    decided_by = Reason.SPLIT if rollout.splits else Reason.TARGETED
    reason = decided_by if rollout.is_enabled else Reason.DISABLED
    arm = Arm.CANDIDATE if is_on else Arm.CONTROL
    return Assignment(arm, reason, rollout.bucket_of(context), rollout.share_percent)
