"""Who may see the pages, and how those who may not are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlsplit

from litestar import MediaType, Request, Response

from proxy.dashboard.board import Board  # noqa: TC001 - Litestar reads annotations when it starts
from proxy.dashboard.render import HEADERS, page
from proxy.dashboard.session import COOKIE, Session, is_same
from proxy.errors import Forbidden

if TYPE_CHECKING:
    from collections.abc import Mapping

    from litestar.exceptions import HTTPException

    from proxy.errors import ProxyError

_Request = Request[Any, Any, Any]
_NOT_OURS = "this form is not of this session: go back, load the page again and repeat it"


class NotSignedIn(Exception):
    """Nobody is signed in, or not any more."""


class Entered(NamedTuple):
    """Somebody who is signed in, and what there is to see."""

    board: Board
    session: Session


async def who_entered(request: _Request) -> Entered:
    """Return who looks.

    Raises:
        NotSignedIn: the cookie is missing, or its session is over.

    """
    session, board = session_of(request), board_of(request)
    if session is None or await board.ended.has(session):
        raise NotSignedIn
    return Entered(board, session)


def board_of(request: _Request) -> Board:
    """Return the dashboard of this process."""
    board: Board = request.app.state.board
    return board


def session_of(request: _Request) -> Session | None:
    """Return whose session the cookie is."""
    return board_of(request).sessions.of(request.cookies.get(COOKIE, ""))


def check_form(request: _Request, session: Session, form: Mapping[str, Any]) -> None:
    """Pass a form that one of these pages made.

    Raises:
        Forbidden: another site made it, or an older session.

    """
    check_origin(request)
    if not is_same(session.csrf, str(form.get("csrf", ""))):
        raise Forbidden(_NOT_OURS)


def check_origin(request: _Request) -> None:
    """Pass what a page of this host sent, or what is no browser.

    Raises:
        Forbidden: another site made the form.

    """
    origin = request.headers.get("origin", "")
    if origin and urlsplit(origin).netloc != request.headers.get("host", ""):
        raise Forbidden(_NOT_OURS)


def is_secure(request: _Request) -> bool:
    """Tell whether the browser came by https, here or to what stands before."""
    return request.scope["scheme"] == "https" or request.headers.get("x-forwarded-proto", "") == "https"


def redirect(path: str) -> Response[str]:
    """Send the browser to a page, by GET."""
    headers = {**HEADERS, "location": path}
    return Response("", status_code=303, media_type=MediaType.HTML, headers=headers)


def on_not_signed_in(request: _Request, _: NotSignedIn) -> Response[str]:
    """Send to the sign-in page, and back afterwards."""
    if request.method != "GET" or request.url.path == "/ui/live":
        return page("error.html", status=401, session=None, here="", title="Signed out", words="Sign in again at /ui.")
    path = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    return redirect(f"/ui/login?next_page={quote(path, safe='')}")


def on_http_error(request: _Request, error: HTTPException) -> Response[str]:
    """Say as a page that there is none, or that it is not asked for like this."""
    if error.status_code == 405:
        return redirect("/ui")  # a form's address, entered or loaded again: there is nothing to read there
    title = "There is no such page" if error.status_code == 404 else "That did not work"
    words = "The address leads nowhere." if error.status_code == 404 else error.detail
    return page("error.html", status=error.status_code, session=session_of(request), here="", title=title, words=words)


def on_error(request: _Request, error: ProxyError) -> Response[str]:
    """Say what went wrong as a page."""
    title = {403: "Not allowed", 404: "Not found", 503: "Not now"}.get(error.status, "That did not work")
    return page("error.html", status=error.status, session=session_of(request), here="", title=title, words=str(error))
