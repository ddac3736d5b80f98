"""The control plane's commands over HTTP: who may ask for what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar import Request, get, post

from flags.ramp_control import StoreAway
from flags.record import AuditEntry  # noqa: TC001 - Litestar reads the annotations when it starts
from proxy import orders
from proxy.errors import InvalidRequest, NotReady
from proxy.keys import presented_key
from proxy.orders import Order, Outcome, RampOrder, RearmOrder

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler

    from proxy.parts import Parts
    from proxy.settings import ControlToken

_Request = Request[Any, Any, Any]


@post("/ramp", summary="move to a share", status_code=200)
async def ramp(request: _Request, data: RampOrder) -> Outcome:
    """Move the share, to a stage of the plan or, forced, anywhere."""
    return await orders.ramp(*_enter(request, orders.ROLES["ramp"]), data)


@post("/advance", summary="move to the next stage", status_code=200)
async def advance(request: _Request, data: Order | None = None) -> Outcome:
    """Move to the next stage."""
    return await orders.advance(*_enter(request, orders.ROLES["advance"]), data or Order())


@post("/hold", summary="stay where it is", status_code=200)
async def hold(request: _Request, data: Order | None = None) -> Outcome:
    """Stay, whatever the evidence says, unless it says rollback."""
    return await orders.hold(*_enter(request, orders.ROLES["hold"]), data or Order())


@post("/rearm", summary="let a rolled-back candidate be ramped again", status_code=200)
async def rearm(request: _Request, data: RearmOrder) -> Outcome:
    """End a rollback: the share stays 0 until it is ramped."""
    return await orders.rearm(*_enter(request, orders.ROLES["rearm"]), data)


@post("/retire", summary="make the old arm a fallback only", status_code=200)
async def retire(request: _Request, data: Order | None = None) -> Outcome:
    """Give everybody to the candidate for good."""
    return await orders.retire(*_enter(request, orders.ROLES["retire"]), data or Order())


@post("/rollback", summary="take the candidate out, everywhere, now", status_code=200)
async def rollback(request: _Request, data: Order | None = None) -> Outcome:
    """Take the candidate out. Never refused."""
    return await orders.rollback(*_enter(request, orders.ROLES["rollback"]), data or Order())


@get("/history", summary="who changed what, when and why")
async def history(request: _Request, count: int = 50) -> list[AuditEntry]:
    """Return the newest changes, the newest first."""
    parts, _ = _enter(request, "viewer")
    if not 1 <= count <= 10_000:
        raise InvalidRequest("count: must be from 1 to 10000", field="count")
    try:
        return await parts.rollout.control.history(count)
    except StoreAway as exc:
        raise NotReady(str(exc), retry_after_seconds=1) from exc


def _enter(request: _Request, role: str) -> tuple[Parts, ControlToken]:
    parts: Parts = request.app.state.parts
    return parts, parts.keys.check_control(presented_key(request.headers), role)


def rollout_routes() -> list[HTTPRouteHandler]:
    """Return the commands."""
    return [ramp, advance, hold, rollback, rearm, retire, history]
