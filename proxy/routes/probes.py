"""What clients and clusters ask before they send work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar import Request, Response, get

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler

    from proxy.parts import Parts


@get("/livez", summary="the process answers; never touches the model", include_in_schema=True, sync_to_thread=False)
def livez() -> dict[str, str]:
    """Answer."""
    return {"status": "alive"}


@get(
    ["/readyz", "/health"],
    summary="the model is warm, the flag is known or its default is, nothing drains",
    sync_to_thread=False,
)
def readyz(request: Request[Any, Any, Any]) -> Response[dict[str, Any]]:
    """Answer 200 or 503, and why."""
    parts: Parts = request.app.state.parts
    checks = parts.readiness()
    is_ready = all(checks.values())
    return Response(
        {"status": "ready" if is_ready else "not ready", "checks": checks}, status_code=200 if is_ready else 503
    )


@get("/info", summary="TEI's self-description, which Dify asks for", sync_to_thread=False)
def info(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """Describe the candidate as TEI would describe its model."""
    parts: Parts = request.app.state.parts
    limits = parts.settings.limits
    return {
        "model_id": parts.model_names()[0],
        "model_sha": None,
        "model_dtype": "int8",
        "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
        "max_concurrent_requests": parts.settings.server.max_connections,
        "max_input_length": parts.max_input_tokens(),
        "max_batch_tokens": limits.max_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": limits.max_documents,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": parts.version,
        "sha": None,
        "docker_label": None,
    }


@get(["/v1/models", "/models"], summary="the arms as OpenAI-style models", sync_to_thread=False)
def models(request: Request[Any, Any, Any]) -> dict[str, Any]:
    """List the arms' models."""
    parts: Parts = request.app.state.parts
    return {
        "object": "list",
        "data": [
            {"id": name, "object": "model", "created": 0, "owned_by": "rerank-canary"} for name in parts.model_names()
        ],
    }


def probe_routes() -> list[HTTPRouteHandler]:
    """Return the routes of both planes that answer without ranking."""
    return [livez, readyz]


def client_routes() -> list[HTTPRouteHandler]:
    """Return what clients of the data plane look at first."""
    return [info, models]
