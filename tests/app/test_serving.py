"""Assignment, headers, keys and probes, over HTTP."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from flags.bucketing import bucket
from proxy.app import create_data_app
from proxy.arms.cross_encoder import CrossEncoderArm
from proxy.listeners import Listener
from proxy.secrets import hash_key
from proxy.settings import CrossEncoderBackend

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from tests.conftest import Plane

BODY = {"query": "a b", "documents": ["c", "a", "a b"]}


async def ask(plane: Plane, path: str = "/v1/rerank", **headers: str) -> httpx.Response:
    return await plane.client.post(path, json=BODY, headers={k.replace("_", "-"): v for k, v in headers.items()})


async def test_the_arm_is_the_one_of_the_users_bucket(plane: Plane) -> None:
    for user in map("user-{}".format, range(200)):
        response = await ask(plane, x_user_id=user)
        found = bucket("rerank-canary", user)
        assert response.headers["x-rerank-bucket"] == str(found)
        assert response.headers["x-rerank-arm"] == ("candidate" if found <= 5 else "control")


async def test_a_user_has_one_arm_whatever_is_asked_and_in_every_dialect(plane: Plane) -> None:
    arms = {(await ask(plane, path, x_user_id="u7")).headers["x-rerank-arm"] for path in ("/v1/rerank", "/v2/rerank")}
    response = await plane.client.post("/rerank", json={"query": "z", "texts": ["q"]}, headers={"x-user-id": "u7"})
    assert arms | {response.headers["x-rerank-arm"]} == {"candidate"}


async def test_the_body_can_name_the_user(plane: Plane) -> None:
    response = await plane.client.post("/v1/rerank", json=BODY | {"user": "u7"})
    assert response.headers["x-rerank-bucket"] == "1"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rerank", BODY),
        ("/v1/rerank", BODY | {"top_k": 1}),
        ("/v1/rerank", BODY | {"max_chunks_per_doc": 1}),
        ("/v2/rerank", BODY),
        ("/rerank", {"query": "q", "texts": ["a"]}),
        ("/v1/ranking", {"query": {"text": "q"}, "passages": [{"text": "a"}]}),
        ("/score", {"text_1": "q", "text_2": "a"}),
    ],
    ids=["jina", "voyage", "cohere-v1", "cohere-v2", "tei", "nim", "score"],
)
async def test_a_configured_field_of_the_body_names_the_user_in_every_dialect(
    make_plane: Callable[..., Plane], path: str, body: dict[str, object]
) -> None:
    plane = make_plane(RERANK_CANARY__IDENTITY__USER='["body:user_id"]')
    for value, user in (("u7", "u7"), ("user-1", "user-1"), (123, "123")):
        response = await plane.client.post(path, json=body | {"user_id": value, "user": 7})
        assert response.status_code == 200
        assert response.headers["x-rerank-bucket"] == str(bucket("rerank-canary", user))


async def test_every_answer_says_who_served_it_and_how_long_it_took(plane: Plane) -> None:
    response = await ask(plane, x_user_id="u7")
    assert response.headers["x-rerank-served-by"] == "candidate"
    assert response.headers["x-rerank-model"] == "cross-encoder-test"
    assert response.headers["x-rerank-reason"] == "split"
    assert "total;dur=" in response.headers["server-timing"]
    assert "candidate;dur=" in response.headers["server-timing"]


async def test_a_request_id_is_kept_or_made(plane: Plane) -> None:
    assert (await ask(plane, x_request_id="mine-1")).headers["x-request-id"] == "mine-1"
    made = [(await ask(plane)).headers["x-request-id"] for _ in range(2)]
    assert len(set(made)) == 2
    assert (await ask(plane, x_request_id="no spaces, please")).headers["x-request-id"] not in {"no spaces, please", ""}


async def test_tei_clients_get_teis_timings(plane: Plane) -> None:
    response = await plane.client.post("/rerank", json={"query": "a", "texts": ["a"]})
    for name in ("x-total-time", "x-tokenization-time", "x-queue-time", "x-inference-time", "x-compute-tokens"):
        assert response.headers[name].isdecimal()


@pytest.mark.parametrize(
    "path", ["/v1/v1/rerank", "/v1/v2/rerank", "/cohere/v2/rerank", "/cohere/v1/rerank", "/rerank"]
)
async def test_aliases_rank_too(plane: Plane, path: str) -> None:
    assert (await ask(plane, path)).status_code == 200


async def test_a_configured_dialect_overrides_detection(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(RERANK_CANARY__WIRE__DIALECTS='{"/v1/rerank": "voyage"}')
    assert "data" in (await ask(plane)).json()


async def test_a_key_can_be_bound_to_a_dialect(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(RERANK_CANARY__WIRE__DIALECTS=f'{{"{hash_key("k1")}": "cohere-v1"}}')
    assert "document" not in (await ask(plane, authorization="Bearer k1")).json()["results"][0]
    assert "document" in (await ask(plane, authorization="Bearer k2")).json()["results"][0]


async def test_with_keys_configured_only_they_open(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(RERANK_CANARY__AUTH__DATA_KEYS=f'["{hash_key("good")}"]')
    assert (await ask(plane, authorization="bearer good")).status_code == 200
    for headers in ({}, {"authorization": "Bearer wrong"}, {"x_api_key": ""}):
        response = await ask(plane, **headers)
        assert response.status_code == 401
        assert "API key" in response.json()["message"]
    assert len(plane.gpt.calls) + len(plane.cross_encoder.calls) == 1


async def test_who_has_no_key_is_told_so_in_his_own_dialect(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(RERANK_CANARY__AUTH__DATA_KEYS=f'["{hash_key("good")}"]')
    for body, sign in (({"texts": []}, "error_type"), ({"documents": [], "top_k": None}, "detail")):
        answer = await plane.client.post("/rerank", json={"query": "q", **body})
        assert answer.status_code == 401
        assert sign in answer.json()
        assert not isinstance(answer.json().get("error"), dict)


async def test_the_forced_arm_needs_the_control_planes_key(plane: Plane) -> None:
    token = (plane.parts.settings.data_dir / "control.token").read_text().strip()
    for arm in ("control", "candidate"):
        response = await ask(plane, x_rerank_force_arm=arm, x_rerank_control_key=token)
        assert (response.headers["x-rerank-arm"], response.headers["x-rerank-reason"]) == (arm, "forced")
        assert (await ask(plane, x_rerank_force_arm=arm, x_rerank_control_key="guess")).status_code == 401
    response = await ask(plane, x_rerank_force_arm="both", x_rerank_control_key=token)
    assert response.status_code == 422


async def test_switched_off_everybody_gets_control_whatever_the_flag_says(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(USE_CROSS_ENCODER="false")
    response = await ask(plane, x_user_id="u7")
    assert (response.headers["x-rerank-arm"], response.headers["x-rerank-reason"]) == ("control", "switched_off")


async def test_a_candidate_that_is_not_ready_gets_nobody(plane: Plane) -> None:
    plane.cross_encoder.is_ready = False
    response = await ask(plane, x_user_id="u7")
    assert (response.headers["x-rerank-arm"], response.headers["x-rerank-reason"]) == ("control", "not_ready")


async def test_top_n_has_a_default_in_the_configuration(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(TOP_N="1")
    assert len((await ask(plane)).json()["results"]) == 1


async def test_liveness_never_asks_the_model_and_readiness_does(plane: Plane) -> None:
    assert (await plane.client.get("/readyz")).status_code == 200
    plane.cross_encoder.is_ready = plane.cross_encoder.is_well = False
    response = await plane.client.get("/readyz")
    assert (response.status_code, response.json()["checks"]["candidate_ready"]) == (503, False)
    assert (await plane.client.get("/livez")).status_code == 200


async def test_draining_is_not_ready_and_still_serves(plane: Plane) -> None:
    plane.parts.is_draining = True
    assert (await plane.client.get("/health")).status_code == 503
    assert (await ask(plane)).status_code == 200


async def test_probing_clients_find_what_they_look_for(plane: Plane) -> None:
    info = (await plane.client.get("/info")).json()
    assert "reranker" in info["model_type"]
    assert info["max_client_batch_size"] == 1000
    for path in ("/v1/models", "/models"):
        names = [model["id"] for model in (await plane.client.get(path)).json()["data"]]
        assert names == ["cross-encoder-test", "gpt-test"]


async def test_what_is_said_of_the_model_is_true_of_the_one_that_serves(plane: Plane) -> None:
    info = (await plane.client.get("/info")).json()
    assert (info["model_dtype"], info["max_input_length"]) == ("unknown", 512)
    arm = CrossEncoderArm(CrossEncoderBackend(max_tokens=256))
    plane.parts.arms["cross-encoder"] = arm
    assert (await plane.client.get("/info")).status_code == 503
    await arm.start()
    info = (await plane.client.get("/info")).json()
    assert (info["model_dtype"], info["max_input_length"]) == ("int8", 256)
    await arm.close()


@pytest.mark.parametrize(
    ("user", "model", "compute"),
    [("u1", "gpt", "remote"), ("u7", "m@1/openvino-int8", "cpu"), ("u7", "m@1/stock-bfloat16-cuda", "gpu")],
)
async def test_tei_clients_are_told_what_computed(plane: Plane, user: str, model: str, compute: str) -> None:
    plane.gpt.model = plane.cross_encoder.model = model
    response = await plane.client.post("/rerank", json={"query": "a", "texts": ["a"]}, headers={"x-user-id": user})
    assert response.headers["x-compute-type"] == compute


async def test_bytes_that_are_no_http_are_answered_in_json(plane: Plane) -> None:
    listener = Listener("127.0.0.1", 0)
    await listener.start(create_data_app(plane.parts))
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(b"BREW /v1/rerank HTTP/1.1\r\nhost: a\r\n\r\n")
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await listener.close()
    assert head.startswith(b"HTTP/1.1 400 ")
    assert b"content-type: application/json" in head
    assert json.loads(body)["code"] == "invalid_request"
