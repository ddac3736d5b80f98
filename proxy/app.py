"""The two applications: data plane and control plane, over the same parts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import msgspec
import structlog
from litestar import Litestar, MediaType, Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import SwaggerRenderPlugin

from proxy.errors import ProxyError, TooLarge
from proxy.routes.control import control_routes
from proxy.routes.data import data_routes
from proxy.routes.probes import client_routes, probe_routes
from proxy.routes.rollout import rollout_routes
from proxy.wire.canonical import error_body
from proxy.wire.detect import JINA

if TYPE_CHECKING:
    from collections.abc import Callable

    from litestar.handlers import HTTPRouteHandler

    from proxy.parts import Parts

_log = structlog.get_logger(__name__)


def create_data_app(parts: Parts) -> Litestar:
    """Return the data plane."""
    return _create(
        parts,
        "rerank-canary",
        [*data_routes(), *probe_routes(), *client_routes()],
        parts.settings.limits.max_body_bytes,
        on_error=_on_proxy_error,
    )


def create_control_app(parts: Parts) -> Litestar:
    """Return the control plane."""
    routes = [*control_routes(), *rollout_routes(), *probe_routes()]
    return _create(parts, "rerank-canary control plane", routes, 1 << 20, on_error=_on_control_error)


def _create(
    parts: Parts,
    title: str,
    routes: list[HTTPRouteHandler],
    max_body_bytes: int,
    *,
    on_error: Callable[[Request[Any, Any, Any], ProxyError], Response[bytes]],
) -> Litestar:
    return Litestar(
        routes,
        state=State({"parts": parts}),
        request_max_body_size=max_body_bytes,
        exception_handlers={
            ProxyError: on_error,
            HTTPException: _on_http_error,
            Exception: _on_unexpected,
        },
        openapi_config=OpenAPIConfig(
            title=title, version=parts.version, path="/docs", render_plugins=[SwaggerRenderPlugin(path="/")]
        ),
        logging_config=None,
    )


def _on_proxy_error(request: Request[Any, Any, Any], error: ProxyError) -> Response[bytes]:
    """Answer an error of ours in the body that every rerank client reads, or in the route's dialect."""
    speaker = request.scope["route_handler"].opt.get("speaker", JINA) if "route_handler" in request.scope else JINA
    request_id = uuid4().hex
    status, body = speaker.write_error(error, request_id)
    return _json(body, status, {"x-request-id": request_id})


def _on_control_error(request: Request[Any, Any, Any], error: ProxyError) -> Response[bytes]:
    """Answer an error of ours to an operator, under its own status."""
    del request
    request_id = uuid4().hex
    headers = {"x-request-id": request_id}
    if error.retry_after_seconds is not None:
        headers["retry-after"] = str(math.ceil(error.retry_after_seconds))
    return _json(error_body(error, request_id), error.status, headers)


def _on_http_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """Answer what Litestar refused before a handler saw it: unknown paths, methods, too large bodies."""
    if error.status_code == TooLarge.status:
        limit = request.app.state.parts.settings.limits.max_body_bytes
        return _on_proxy_error(request, TooLarge(f"the body is longer than {limit} bytes", field="body"))
    codes = {404: "not_found", 405: "method_not_allowed"}
    shown = ProxyError(_named_fields(error) or error.detail)
    body = error_body(shown, request_id := uuid4().hex)
    code = codes.get(error.status_code, "invalid_request")
    body |= {"type": code, "code": code, "error": body["error"] | {"type": code, "code": code}}
    return _json(body, error.status_code, {"x-request-id": request_id, **(error.headers or {})})


def _named_fields(error: HTTPException) -> str:
    """Return what a validation says of each field; nothing where the error is no validation."""
    found = error.extra if isinstance(error.extra, list) else []
    return "; ".join(
        f"{each.get('key', 'body')}: {each.get('message', '')}" for each in found if isinstance(each, dict)
    )


def _on_unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer a defect of ours without a word of what it said."""
    _log.error("request.failed", path=request.scope["path"], exc_info=error)
    return _on_proxy_error(request, ProxyError("an internal error; it is logged under this id"))


def _json(body: object, status: int, headers: dict[str, str]) -> Response[bytes]:
    return Response(msgspec.json.encode(body), status_code=status, media_type=MediaType.JSON, headers=headers)
