"""What an action will do, in words, and the order that a form stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from proxy import orders
from proxy.errors import InvalidRequest
from proxy.orders import Order, RampOrder, RearmOrder

if TYPE_CHECKING:
    from collections.abc import Mapping

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


def users_seen(points: list[Point], since: float) -> int:
    """Return about how many users asked since a moment; one whom several replicas serve is counted by each."""
    return sum(arm.users for point in points if point.at >= since for arm in point.arms)


def question_of(action: str, ramp: Ramp, share_percent: int | None, users: int) -> Question:
    """Return the question; *users* is how many were seen in this stage.

    Raises:
        InvalidRequest: there is no such action, or it lacks its share.

    """
    if action not in orders.ROLES:
        raise InvalidRequest(f"action: there is no {action!r}", field="action")
    target = _target(action, ramp, share_percent)
    title = _TITLES.get(action) or f"Move to {target} %"
    button = _BUTTONS.get(action) or f"Move to {target} %"
    return Question(title, _effect(action, ramp, target, users), button, _FORCE.get(action, ""))


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
    return f"About {moved:,} {who} {whither} {shares}, of about {users:,} seen in this stage."


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
