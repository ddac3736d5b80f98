"""What an action will do, in words, and the order that a form stands for."""

from __future__ import annotations

import time
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from flags import ramp as ramps
from flags.ramp import stage_of
from proxy import orders
from proxy.errors import Conflict, InvalidRequest
from proxy.orders import Order, RampOrder, RearmOrder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from alerts.trend import Point
    from flags.ramp import Ramp
    from proxy.orders import Outcome
    from proxy.parts import Parts
    from proxy.settings import ControlToken

_TITLES = {
    "advance": "Advance to the next stage",
    "hold": "Hold the rollout where it is",
    "rollback": "Roll back",
    "rearm": "Re-arm the candidate",
    "retire": "Retire the old arm",
}
_BUTTONS = {"advance": "Advance", "hold": "Hold", "rollback": "Roll back now", "rearm": "Re-arm", "retire": "Retire"}
_FORCE = {
    "ramp": "although it is no stage of the plan",
    "advance": "before the time is over, or without the proof",
    "rearm": "before the cool-down is over",
    "retire": "before the last stage is over",
}


_PLAIN = {
    "advance": orders.advance,
    "hold": orders.hold,
    "rollback": orders.rollback,
    "retire": orders.retire,
}
"""Commands that take nothing of their own."""


class Question(NamedTuple):
    """What somebody is asked before an action."""

    title: str
    effect: str
    button: str
    force_label: str


def users_seen(points: Sequence[Point]) -> int:
    """Return about how many users ask: those of the stage that met the most, among *points*.

    Users are counted anew in each stage, and by each replica that meets them.
    """
    stages = groupby(points, key=lambda point: point.share_percent)
    return max((sum(arm.users for point in stage for arm in point.arms) for _, stage in stages), default=0)


def question_of(action: str, ramp: Ramp, share_percent: int | None, users: int) -> Question:
    """Return the question; *users* is about how many ask.

    Raises:
        InvalidRequest: there is no such action, or it lacks its share.
        Conflict: the rollout cannot do that now, whoever forces it.

    """
    if action not in orders.ROLES:
        raise InvalidRequest(f"action: there is no {action!r}", field="action")
    target = _target(action, ramp, share_percent)
    _refuse_impossible(action, ramp, target)
    title = _TITLES.get(action) or f"Move to {target} %"
    button = _BUTTONS.get(action) or f"Move to {target} %"
    force_label = _FORCE.get(action, "")
    if action == "ramp" and (not target or stage_of(ramp.plan, target) is not None):
        force_label = ""
    return Question(title, _effect(action, ramp, target, users) + _skipped(ramp, target), button, force_label)


def _refuse_impossible(action: str, ramp: Ramp, target: int) -> None:
    now = time.time()
    try:
        match action:
            case "ramp":
                ramps.move(ramp, target, now, force=True)
            case "advance":
                ramps.advance(ramp, now, force=True)
            case "hold":
                ramps.hold(ramp)
            case "retire":
                ramps.retire(ramp, now, force=True)
            case "rearm":
                ramps.rearm(ramp, now, cool_down_seconds=0, force=True)
    except ramps.Refused as exc:
        raise Conflict(str(exc)) from exc
    if action == "rollback" and ramp.is_rolled_back:
        raise Conflict("it is rolled back already")


def _skipped(ramp: Ramp, target: int) -> str:
    """Return which stages of the plan are left out on the way up."""
    between = [each.share_percent for each in ramp.plan if ramp.share_percent < each.share_percent < target]
    return f" This skips {' and '.join(f'{share} %' for share in between)}." if between else ""


def _target(action: str, ramp: Ramp, share_percent: int | None) -> int:
    if action == "ramp":
        if share_percent is None or not 0 <= share_percent <= 100:
            raise InvalidRequest("share_percent: must be a whole number from 0 to 100", field="share_percent")
        return share_percent
    if action == "advance":
        ahead = [stage.share_percent for stage in ramp.plan if stage.share_percent > ramp.share_percent]
        return ahead[0] if ahead else ramp.share_percent
    return 0 if action in {"rollback", "rearm"} else ramp.share_percent


def _effect(action: str, ramp: Ramp, target: int, users: int) -> str:
    match action:
        case "hold":
            return f"It stays at {ramp.share_percent} % until somebody moves it; a rollback still works."
        case "rearm":
            return "Nobody moves yet: the candidate stays at 0 % until it is ramped again."
        case "retire":
            return "Everybody keeps the candidate, whatever the flag says; the old arm only answers when it fails."
        case "rollback" if not ramp.share_percent:
            return "Everybody gets control, whatever the flag says."
        case _:
            return _moved(ramp, target, users)


def _moved(ramp: Ramp, target: int, users: int) -> str:
    change = target - ramp.share_percent
    if not change:
        return f"Nobody moves: it goes on at {target} %."
    whither = "to the candidate" if change > 0 else "back to control"
    if not users:
        return f"{abs(change)} % of the users move {whither} ({ramp.share_percent} % → {target} %)."
    moved = max(1, round(users * abs(change) / 100))
    who = "user moves" if moved == 1 else "users move"
    shares = f"({ramp.share_percent} % → {target} %)"
    return f"About {moved:,} {who} {whither} {shares}, of about {users:,} who ask."


async def give(parts: Parts, actor: ControlToken, action: str, form: Mapping[str, Any]) -> Outcome:
    """Give the order that a form stands for.

    Raises:
        InvalidRequest: a field is wrong.
        Conflict, NotReady: the rollout does not allow it, or the store is away.

    """
    fields: dict[str, Any] = {
        "reason": str(form.get("reason", "")).strip(),
        "request_id": str(form.get("request_id", "")),
        "force": form.get("force") == "yes",
        "through": "dashboard",
        "seen": "" if action == "rollback" else str(form.get("seen", "")),
    }
    match action:
        case "ramp":
            fields["share_percent"] = form.get("share_percent", "")
            return await orders.ramp(parts, actor, _order(RampOrder, fields))
        case "rearm":
            fields["fresh_users"] = form.get("fresh_users") == "yes"
            return await orders.rearm(parts, actor, _order(RearmOrder, fields))
        case "advance" | "hold" | "rollback" | "retire":
            return await _PLAIN[action](parts, actor, _order(Order, fields))
        case _:
            raise InvalidRequest(f"action: there is no {action!r}", field="action")


def _order(kind: Any, fields: Mapping[str, Any]) -> Any:
    try:
        return msgspec.convert(fields, kind, strict=False)
    except msgspec.ValidationError as exc:
        text = str(exc)
        field = text.rpartition("$.")[2].rstrip("`") if "$." in text else None
        raise InvalidRequest(f"{field}: {text.partition(' - ')[0]}" if field else text, field=field) from exc
