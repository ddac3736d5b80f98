"""The two applications: data plane and control plane, over the same parts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from litestar import Litestar, MediaType, Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig

from proxy.dashboard.board import Board
from proxy.errors import ProxyError, TooLarge
from proxy.identity import BodyReader
from proxy.routes.control import control_routes
from proxy.routes.dashboard import dashboard_routes
from proxy.routes.dashboard_entry import on_http_error as on_page_error
from proxy.routes.data import RANKING_PATHS, data_routes
from proxy.routes.docs import PlainPage
from proxy.routes.feedback import feedback_routes
from proxy.routes.guard import guard_routes
from proxy.routes.probes import PROBE_PATHS, client_routes, probe_routes
from proxy.routes.rollout import rollout_routes
from proxy.routes.search import SEARCH_PATH, search_routes
from proxy.visit import Speaker, Visit, Visits, visit_of
from proxy.wire.canonical import error_body
from proxy.wire.detect import JINA

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from litestar.types import ControllerRouterHandler

    from proxy.parts import Parts

_log = structlog.get_logger(__name__)


def create_data_app(parts: Parts) -> Litestar:
    """Return the data plane."""

    def note(visit: Visit) -> None:
        parts.telemetry.http(visit, visit.seconds)
        if visit.status >= 400 and visit.exposure is None and visit.route not in PROBE_PATHS:
            _log.info(
                "rerank.refused",
                request_id=visit.request_id,
                status=visit.status,
                error=visit.error_code,
                route=visit.route,
                dialect=visit.speaker.name if visit.speaker else None,
                seconds=round(visit.seconds, 6),
            )

    optional = [*(feedback_routes() if parts.feedback else []), *(search_routes() if parts.search else [])]
    return _create(
        parts,
        "rerank-canary",
        [*data_routes(), *optional, *probe_routes(), *client_routes()],
        parts.settings.limits.max_body_bytes,
        on_error=_on_proxy_error,
        note=note,
    )


def create_control_app(parts: Parts) -> Litestar:
    """Return the control plane."""
    routes = [*control_routes(), *rollout_routes(), *guard_routes(), *probe_routes()]
    app = _create(
        parts,
        "rerank-canary control plane",
        [*routes, *(dashboard_routes() if parts.recent else [])],
        1 << 20,
        on_error=_on_control_error,
        note=lambda _: None,
    )
    if parts.recent is not None:
        app.state.board = Board(parts, parts.recent)
    return app


def _create(
    parts: Parts,
    title: str,
    routes: Sequence[ControllerRouterHandler],
    max_body_bytes: int,
    *,
    on_error: Callable[[Request[Any, Any, Any], ProxyError], Response[bytes]],
    note: Callable[[Visit], None],
) -> Litestar:
    app = Litestar(
        routes,
        state=State({"parts": parts, "body_reader": BodyReader(parts.settings.identity)}),
        request_max_body_size=max_body_bytes,
        exception_handlers={
            ProxyError: on_error,
            HTTPException: _on_http_error,
            Exception: _on_unexpected,
        },
        openapi_config=OpenAPIConfig(
            title=title, version=parts.version, path="/docs", render_plugins=[PlainPage(path="/")]
        ),
        logging_config=None,
    )
    app.asgi_handler = Visits(
        app.asgi_handler, {route.path for route in app.routes}, (*RANKING_PATHS, SEARCH_PATH), note
    )
    return app


def _on_proxy_error(request: Request[Any, Any, Any], error: ProxyError) -> Response[bytes]:
    """Answer an error of ours in the body that every rerank client reads, or in the request's dialect."""
    visit = visit_of(request.scope)
    route = request.scope.get("route_handler")
    speaker: Speaker = visit.speaker or (route.opt.get("speaker", JINA) if route else JINA)
    visit.error_code = error.code
    status, body = speaker.write_error(error, visit.request_id)
    return _json(body, status, _retry_after(error))


def _on_control_error(request: Request[Any, Any, Any], error: ProxyError) -> Response[bytes]:
    """Answer an error of ours to an operator, under its own status."""
    body = error_body(error, visit_of(request.scope).request_id)
    return _json(body, error.status, _retry_after(error))


def _retry_after(error: ProxyError) -> dict[str, str]:
    seconds = error.retry_after_seconds
    return {} if seconds is None else {"retry-after": str(math.ceil(seconds))}


def _on_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[Any]:
    """Answer what Litestar refused before a handler saw it: unknown paths, methods, too large bodies."""
    if error.status_code == TooLarge.status:
        limit = request.app.state.parts.settings.limits.max_body_bytes
        return _on_proxy_error(request, TooLarge(f"the body is longer than {limit} bytes", field="body"))
    if request.scope["path"].startswith("/ui") and hasattr(request.app.state, "board"):
        return on_page_error(request, error)
    visit = visit_of(request.scope)
    codes = {404: "not_found", 405: "method_not_allowed"}
    body = error_body(ProxyError(_named_fields(error) or error.detail), visit.request_id)
    visit.error_code = code = codes.get(error.status_code, "invalid_request")
    body |= {"type": code, "code": code, "error": body["error"] | {"type": code, "code": code}}
    return _json(body, error.status_code, dict(error.headers or {}))


def _named_fields(error: HTTPException) -> str:
    """Return what a validation says of each field; nothing where the error is no validation."""
    found = error.extra if isinstance(error.extra, list) else []
    return "; ".join(
        f"{each.get('key', 'body')}: {each.get('message', '')}" for each in found if isinstance(each, dict)
    )


def _on_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer a defect of ours without a word of what it said."""
    request_id = visit_of(request.scope).request_id
    _log.error("request.failed", request_id=request_id, path=request.scope["path"], exc_info=error)
    return _on_proxy_error(request, ProxyError("an internal error; it is logged under this id"))


def _json(body: object, status: int, headers: dict[str, str]) -> Response[bytes]:
    return Response(msgspec.json.encode(body), status_code=status, media_type=MediaType.JSON, headers=headers)
