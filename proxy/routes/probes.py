"""What clients and clusters ask before they send work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar import Request, Response, get

from proxy.arms.cross_encoder import CrossEncoderArm
from proxy.settings import CrossEncoderBackend, LlmBackend

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler

    from proxy.parts import Parts


_USUAL_TOKENS = 512
PROBE_PATHS = frozenset({"/livez", "/readyz", "/health"})


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
    """Describe the candidate, or control where there is none, as TEI would describe its model."""
    parts: Parts = request.app.state.parts
    limits = parts.settings.limits
    dtype, max_tokens = _model_facts(parts)
    return {
        "model_id": parts.model_names()[0],
        "model_sha": None,
        "model_dtype": dtype,
        "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
        "max_concurrent_requests": parts.settings.server.max_connections,
        "max_input_length": max_tokens,
        "max_batch_tokens": limits.max_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": limits.max_documents,
        "auto_truncate": True,
        "tokenization_workers": 1,
        "version": parts.version,
        "sha": None,
        "docker_label": None,
    }


def _model_facts(parts: Parts) -> tuple[str, int]:
    """Return what the described model computes with, and how many tokens of query and document it reads.

    Raises:
        NotReady: it is still loading.

    """
    roles = parts.settings.arms
    name = roles.candidate if roles.candidate in parts.arms else roles.control
    arm, backend = parts.arms[name], parts.settings.backend(name)
    if isinstance(arm, CrossEncoderArm):
        engine = arm.loaded.engine
        return engine.precision, engine.limits.pair
    if isinstance(backend, CrossEncoderBackend):
        return "unknown", backend.max_tokens or _USUAL_TOKENS
    query_tokens = backend.max_query_tokens if isinstance(backend, LlmBackend) else 0
    return "unknown", query_tokens + backend.max_document_tokens


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
