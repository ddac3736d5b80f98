"""The control plane: what operators and Prometheus read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar import Request, Response, get
from prometheus_client.exposition import choose_encoder

from proxy.keys import presented_key
from proxy.status import status_of

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler

    from proxy.parts import Parts


@get("/metrics", summary="Prometheus", sync_to_thread=True)
def metrics(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Return every metric; no labels but from closed sets."""
    parts: Parts = request.app.state.parts
    encode, content_type = choose_encoder(request.headers.get("accept", ""))
    # Litestar would add a second charset to a media type of its own
    return Response(encode(parts.otel.registry), headers={"content-type": content_type})


@get("/status", summary="flag, arms, fallback, store", sync_to_thread=False)
def status(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Return what an operator asks first. Takes a control token."""
    parts: Parts = request.app.state.parts
    parts.keys.check_control(presented_key(request.headers))
    return status_of(parts)


def control_routes() -> list[HTTPRouteHandler]:
    """Return every route of the control plane."""
    return [metrics, status]
