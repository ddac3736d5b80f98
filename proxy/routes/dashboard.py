"""The dashboard over HTTP: pages to read, in and out. What changes something is in dashboard_actions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import uuid4

import structlog
from litestar import Request, Response, Router, get, post
from litestar.datastructures import Cookie
from litestar.di import Provide
from litestar.response import Stream  # noqa: TC002 - Litestar reads annotations when it starts

from flags.record import ROLLBACK
from proxy.dashboard.actions import question_of
from proxy.dashboard.history import is_found
from proxy.dashboard.live import events
from proxy.dashboard.render import STATIC, page, static, static_url
from proxy.dashboard.request_view import orders, timings, trace_of, why
from proxy.dashboard.session import COOKIE
from proxy.dashboard.state import state_of
from proxy.dashboard.tiers import BY_NAME, FINEST, TIERS, Tier
from proxy.dashboard.words import stamp
from proxy.errors import ProxyError
from proxy.orders import position_of
from proxy.routes.dashboard_actions import action_routes
from proxy.routes.dashboard_entry import (
    Entered,
    NotSignedIn,
    board_of,
    check_form,
    check_origin,
    is_secure,
    on_error,
    on_not_signed_in,
    redirect,
    session_of,
    who_entered,
)

if TYPE_CHECKING:
    from litestar.types import ControllerRouterHandler

_Request = Request[Any, Any, Any]
_log = structlog.get_logger(__name__)
_MOST_ENTRIES = 1000
_SHOWN_ENTRIES = 300
_WRONG_TOKEN_SECONDS = 0.3


@get("/", include_in_schema=False, sync_to_thread=False)
def home() -> Response[str]:
    """Show the way."""
    return redirect("/ui")


@get("/ui/static/{version:str}/{name:str}", include_in_schema=False, sync_to_thread=False)
def static_file(version: str, name: str) -> Response[bytes]:
    """Return a file that pages load."""
    if name not in STATIC or static_url(name) != f"/ui/static/{version}/{name}":
        return Response(b"", status_code=404)
    headers = {
        "content-type": STATIC[name],
        "cache-control": "public, max-age=31536000, immutable",
        "x-content-type-options": "nosniff",
    }
    return Response(static(name), headers=headers)


@get("/ui/login", include_in_schema=False)
async def login_page(next_page: str = "") -> Response[str]:
    """Ask for a token."""
    return page("login.html", session=None, here="", error="", next=_own_path(next_page))


@post("/ui/login", include_in_schema=False)
async def login(request: _Request) -> Response[str]:
    """Take a token, and give a cookie for it."""
    board = board_of(request)
    check_origin(request)
    form = await request.form()
    actor = board.parts.keys.actor(str(form.get("token", "")).strip())
    following = _own_path(str(form.get("next", "")))
    if actor is None:
        _log.warning("dashboard.sign_in_refused", client=request.client.host if request.client else None)
        async with board.wrong_tokens:  # one after the other: nobody guesses many in a while
            await asyncio.sleep(_WRONG_TOKEN_SECONDS)
        error = "This is no valid control token, or it has expired."
        return page("login.html", status=401, session=None, here="", error=error, next=following)
    _log.info("dashboard.signed_in", actor=actor.name, role=actor.role)
    answer = redirect(following)
    answer.set_cookie(
        Cookie(
            COOKIE,
            value=board.sessions.begin(actor),
            path="/ui",
            httponly=True,
            samesite="lax",  # strict would ask again whoever follows a link of a page or a chat
            secure=is_secure(request),
        )
    )
    return answer


@post("/ui/logout", include_in_schema=False)
async def logout(request: _Request) -> Response[str]:
    """End the session, whoever has its cookie."""
    if (session := session_of(request)) is not None:
        check_form(request, session, await request.form())
        await board_of(request).ended.end(session)
    answer = redirect("/ui/login")
    answer.delete_cookie(COOKIE, path="/ui")
    return answer


@get("/", include_in_schema=False)
async def rollout_page(request: _Request, entered: Entered) -> Response[str]:
    """Show where the rollout is, both arms over time, and the guardrails."""
    board, tier = entered.board, _tier(request)
    return page(
        "rollout.html",
        session=entered.session,
        here="/ui",
        live=True,
        tier=tier,
        tiers=TIERS,
        state=state_of(board.parts, entered.session.actor.role),
        **await board.charts(tier),
        rows=await board.rows(),
        is_on=board.parts.guard is not None,
    )


@get("/live", include_in_schema=False)
async def live(request: _Request, entered: Entered) -> Stream:
    """Send what changes, while somebody looks."""
    only = request.query_params.get("only", "")
    return events(entered.board, entered.session, _tier(request), only, request.query_params.get("id", "")[:128])


@get("/incidents", include_in_schema=False)
async def incidents_page(entered: Entered) -> Response[str]:
    """List the rollbacks."""
    entries = await entered.board.past.history(_MOST_ENTRIES)
    found = [each for each in entries if each.action == ROLLBACK]
    error = entered.board.past.error
    return page("incidents.html", session=entered.session, here="/ui/incidents", entries=found, error=error)


@get("/incidents/{rollback_id:str}", include_in_schema=False)
async def incident_page(entered: Entered, rollback_id: str) -> Response[str]:
    """Show one rollback."""
    board = entered.board
    context = await board.incident(rollback_id)
    if context is None:
        return _no_such_rollback(entered, rollback_id)
    record = board.parts.rollout.latch.record
    ramp = record.ramp if record and record.is_rolled_back else None
    can_rearm = ramp is not None and entered.session.actor.role == "admin" and not context["view"].is_over
    return page(
        "incident.html",
        session=entered.session,
        here="/ui/incidents",
        effect=question_of("rearm", ramp, None, 0).effect if ramp and can_rearm else "",
        request_id=uuid4().hex,
        seen=position_of(ramp) if ramp else "",
        **context,
    )


def _no_such_rollback(entered: Entered, rollback_id: str) -> Response[str]:
    """Say so; where the store cannot be asked, what this replica knows by itself."""
    past, latch = entered.board.past, entered.board.parts.rollout.latch
    if past.error is None:
        words, title, status = "The trail knows no such rollback.", "No such rollback", 404
    else:
        words, title, status = past.error, "Not now", 503
        own = latch.undelivered or (latch.record.ramp.rollback if latch.record else None)
        if own is not None and own.rollback_id == rollback_id:
            why = own.reason or "no reason was given"
            words += (
                f" Known here: rolled back {stamp(own.at)} UTC at {own.from_share_percent} %, by {own.actor}: {why}."
            )
    return page("error.html", status=status, session=entered.session, here="", title=title, words=words)


@get("/requests", include_in_schema=False)
async def requests_page(request: _Request, entered: Entered) -> Response[str]:
    """Show one request, and which can be shown."""
    board = entered.board
    parts = board.parts
    request_id = request.query_params.get("id", "").strip()[:128]
    seen, error = await board.find(request_id) if request_id else (None, "")
    return page(
        "requests.html",
        status=404 if error else 200,
        session=entered.session,
        here="/ui/requests",
        id=request_id,
        seen=seen,
        error=error,
        why=why(seen.exposure.assignment) if seen else "",
        trace=trace_of(seen.exposure.traceparent) if seen else "",
        traces_url=parts.settings.alerts.traces_url,
        timings=timings(seen) if seen else "",
        orders=orders(seen) if seen else "",
        lines=await board.recent.newest(),
        has_log=parts.events.log is not None,
    )


@get("/history", include_in_schema=False)
async def history_page(request: _Request, entered: Entered) -> Response[str]:
    """Show the audit trail, or what of it has the words that are searched for."""
    entries = await entered.board.past.history(_MOST_ENTRIES)
    query = request.query_params.get("q", "").strip()[:200]
    found = [each for each in entries if is_found(each, query)]
    return page(
        "history.html",
        session=entered.session,
        here="/ui/history",
        entries=found[:_SHOWN_ENTRIES],
        found=len(found),
        total=len(entries),
        is_all=len(entries) < _MOST_ENTRIES,
        q=query,
        error=entered.board.past.error,
    )


@get("/replicas", include_in_schema=False)
async def replicas_page(entered: Entered) -> Response[str]:
    """Show the replicas."""
    status = entered.board.parts.rollout.status()
    return page(
        "replicas.html",
        session=entered.session,
        here="/ui/replicas",
        replicas=status["replicas"],
        leader=status["leader"],
    )


def _tier(request: _Request) -> Tier:
    return BY_NAME.get(request.query_params.get("window", ""), FINEST)


def _own_path(path: str) -> str:
    """Return *path* where it is one of these pages, so that a link cannot lead elsewhere after signing in."""
    is_ours = (path == "/ui" or path.startswith(("/ui/", "/ui?"))) and ".." not in path.partition("?")[0].split("/")
    return quote(path, safe="/?=&%-._~") if is_ours and "\\" not in path else "/ui"


def dashboard_routes() -> list[ControllerRouterHandler]:
    """Return the pages; those below the router are for who is signed in."""
    inside = Router(
        "/ui",
        route_handlers=[
            rollout_page,
            live,
            incidents_page,
            incident_page,
            requests_page,
            history_page,
            replicas_page,
            *action_routes(),
        ],
        dependencies={"entered": Provide(who_entered)},
        exception_handlers={NotSignedIn: on_not_signed_in, ProxyError: on_error},
    )
    doors = Router("/", route_handlers=[login_page, login, logout], exception_handlers={ProxyError: on_error})
    return [home, static_file, doors, inside]
