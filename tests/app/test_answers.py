"""What every answer says beside its body, and what is noted of those who got none."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import structlog
from litestar import Litestar
from litestar.datastructures import State
from prometheus_client import generate_latest

from proxy.routes.control import metrics
from proxy.secrets import hash_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.exposure import Exposure
    from tests.conftest import Plane

BODY = {"query": "a b", "documents": ["c", "a", "a b"]}
ALWAYS = ("x-request-id", "server-timing")
WHERE_SOMETHING_RANKS = (*ALWAYS, "x-rerank-arm", "x-rerank-served-by", "x-rerank-bucket")
KEYS = {"RERANK_CANARY__AUTH__DATA_KEYS": f'["{hash_key("good")}"]'}
FULL = {"RERANK_CANARY__SERVER__MAX_CONNECTIONS": "1"}
SHORT = {"RERANK_CANARY__LIMITS__MAX_BODY_BYTES": "300"}

REFUSED: dict[str, tuple[dict[str, str], str, str, dict[str, Any], int]] = {
    "no JSON": ({}, "POST", "/v1/rerank", {"content": b"{"}, 400),
    "a broken rule": ({}, "POST", "/v2/rerank", {"json": BODY | {"query": " "}}, 400),
    "no key": (KEYS, "POST", "/v1/rerank", {"json": BODY}, 401),
    "too long a body": (SHORT, "POST", "/v1/rerank", {"json": BODY | {"query": "x" * 300}}, 413),
    "too long a chunked body": (SHORT, "POST", "/v1/rerank", {"content": b""}, 413),
    "too many requests": (FULL, "POST", "/v1/ranking", {"json": BODY}, 429),
    "a wrong method": ({}, "GET", "/v1/rerank", {}, 405),
    "a defect": ({}, "POST", "/v1/score", {"json": {"text_1": "q", "text_2": "a"}}, 500),
}
refused = pytest.mark.parametrize("name", REFUSED)


async def refusal(make_plane: Callable[..., Plane], name: str, monkeypatch: pytest.MonkeyPatch) -> httpx.Response:
    env, method, path, fields, _ = REFUSED[name]
    plane = make_plane(**env)
    plane.parts.in_flight.count = 1 if env is FULL else 0
    if name == "a defect":
        monkeypatch.setattr(plane.parts.service, "serve", None)
    if name == "too long a chunked body":

        async def pieces() -> Any:
            for piece in (b'{"query": "', b"x" * 300, b'"}'):
                yield piece

        fields = {"content": pieces()}
    return await plane.client.request(method, path, headers={"x-request-id": "mine-1"}, **fields)


@refused
async def test_a_refusal_says_as_much_as_an_answer_and_keeps_the_callers_id(
    make_plane: Callable[..., Plane], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    response = await refusal(make_plane, name, monkeypatch)
    assert response.status_code == REFUSED[name][-1]
    for header in WHERE_SOMETHING_RANKS:
        assert len(response.headers.get_list(header)) == 1, header
    found = [response.headers[header] for header in WHERE_SOMETHING_RANKS if header != "server-timing"]
    assert found == ["mine-1", "none", "nobody", "none"]


@refused
async def test_a_refusal_leaves_one_line_without_content(
    make_plane: Callable[..., Plane], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with structlog.testing.capture_logs() as lines:
        response = await refusal(make_plane, name, monkeypatch)
    (line,) = [line for line in lines if line["event"] == "rerank.refused"]
    assert (line["request_id"], line["status"], line["route"]) == ("mine-1", response.status_code, REFUSED[name][2])
    assert line["error"] == response.json()["code"]
    assert set(line) == {"event", "log_level", "request_id", "status", "error", "route", "dialect", "seconds"}


async def test_a_request_that_was_assigned_leaves_the_line_of_the_served_only(plane: Plane) -> None:
    plane.gpt.fault = plane.cross_encoder.fault = RuntimeError()
    with structlog.testing.capture_logs() as lines:
        response = await plane.client.post("/v1/rerank", json=BODY)
    assert (response.status_code, response.headers["x-rerank-served-by"]) == (503, "nobody")
    assert response.headers["x-rerank-arm"] == "control"
    assert [line["event"] for line in lines if line["event"].startswith("rerank.")] == ["rerank.served"]


async def test_a_defect_is_logged_under_the_id_that_is_answered(
    make_plane: Callable[..., Plane], monkeypatch: pytest.MonkeyPatch
) -> None:
    with structlog.testing.capture_logs() as lines:
        response = await refusal(make_plane, "a defect", monkeypatch)
    (line,) = [line for line in lines if line["event"] == "request.failed"]
    assert line["request_id"] == response.headers["x-request-id"] == response.json()["id"]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/info", "/v1/models", "/docs", "/nowhere"])
async def test_whatever_answers_has_an_id_and_a_time(plane: Plane, path: str) -> None:
    response = await plane.client.get(path, headers={"x-request-id": "mine-1"})
    assert response.headers["x-request-id"] == "mine-1"
    assert "total;dur=" in response.headers["server-timing"]
    assert "x-rerank-arm" not in response.headers


async def test_every_request_is_measured_under_a_label_of_a_closed_set(plane: Plane) -> None:
    await plane.client.post("/v1/rerank", json=BODY)
    await plane.client.post("/v1//rerank/", content=b"{")
    await plane.client.get("/nowhere")
    await plane.client.request("BREW", "/v1/rerank")
    text = generate_latest(plane.parts.otel.registry).decode()
    counts = [line for line in text.splitlines() if line.startswith("http_server_request_duration_seconds_count")]
    assert any('status_code="200"' in line and 'http_route="/v1/rerank"' in line for line in counts)
    assert any('status_code="400"' in line and 'http_route="/v1/rerank"' in line for line in counts)
    assert any('status_code="404"' in line and 'http_route=""' in line for line in counts)
    assert any('status_code="405"' in line and 'method="_OTHER"' in line for line in counts)
    assert all('url_scheme="http"' in line for line in counts)


async def test_a_model_name_of_any_alphabet_fits_a_header(plane: Plane) -> None:
    plane.gpt.model = plane.cross_encoder.model = "модель@1"
    response = await plane.client.post("/v1/rerank", json=BODY)
    assert response.status_code == 200
    assert response.headers["x-rerank-model"].endswith("%8C@1")
    assert response.json()["model"] == "модель@1"


async def test_the_metrics_have_one_charset(plane: Plane) -> None:
    app = Litestar([metrics], state=State({"parts": plane.parts}), logging_config=None)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://c") as client:  # type: ignore[arg-type]  # Litestar's own types
        response = await client.get("/metrics")
    assert response.headers.get_list("content-type") == ["text/plain; version=0.0.4; charset=utf-8"]


async def test_warnings_reach_clients_whose_body_has_no_place_for_them(plane: Plane) -> None:
    body = {"query": "a", "texts": ["a"], "truncation_direction": "Left"}
    response = await plane.client.post("/rerank", json=body)
    assert "truncation_direction" in response.headers["x-rerank-warnings"]


async def test_pairs_of_one_request_have_one_caller_and_one_arm(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(RERANK_CANARY__FLAG__INITIAL_SHARE_PERCENT="50")
    seen: list[Exposure] = []
    plane.parts.observers._observers = [type("Seen", (), {"observe": staticmethod(seen.append)})()]
    queries = [f"query {i}" for i in range(12)]
    response = await plane.client.post(
        "/score", json={"text_1": queries, "text_2": ["a"] * 12}, headers={"x-request-id": "mine"}
    )
    assert response.json()["id"] == response.headers["x-request-id"] == "mine"
    assert len({exposure.user_hash for exposure in seen}) == 1
    assert len({exposure.assignment.arm for exposure in seen}) == 1
    assert {exposure.request_id for exposure in seen} == {"mine", *(f"mine.{i}" for i in range(2, 13))}


async def test_the_loop_goes_on_while_tokens_of_a_large_body_are_counted(plane: Plane) -> None:
    body = {"query": "q", "documents": ["the quick brown fox jumps over it " * 400] * 1000}
    content = httpx.Request("POST", "http://proxy", json=body).content
    waits, is_done = [0.0], False

    async def watch() -> None:
        while not is_done:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            waits.append(time.perf_counter() - began)

    watching = asyncio.create_task(watch())
    await asyncio.sleep(0)
    response = await plane.client.post("/v1/rerank", content=content)
    is_done = True
    await watching
    assert response.status_code == 422
    assert "tokens" in response.json()["message"]
    # what is left is one pass of the JSON decoder, which lets no other thread run; counting took half a second
    assert max(waits) < 0.15
