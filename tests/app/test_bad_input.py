"""Every bad input, over HTTP, in each dialect: a clear error that names the field, and nothing reaches an arm."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from proxy.secrets import hash_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    import httpx

    from tests.conftest import Plane


class Route:
    """One dialect as a client of it would call it."""

    def __init__(self, path: str, documents: str, *, sign: dict[str, Any] | None = None, rule: int = 400) -> None:
        self.path = path
        self.documents = documents
        self.sign = sign or {}
        self.rule = rule

    def body(self, query: Any = "a b", documents: Any = ("a", "c", "a b"), **fields: Any) -> dict[str, Any]:
        if self.path == "/v1/ranking":
            query = {"text": query} if isinstance(query, str) else query
            if not isinstance(documents, dict):
                documents = [{"text": d} if isinstance(d, str) else d for d in documents]
        query_name = "text_1" if "score" in self.path else "query"
        return {query_name: query, self.documents: documents, **self.sign, **fields}

    def message(self, response: httpx.Response) -> str:
        body = response.json()
        if self.documents == "texts":
            assert set(body) == {"error", "error_type"}
            return str(body["error"])
        assert body["message"] == body["detail"]
        return str(body["message"])


ROUTES = {
    "cohere-v1": Route("/v1/rerank", "documents", sign={"max_chunks_per_doc": 1}),
    "cohere-v2": Route("/v2/rerank", "documents", sign={"model": "m"}),
    "jina": Route("/v1/rerank", "documents", rule=422),
    "vllm": Route("/rerank", "documents", rule=422),
    "voyage": Route("/v1/rerank", "documents", sign={"truncation": True}),
    "tei": Route("/rerank", "texts", rule=422),
    "nim": Route("/v1/ranking", "passages", rule=422),
    "score": Route("/v1/score", "text_2"),
}
routes = pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES.keys())


async def post(plane: Plane, route: Route, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await plane.client.post(route.path, content=content, headers={"content-type": "application/json", **headers})


@routes
async def test_a_good_request_is_answered(plane: Plane, route: Route) -> None:
    response = await post(plane, route, route.body())
    assert response.status_code == 200
    assert response.headers["x-rerank-arm"] in {"control", "candidate"}


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "blank query": ({"query": " \n"}, "query"),
    "query of a wrong type": ({"query": 7}, "query"),
    "document of a wrong type": ({"documents": ["a", 7]}, "[1]"),
    "documents of a wrong type": ({"documents": {}}, "documents"),
}


@routes
@pytest.mark.parametrize("wrong", WRONG, ids=list(WRONG))
async def test_a_broken_rule_names_its_field(plane: Plane, route: Route, wrong: str) -> None:
    fields, place = WRONG[wrong]
    response = await post(plane, route, route.body(**fields))
    assert response.status_code == route.rule
    place = {"query": "text_1" if route.documents == "text_2" else "query", "documents": route.documents}.get(
        place, place
    )
    assert place in route.message(response)
    assert not plane.gpt.calls
    assert not plane.cross_encoder.calls


@routes
async def test_a_missing_field_is_named(plane: Plane, route: Route) -> None:
    body = route.body()
    del body[route.documents]
    response = await post(plane, route, body)
    # without `texts`, /rerank cannot know that TEI was meant
    assert response.status_code == route.rule
    assert "documents" in response.text or route.documents in response.text


@routes
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff"], ids=str)
async def test_what_is_no_json_object_is_an_error_in_json(plane: Plane, route: Route, body: bytes) -> None:
    response = await post(plane, route, body)
    assert response.status_code in {400, 422}
    assert response.headers["content-type"] == "application/json"
    assert response.json()
    assert response.headers["x-request-id"]


@routes
async def test_too_many_documents_are_refused(make_plane: Callable[..., Plane], route: Route) -> None:
    plane = make_plane(RERANK_CANARY__LIMITS__MAX_DOCUMENTS="2")
    response = await post(plane, route, route.body())
    assert response.status_code == 422
    assert f"{route.documents}: 3 documents, at most 2" in route.message(response)
    assert not plane.gpt.calls


@routes
async def test_a_document_that_is_too_large_is_refused_by_name(make_plane: Callable[..., Plane], route: Route) -> None:
    plane = make_plane(RERANK_CANARY__LIMITS__MAX_DOCUMENT_BYTES="100")
    response = await post(plane, route, route.body(documents=["a", "x" * 101]))
    assert response.status_code == 413
    assert f"{route.documents}[1]" in route.message(response)


@routes
async def test_a_body_that_is_too_large_is_refused(make_plane: Callable[..., Plane], route: Route) -> None:
    plane = make_plane(RERANK_CANARY__LIMITS__MAX_BODY_BYTES="300")
    response = await post(plane, route, route.body(documents=["x" * 400]))
    assert response.status_code == 413
    assert "300 bytes" in response.text


@routes
async def test_too_many_tokens_are_refused(make_plane: Callable[..., Plane], route: Route) -> None:
    plane = make_plane(RERANK_CANARY__LIMITS__MAX_TOKENS="20")
    response = await post(plane, route, route.body(documents=["word " * 30]))
    assert response.status_code == 422
    assert "tokens" in route.message(response)


NORMAL = {
    "empty document": ["", "a b"],
    "only blanks": ["", "  ", "\n"],
    "doubles": ["a b", "a b", "a b", "c"],
    "one document": ["a b"],
    "emoji": ["a 🙂🙂", "👩‍👩‍👧 a b"],
    "NUL": ["a\0b", "a b"],
    "right to left": ["שלום a", "مرحبا a b"],
    "a thousand": [f"a {i}" for i in range(1000)],
    "two megabytes": ["a " * 500_000, "b " * 500_000],
}


@routes
@pytest.mark.parametrize("documents", NORMAL.values(), ids=NORMAL.keys())
@pytest.mark.parametrize("user", ["u7", "u1"], ids=["candidate", "control"])
async def test_unusual_documents_are_answered_every_one_exactly_once(
    plane: Plane, route: Route, documents: list[str], user: str
) -> None:
    response = await post(plane, route, route.body(documents=documents), **{"x-user-id": user})
    assert response.status_code == 200
    body = response.json()
    found = body if isinstance(body, list) else next(body[k] for k in ("results", "data", "rankings") if k in body)
    assert sorted(item["index"] for item in found) == list(range(len(documents)))
    values = [item.get("relevance_score", item.get("score", item.get("logit"))) for item in found]
    assert values == sorted(values, reverse=True) or route.documents == "text_2"


@pytest.mark.parametrize("name", ["cohere-v1", "cohere-v2", "jina", "vllm", "tei"])
async def test_top_n_over_the_number_of_documents_gives_all(plane: Plane, name: str) -> None:
    response = await post(plane, ROUTES[name], ROUTES[name].body(top_n=99))
    body = response.json()
    assert len(body if isinstance(body, list) else body["results"]) == 3


@routes
async def test_no_documents_are_no_results_unless_configured_otherwise(
    make_plane: Callable[..., Plane], route: Route
) -> None:
    if route.documents == "text_2":
        return  # a score needs two sides
    response = await post(make_plane(), route, route.body(documents=[]))
    assert response.status_code == 200
    strict = make_plane(RERANK_CANARY__WIRE__EMPTY_DOCUMENTS="reject")
    response = await post(strict, route, route.body(documents=[]))
    assert response.status_code == route.rule
    assert route.documents in route.message(response)


@pytest.mark.parametrize(
    ("name", "fields"),
    [("voyage", {"truncation": False}), ("tei", {"truncate": False}), ("nim", {"truncate": "NONE"})],
)
@pytest.mark.parametrize("user", ["u7", "u1"], ids=["candidate", "control"])
async def test_a_document_that_must_not_be_cut_is_refused_in_both_arms_alike(
    plane: Plane, name: str, fields: dict[str, Any], user: str
) -> None:
    plane.cross_encoder.limit_words = 5
    route = ROUTES[name]
    response = await post(plane, route, route.body(documents=["a", "", "b " * 6], **fields), **{"x-user-id": user})
    assert response.status_code == route.rule
    assert f"{route.documents}[2]" in route.message(response)
    assert not plane.gpt.calls
    assert not plane.cross_encoder.calls


async def test_too_many_distinct_queries_of_pairs_are_refused(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(RERANK_CANARY__LIMITS__MAX_QUERIES="2")
    body = {"text_1": ["p", "q", "r"], "text_2": ["a", "b", "c"]}
    response = await plane.client.post("/score", json=body)
    assert response.status_code == 422
    assert response.json()["message"].startswith("text_1: 3 distinct")


@pytest.mark.parametrize("name", ["cohere-v1", "cohere-v2", "jina", "vllm"])
@pytest.mark.parametrize("user", ["u7", "u1"], ids=["candidate", "control"])
async def test_a_negative_number_of_tokens_is_refused_and_reaches_no_arm(plane: Plane, name: str, user: str) -> None:
    response = await post(plane, ROUTES[name], ROUTES[name].body(max_tokens_per_doc=-1), **{"x-user-id": user})
    assert response.status_code == ROUTES[name].rule
    assert response.json()["error"]["param"] == "max_tokens_per_doc"
    assert not plane.gpt.calls
    assert not plane.cross_encoder.calls


BEFORE_THE_BODY_IS_READ: dict[str, tuple[dict[str, str], int]] = {
    "too long": ({"RERANK_CANARY__LIMITS__MAX_BODY_BYTES": "30"}, 413),
    "too many requests": ({"RERANK_CANARY__SERVER__MAX_CONNECTIONS": "1"}, 429),
    "no key": ({"RERANK_CANARY__AUTH__DATA_KEYS": f'["{hash_key("good")}"]'}, 401),
}


@routes
@pytest.mark.parametrize("why", BEFORE_THE_BODY_IS_READ)
@pytest.mark.parametrize("is_chunked", [False, True], ids=["whole", "chunked"])
async def test_who_is_refused_before_his_body_is_read_hears_so_in_his_dialect(
    make_plane: Callable[..., Plane], route: Route, why: str, *, is_chunked: bool
) -> None:
    env, status = BEFORE_THE_BODY_IS_READ[why]
    plane = make_plane(**env)
    plane.parts.in_flight.count = int(why == "too many requests")
    body = json.dumps(route.body()).encode()

    async def pieces() -> AsyncIterator[bytes]:
        yield body[:-2]
        yield body[-2:]

    response = await plane.client.post(route.path, content=pieces() if is_chunked else body)
    assert response.status_code == status
    assert route.message(response)
    assert ("error" in response.json()) == ("truncation" not in route.sign)


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/v1/rerank", 405), ("POST", "/nowhere", 404)])
async def test_unknown_paths_and_methods_answer_json_too(plane: Plane, method: str, path: str, status: int) -> None:
    response = await plane.client.request(method, path)
    assert response.status_code == status
    assert response.json()["message"]
