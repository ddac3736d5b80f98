"""What the dashboard changes: a question that names the effect, and the order that follows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

from litestar import Request, Response, get, post

from flags.ramp import Ramp
from proxy.dashboard.actions import give, question_of, users_seen
from proxy.dashboard.render import page
from proxy.dashboard.tiers import TIERS
from proxy.errors import Conflict, Forbidden, InvalidRequest, NotReady, ProxyError
from proxy.keys import has_role
from proxy.orders import ROLES, position_of
from proxy.routes.dashboard_entry import Entered, check_form, redirect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from litestar.handlers import HTTPRouteHandler

_Request = Request[Any, Any, Any]


@get("/confirm/{action:str}", include_in_schema=False)
async def confirm(request: _Request, entered: Entered, action: str) -> Response[str]:
    """Ask before an action, and say what it will do."""
    _check_role(entered, action)
    return await _question(entered, action, request.query_params)


@post("/actions/{action:str}", include_in_schema=False)
async def act(request: _Request, entered: Entered, action: str) -> Response[str]:
    """Do it; asked twice it does nothing twice."""
    form = await request.form()
    check_form(request, entered.session, form)
    _check_role(entered, action)
    fields = {str(name): str(value) for name, value in form.items()}
    try:
        await give(entered.board.parts, entered.session.actor, action, fields)
    except (Conflict, InvalidRequest, NotReady) as exc:
        return await _question(entered, action, fields, exc)
    entered.board.forget()
    return redirect("/ui")


async def _question(
    entered: Entered, action: str, fields: Mapping[str, str], error: ProxyError | None = None
) -> Response[str]:
    board = entered.board
    record = board.parts.rollout.latch.record
    if record is None and action != "rollback":
        raise NotReady("there is no record of the rollout yet: the flag was not read, or the store is away")
    share_percent = _number(fields.get("share_percent", ""))
    ramp = record.ramp if record else Ramp(rollout_id="", group_id="")
    users = max([users_seen(await board.past.points(tier)) for tier in TIERS[:3]])
    question = question_of(action, ramp, share_percent, users)
    is_unclear = isinstance(error, NotReady)  # it may have been done: the same id again does it once
    return page(
        "confirm.html",
        status=error.status if error else 200,
        session=entered.session,
        here="",
        action=action,
        title=question.title,
        effect=question.effect,
        button=question.button,
        force_label=question.force_label,
        error=str(error) if error else "",
        share_percent=share_percent if action == "ramp" else None,
        reason=fields.get("reason", ""),
        force=fields.get("force") == "yes",
        fresh_users=fields.get("fresh_users") == "yes",
        request_id=fields.get("request_id", "") if is_unclear else uuid4().hex,
        seen=position_of(ramp),
    )


def _number(text: str) -> int | None:
    """Return a whole number; None: it is none.

    Raises:
        InvalidRequest: something else was given.

    """
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 3):
        raise InvalidRequest("share_percent: must be a whole number from 0 to 100", field="share_percent")
    return int(text)


def _check_role(entered: Entered, action: str) -> None:
    """Pass who may do this.

    Raises:
        InvalidRequest: there is no such action.
        Forbidden: the role may not.

    """
    if action not in ROLES:
        raise InvalidRequest(f"action: there is no {action!r}", field="action")
    actor = entered.session.actor
    if not has_role(actor, ROLES[action]):
        raise Forbidden(f"{actor.name} is a {actor.role}; this takes the role {ROLES[action]}")


def action_routes() -> list[HTTPRouteHandler]:
    """Return the routes, below ``/ui``."""
    return [confirm, act]
