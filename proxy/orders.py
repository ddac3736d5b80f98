"""The commands of operators, whatever they come through: what each needs, does and answers."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Annotated, Literal
from uuid import uuid4

import msgspec
from msgspec import Meta

from flags import ramp as ramps
from flags.ramp_control import StoreAway, refuse_without
from flags.record import By, Through
from proxy.errors import Conflict, InvalidRequest, NotReady

if TYPE_CHECKING:
    from collections.abc import Callable

    from flags.ramp import Ramp
    from proxy.parts import Parts
    from proxy.settings import ControlToken

ROLES = {
    "ramp": "operator",
    "advance": "operator",
    "hold": "operator",
    "rollback": "operator",
    "rearm": "admin",
    "retire": "admin",
}
"""Command → the least role that may give it."""
_SETTLE_SECONDS = 5.0


class Order(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What every command may carry."""

    reason: Annotated[str, Meta(max_length=500)] = ""
    request_id: Annotated[str, Meta(max_length=100)] = ""
    """The same id again changes nothing and answers the same."""
    force: bool = False
    through: Literal["api", "cli", "dashboard"] = "api"
    seen: Annotated[str, Meta(max_length=100)] = ""
    """What `position_of` was when it was asked for; where it is another by now, it is refused. Empty: whatever."""


class RampOrder(Order, forbid_unknown_fields=True, kw_only=True):
    """To which share."""

    share_percent: int


class RearmOrder(Order, forbid_unknown_fields=True, kw_only=True):
    """For whom."""

    fresh_users: bool = False
    """True: other users are drawn than those who had the candidate before."""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the rollout is after a command."""

    phase: ramps.Phase | None
    share_percent: int | None
    version: int | None
    request_id: str
    flag_is_behind: bool
    """The flag does not say it yet."""
    is_latched: bool
    rollback_id: str = ""
    warnings: tuple[str, ...] = ()


def position_of(ramp: Ramp) -> str:
    """Return what an order was given in view of: phase, share, and how often it was rolled back."""
    return f"{ramp.phase}:{ramp.share_percent}:{ramp.rollbacks}"


async def ramp(parts: Parts, actor: ControlToken, order: RampOrder) -> Outcome:
    """Move the share, to a stage of the plan or, forced, anywhere.

    Raises:
        InvalidRequest: it is no percentage.
        Conflict, NotReady: as of every command: the rollout does not allow it, or the store is away.

    """
    if not 0 <= order.share_percent <= 100:
        raise InvalidRequest("share_percent: must be a whole number from 0 to 100", field="share_percent")
    return await _change(
        parts, actor, "ramp", order, lambda r, now: ramps.move(r, order.share_percent, now, force=order.force)
    )


async def advance(parts: Parts, actor: ControlToken, order: Order) -> Outcome:
    """Move to the next stage."""
    return await _change(
        parts,
        actor,
        "advance",
        order,
        lambda r, now: ramps.advance(r, now, force=order.force),
        needs_settled=not order.force,
    )


async def hold(parts: Parts, actor: ControlToken, order: Order) -> Outcome:
    """Stay, whatever the evidence says, unless it says rollback."""
    return await _change(parts, actor, "hold", order, lambda r, _: ramps.hold(r), moves_flag=False)


async def rearm(parts: Parts, actor: ControlToken, order: RearmOrder) -> Outcome:
    """End a rollback: the share stays 0 until it is ramped.

    Raises:
        InvalidRequest: without a reason.

    """
    if not order.reason.strip():
        raise InvalidRequest("reason: a rollback is re-armed for a reason", field="reason")
    cool_down = parts.settings.ramp.cool_down_seconds

    def work(r: Ramp, now: float) -> Ramp:
        group_id = f"{r.rollout_id}-{r.rollbacks + 1}" if order.fresh_users else None
        return ramps.rearm(r, now, cool_down_seconds=cool_down, group_id=group_id, force=order.force)

    _refuse_while_flag_gives(parts)
    await _settled(parts)
    return await _change(parts, actor, "rearm", order, work, moves_flag=order.fresh_users, needs_settled=True)


async def retire(parts: Parts, actor: ControlToken, order: Order) -> Outcome:
    """Give everybody to the candidate for good."""
    return await _change(
        parts,
        actor,
        "retire",
        order,
        lambda r, now: ramps.retire(r, now, force=order.force),
        moves_flag=False,
        needs_settled=True,
    )


async def rollback(parts: Parts, actor: ControlToken, order: Order) -> Outcome:
    """Take the candidate out. Never refused."""
    by = _by(actor, order)
    found = await parts.rollout.control.roll_back(by)
    warnings = []
    if parts.rollout.latch.undelivered is not None:
        warnings.append(
            "the shared store cannot be reached: the rollback holds here and is delivered as soon as it can"
        )
    else:
        await _settled(parts)
    return _outcome(parts, by.request_id, found.rollback_id, warnings)


def _by(actor: ControlToken, order: Order) -> By:
    request_id = order.request_id or uuid4().hex
    return By(actor=actor.name, through=Through(order.through), reason=order.reason, request_id=request_id)


async def _change(
    parts: Parts,
    actor: ControlToken,
    action: str,
    order: Order,
    work: Callable[[Ramp, float], Ramp],
    *,
    moves_flag: bool = True,
    needs_settled: bool = False,
) -> Outcome:
    """Do *work* on the record's ramp and wait a moment for the flag to follow."""
    by = _by(actor, order)

    def checked(ramp: Ramp) -> Ramp:
        if order.seen and order.seen != position_of(ramp):
            raise ramps.Refused(f"it has changed meanwhile: it is {ramp.phase} at {ramp.share_percent} % now")
        return work(ramp, time.time())

    try:
        if moves_flag:
            refuse_without(parts.rollout.writer)
        await parts.rollout.control.change(action, checked, by, needs_settled=needs_settled)
    except ramps.Refused as exc:
        raise Conflict(str(exc)) from exc
    except StoreAway as exc:
        raise NotReady(
            f"{exc}; nothing is lost by asking again with the same request_id", retry_after_seconds=1
        ) from exc
    await _settled(parts)
    return _outcome(parts, by.request_id)


def _refuse_while_flag_gives(parts: Parts) -> None:
    """Without a token to set it with, a flag that gives the candidate a share would do so as soon as nothing holds.

    Raises:
        Conflict: it does.

    """
    rollout = parts.rollout.flag_gate.state.rollout
    if parts.rollout.writer is None and rollout is not None and rollout.is_enabled and rollout.share_percent:
        raise Conflict(f"the flag says {rollout.share_percent} %; set it to 0 in Unleash first")


async def _settled(parts: Parts) -> None:
    """Wait a while for the flag to say what the record says."""
    end = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < end:
        record = parts.rollout.latch.record
        if parts.rollout.latch.undelivered is None and (record is None or not record.is_pending):
            return
        await asyncio.sleep(0.02)


def _outcome(parts: Parts, request_id: str, rollback_id: str = "", warnings: list[str] | None = None) -> Outcome:
    rollout = parts.rollout
    record = rollout.latch.record
    warnings = warnings or []
    if record is not None and record.is_pending:
        why = rollout.reconciler.error or "it is still being written"
        warnings.append(f"the flag does not say it yet: {why}")
    return Outcome(
        phase=record.ramp.phase if record else None,
        share_percent=record.ramp.share_percent if record else None,
        version=record.version if record else None,
        request_id=request_id,
        flag_is_behind=bool(record and record.is_pending),
        is_latched=rollout.latch.is_set,
        rollback_id=rollback_id,
        warnings=tuple(warnings),
    )
