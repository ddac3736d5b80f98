"""The ramp: a pure state machine from 0 % to retiring the old arm, with rollback first in line.

    ramping ──advance──► ramping (next stage) ──last stage baked──► promoted ──retire──► retired
       │  ▲                                                             │                   │
      hold ramp, advance                                                │                   │
       ▼  │                                                             │                   │
      held ─────────────────────rollback (from anywhere)◄───────────────┴───────────────────┘
                                    │
                               rolled back ──rearm, after the cool-down──► ramping at 0 %

Time, ids and verdicts are arguments. A function that changes nothing returns the same object.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta
from msgspec.structs import replace

HOUR = 3600.0
_DOUBLINGS = 10


class Refused(Exception):
    """The ramp does not allow this now; the message says why, and what would."""


class Phase(StrEnum):
    """Where a rollout is."""

    RAMPING = "ramping"
    HELD = "held"
    ROLLED_BACK = "rolled_back"
    PROMOTED = "promoted"
    RETIRED = "retired"


class Verdict(StrEnum):
    """What the evidence says."""

    ADVANCE = "advance"
    HOLD = "hold"
    REVERT = "revert"
    """The evidence did not come in time: back to the stage before."""
    ROLLBACK = "rollback"


class Stage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step of the plan."""

    share_percent: Annotated[int, Meta(ge=1, le=100)]
    bake_seconds: Annotated[float, Meta(ge=0)]
    """The shortest time to stay."""


DEFAULT_PLAN = (
    Stage(5, 24 * HOUR),
    Stage(25, 24 * HOUR),
    Stage(50, 24 * HOUR),
    Stage(100, 14 * 24 * HOUR),
)


class Rollback(msgspec.Struct, frozen=True, kw_only=True):
    """Why and when the candidate was taken out."""

    rollback_id: str
    at: float
    """Unix seconds."""
    actor: str
    reason: str
    from_share_percent: int
    through: str = ""
    """By which way the order came."""
    request_id: str = ""
    evidence: str = ""
    """The numbers that decided, as JSON; empty where a person did."""


class Ramp(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one rollout."""

    rollout_id: str
    group_id: str
    """The flag's hash group: the same one keeps the same users, a new one draws afresh."""
    plan: tuple[Stage, ...] = DEFAULT_PLAN
    phase: Phase = Phase.RAMPING
    stage: int | None = None
    """Index into the plan; None: at a share that is no stage of it."""
    share_percent: int = 0
    entered_at: float = 0.0
    """Unix seconds when this phase and stage began."""
    is_ready: bool = False
    """The stage is passed, and waits for an operator to advance."""
    rollbacks: int = 0
    """How often this rollout was rolled back; the cool-down doubles with each."""
    rollback: Rollback | None = None

    def baked_seconds_left(self, now: float) -> float:
        """Return how much of the stage's shortest time is left; 0 where there is none."""
        if self.stage is None:
            return 0.0
        return max(0.0, self.entered_at + self.plan[self.stage].bake_seconds - now)

    @property
    def is_last_stage(self) -> bool:
        """Whether there is no further stage."""
        return self.stage is not None and self.stage + 1 == len(self.plan)

    @property
    def is_rolled_back(self) -> bool:
        """Whether the latch has to be set."""
        return self.phase is Phase.ROLLED_BACK


def check_plan(plan: tuple[Stage, ...]) -> str | None:
    """Return what is wrong with a plan; None: nothing."""
    shares = [stage.share_percent for stage in plan]
    if not shares:
        return "there is no stage"
    if shares != sorted(set(shares)):
        return "the shares of the stages must rise"
    return None if shares[-1] == 100 else "the last stage must be 100 %"


def stage_of(plan: tuple[Stage, ...], share_percent: int) -> int | None:
    """Return the index of the stage with this share; None: it is no stage."""
    return next((i for i, stage in enumerate(plan) if stage.share_percent == share_percent), None)


def move(ramp: Ramp, share_percent: int, now: float, *, force: bool = False) -> Ramp:
    """Return the ramp at another share, by an operator's word. The same share lets a held ramp go on.

    Raises:
        Refused: it is rolled back or retired, the share is no stage (unless forced), or out of bounds.

    """
    if not 0 <= share_percent <= 100:
        raise Refused(f"{share_percent} % is not between 0 and 100")
    _refuse_when_over(ramp)
    stage = stage_of(ramp.plan, share_percent)
    if stage is None and share_percent and not force:
        stages = ", ".join(f"{s.share_percent} %" for s in ramp.plan)
        raise Refused(f"{share_percent} % is no stage of the plan ({stages}); it takes force to go there all the same")
    if share_percent == ramp.share_percent:
        return replace(ramp, phase=Phase.RAMPING) if ramp.phase is Phase.HELD else ramp
    return _enter(ramp, stage, share_percent, now)


def advance(ramp: Ramp, now: float, *, force: bool = False) -> Ramp:
    """Return the ramp at the next stage, by an operator's word.

    Raises:
        Refused: there is none, the stage is not passed (unless forced), or it is rolled back or retired.

    """
    _refuse_when_over(ramp)
    if ramp.is_last_stage or ramp.phase is Phase.PROMOTED:
        raise Refused("this is the last stage; `retire` comes after it")
    left = ramp.baked_seconds_left(now)
    if left and not force:
        raise Refused(f"the stage bakes for another {words(left)}; --force goes on all the same")
    if ramp.stage is not None and not ramp.is_ready and not force:
        what = "held" if ramp.phase is Phase.HELD else "not proved to be well"
        raise Refused(f"the stage's time is over, but it is {what}; --force goes on all the same")
    following = next(i for i, stage in enumerate(ramp.plan) if stage.share_percent > ramp.share_percent)
    return _enter(ramp, following, ramp.plan[following].share_percent, now)


def hold(ramp: Ramp) -> Ramp:
    """Return the ramp held where it is: no verdict moves it up until `move` or `advance`; rollback still works.

    The stage goes on baking: its users have the candidate all the while.

    Raises:
        Refused: it is rolled back or retired.

    """
    _refuse_when_over(ramp)
    return ramp if ramp.phase is Phase.HELD else replace(ramp, phase=Phase.HELD, is_ready=False)


def roll_back(ramp: Ramp, rollback_id: str, now: float, *, actor: str, reason: str, evidence: str = "") -> Ramp:
    """Return the ramp rolled back; from any phase, and once only: a second one changes nothing."""
    if ramp.is_rolled_back:
        return ramp
    record = Rollback(
        rollback_id=rollback_id,
        at=now,
        actor=actor,
        reason=reason,
        from_share_percent=ramp.share_percent,
        evidence=evidence,
    )
    return replace(
        ramp,
        phase=Phase.ROLLED_BACK,
        stage=None,
        share_percent=0,
        entered_at=now,
        is_ready=False,
        rollbacks=ramp.rollbacks + 1,
        rollback=record,
    )


def cool_down_ends_at(ramp: Ramp, cool_down_seconds: float) -> float:
    """Return when a rolled-back ramp may be re-armed: the cool-down doubles with each rollback, ten times at most."""
    return ramp.entered_at + cool_down_seconds * 2.0 ** min(max(0, ramp.rollbacks - 1), _DOUBLINGS)


def rearm(
    ramp: Ramp, now: float, *, cool_down_seconds: float, group_id: str | None = None, force: bool = False
) -> Ramp:
    """Return a rolled-back ramp at 0 %, ready to be ramped again; a *group_id* draws fresh users.

    Raises:
        Refused: it is not rolled back, or cools down (unless forced).

    """
    if not ramp.is_rolled_back:
        raise Refused(f"nothing to re-arm: the rollout is {_named(ramp.phase)}")
    left = cool_down_ends_at(ramp, cool_down_seconds) - now
    if left > 0 and not force:
        raise Refused(f"the rollout cools down for another {words(left)}; --force re-arms all the same")
    return replace(
        ramp, phase=Phase.RAMPING, stage=None, share_percent=0, entered_at=now, group_id=group_id or ramp.group_id
    )


def retire(ramp: Ramp, now: float, *, force: bool = False) -> Ramp:
    """Return the ramp with the old arm retired to fallback only.

    Raises:
        Refused: the candidate has not been at 100 % for the last stage's time (unless forced).

    """
    if ramp.phase is Phase.RETIRED:
        return ramp
    _refuse_when_over(ramp)
    if ramp.share_percent < 100:
        raise Refused(f"the candidate serves {ramp.share_percent} %, not 100 %")
    left = 0.0 if ramp.phase is Phase.PROMOTED else ramp.baked_seconds_left(now)
    if (left or ramp.stage is None) and not force:
        raise Refused(f"the last stage bakes for another {words(left)}; --force retires all the same")
    return replace(ramp, phase=Phase.RETIRED, entered_at=now, is_ready=False)


def adopt(ramp: Ramp, share_percent: int, now: float, *, group_id: str | None = None) -> Ramp:
    """Return the ramp at a share, and with a hash group, that somebody set in the flag tool itself.

    A known stage becomes that stage with its own bake time, anything else is adopted as such. Nothing but
    `rearm` ends a rollback: there a share that somebody set changes nothing.
    """
    group_id = group_id or ramp.group_id
    if ramp.is_rolled_back or (share_percent, group_id) == (ramp.share_percent, ramp.group_id):
        return ramp
    ramp = replace(ramp, group_id=group_id)
    return _enter(ramp, stage_of(ramp.plan, share_percent), share_percent, now)


def replan(ramp: Ramp, plan: tuple[Stage, ...]) -> Ramp:
    """Return the ramp with another plan, at the share where it is."""
    if ramp.plan == plan:
        return ramp
    stage = None if ramp.is_rolled_back else stage_of(plan, ramp.share_percent)
    return replace(ramp, plan=plan, stage=stage, is_ready=False)


def begun(ramp: Ramp, now: float) -> Ramp:
    """Return the ramp whose stage begins *now*, when the flag says its share; a rollback began when it was decided."""
    return replace(ramp, entered_at=now) if ramp.phase is Phase.RAMPING and ramp.stage is not None else ramp


def step(ramp: Ramp, verdict: Verdict, now: float, *, auto_advance: bool, rollback_id: str, reason: str = "") -> Ramp:
    """Return the ramp after a verdict. Rollback is looked at first, in every phase, and waits for no bake time."""
    if verdict is Verdict.ROLLBACK:
        return roll_back(ramp, rollback_id, now, actor="guard", reason=reason)
    if ramp.phase is not Phase.RAMPING or ramp.stage is None or ramp.baked_seconds_left(now):
        return ramp
    if verdict is Verdict.REVERT:
        return _enter(ramp, ramp.stage - 1, ramp.plan[ramp.stage - 1].share_percent, now) if ramp.stage else ramp
    if verdict is Verdict.HOLD:
        return replace(ramp, is_ready=False) if ramp.is_ready else ramp
    return _pass(ramp, now, auto_advance=auto_advance)


def _pass(ramp: Ramp, now: float, *, auto_advance: bool) -> Ramp:
    """Return the ramp after a stage that is passed."""
    assert ramp.stage is not None
    if ramp.is_last_stage:
        return replace(ramp, phase=Phase.PROMOTED, entered_at=now, is_ready=False)
    if auto_advance:
        return _enter(ramp, ramp.stage + 1, ramp.plan[ramp.stage + 1].share_percent, now)
    return ramp if ramp.is_ready else replace(ramp, is_ready=True)


def _enter(ramp: Ramp, stage: int | None, share_percent: int, now: float) -> Ramp:
    return replace(ramp, phase=Phase.RAMPING, stage=stage, share_percent=share_percent, entered_at=now, is_ready=False)


def _refuse_when_over(ramp: Ramp) -> None:
    if ramp.is_rolled_back:
        raise Refused("the rollout is rolled back; `rearm` comes first")
    if ramp.phase is Phase.RETIRED:
        raise Refused("the old arm is retired; only `rollback` is left")


def _named(phase: Phase) -> str:
    return phase.value.replace("_", " ")


def words(seconds: float) -> str:
    """Return a time for people: the two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join([f"{count} {unit}" for count, unit in units if count][:2]) or "0 s"
