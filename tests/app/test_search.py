"""``POST /v1/search`` in process: retrieved, then ranked as any request is, by the same arms for the same users."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from proxy.configuration import load
from proxy.errors import BackendError, InvalidSettings
from proxy.offline.index_corpus import write_index
from proxy.preflight import check_machine
from proxy.status import status_of
from tests.parts.programs import eventually
from tests.retrieval import PASSAGES, MeaningEncoder, write_jsonl, write_model

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import httpx

    from tests.conftest import Plane

CANDIDATE, CONTROL = {"x-user-id": "u7"}, {"x-user-id": "u1"}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """Return the folder of an index that needs no model."""
    write_index(write_jsonl(tmp_path / "corpus.jsonl"), tmp_path / "index")
    return tmp_path / "index"


async def started(make_plane: Callable[..., Plane], index: Path, **env: str) -> Plane:
    made = make_plane(RERANK_CANARY__SEARCH__INDEX=str(index), **env)
    assert made.parts.search is not None
    await made.parts.search.start()
    return made


@pytest.fixture
async def plane(make_plane: Callable[..., Plane], index: Path) -> Plane:
    return await started(make_plane, index)


@pytest.fixture(scope="module")
def with_vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an index with vectors, of a model on disk."""
    from proxy.offline.bi_encoder import BiEncoder  # noqa: PLC0415 - seconds to import

    folder = tmp_path_factory.mktemp("vectors")
    encoder = BiEncoder(str(write_model(folder / "model")))
    write_index(write_jsonl(folder / "corpus.jsonl"), folder / "index", encoder)
    return folder / "index"


async def search(plane: Plane, query: Any = "engine started", **fields: Any) -> httpx.Response:
    headers = fields.pop("headers", CANDIDATE)
    return await plane.client.post("/v1/search", json={"query": query, **fields}, headers=headers)


def sample(plane: Plane, name: str, **labels: str) -> float:
    return plane.parts.otel.registry.get_sample_value(name, labels) or 0.0


async def test_passages_come_back_ranked_with_their_ids_and_texts(plane: Plane) -> None:
    answer = await search(plane, "engine automobile care")
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert [each["document"]["id"] for each in found["results"]] == ["engine", "cars", "part"]
    assert found["results"][0]["document"]["text"] == PASSAGES["engine"]
    scores = [each["relevance_score"] for each in found["results"]]
    assert scores == sorted(scores, reverse=True)
    assert found["model"] == "cross-encoder-test"
    assert set(found) == {"id", "object", "model", "created", "results", "usage", "meta"}


async def test_it_is_ranked_exactly_as_rerank_would_rank_the_same_passages(plane: Plane) -> None:
    query = "engine automobile care"
    texts = [PASSAGES[each] for each in ("engine", "cars", "part")]
    for headers in (CANDIDATE, CONTROL):
        reranked = await plane.client.post("/v1/rerank", json={"query": query, "documents": texts}, headers=headers)
        searched = await search(plane, query, headers=headers)
        for name in ("x-rerank-arm", "x-rerank-served-by", "x-rerank-bucket", "x-rerank-model", "x-rerank-reason"):
            assert searched.headers[name] == reranked.headers[name]
        by_text = [
            [(each["document"]["text"], each["relevance_score"]) for each in answer.json()["results"]]
            for answer in (searched, reranked)
        ]
        assert by_text[0] == by_text[1]


async def test_a_user_in_the_body_has_the_arm_that_he_has_elsewhere(plane: Plane) -> None:
    arms = [(await search(plane, user=user, headers={})).headers["x-rerank-arm"] for user in ("u7", "u1")]
    assert arms == ["candidate", "control"]


async def test_the_fallback_answers_where_the_candidate_fails(plane: Plane) -> None:
    plane.cross_encoder.fault = BackendError("broken")
    answer = await search(plane)
    assert answer.status_code == 200
    assert answer.headers["x-rerank-served-by"] == "fallback"
    assert answer.json()["model"] == "gpt-test"


async def test_the_request_fields_mean_what_they_mean_in_rerank(plane: Plane) -> None:
    assert len((await search(plane, top_n=1)).json()["results"]) == 1
    assert len((await search(plane, top_n=0)).json()["results"]) == 2
    assert "document" not in (await search(plane, return_documents=False)).json()["results"][0]
    raw = (await search(plane, raw_scores=True)).json()["results"][0]["relevance_score"]
    assert raw > 1
    assert (await search(plane, {"text": "engine started"})).json()["results"]


async def test_top_k_says_how_many_are_ranked(make_plane: Callable[..., Plane], index: Path) -> None:
    plane = await started(make_plane, index, RERANK_CANARY__SEARCH__TOP_K="1")
    assert len((await search(plane, top_n=5)).json()["results"]) == 1
    assert [len(documents) for _, documents in plane.cross_encoder.calls] == [1]


async def test_a_query_that_nothing_has_a_word_of_has_no_results(plane: Plane) -> None:
    answer = await search(plane, "zzz")
    assert answer.status_code == 200
    assert answer.json()["results"] == []
    assert not plane.cross_encoder.calls


async def test_feedback_is_taken_by_the_passages_ids(plane: Plane) -> None:
    answer = await search(plane)
    said = {"request_id": answer.headers["x-rerank-feedback"], "clicked": ["part"], "cited": [0]}
    taken = await plane.client.post("/v1/feedback", json=said)
    assert taken.json() == {"counted": 2, "double": 0}
    assert answer.json()["meta"]["feedback"] == answer.headers["x-rerank-feedback"]


async def test_a_title_is_ranked_with_the_text_and_given_back_apart(
    make_plane: Callable[..., Plane], tmp_path: Path
) -> None:
    row = {"id": "x", "title": "Comets", "text": "They have tails."}
    (tmp_path / "corpus.jsonl").write_text(json.dumps(row) + "\n")
    write_index(tmp_path / "corpus.jsonl", tmp_path / "index")
    plane = await started(make_plane, tmp_path / "index", RERANK_CANARY__EVENTS__DOCUMENT_ID="key")
    answer = await search(plane, "comets")
    assert plane.cross_encoder.calls == [("comets", ["Comets\nThey have tails."])]
    assert answer.json()["results"][0]["document"] == row | {"key": "x"}
    said = {"request_id": answer.headers["x-rerank-feedback"], "clicked": ["x"]}
    assert (await plane.client.post("/v1/feedback", json=said)).json()["counted"] == 1


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"{", 400, "not valid JSON"),
        (b"", 400, "not valid JSON"),
        (b"[]", 422, "Expected `object`"),
        (b"{}", 422, "query: is missing"),
        (b'{"query": " "}', 422, "query: must not be empty"),
        (b'{"query": 7}', 422, "query"),
        (b'{"query": "a", "top_n": -1}', 422, "top_n: must be at least 1"),
        (b'{"query": "a", "top_n": "x"}', 422, "top_n"),
        (b'{"query": "a", "max_tokens_per_doc": -1}', 422, "max_tokens_per_doc"),
        (b'{"query": "' + b"a" * 70_000 + b'"}', 413, "query: longer than 65536 bytes"),
    ],
)
async def test_bad_input_names_the_field_and_nothing_is_asked(
    plane: Plane, body: bytes, status: int, words: str
) -> None:
    answer = await plane.client.post("/v1/search", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status, answer.text
    found = answer.json()
    assert words in found["message"]
    assert found["message"] == found["detail"] == found["error"]["message"]
    assert not plane.cross_encoder.calls
    assert not plane.gpt.calls
    assert sample(plane, "rerank_searches_total", rerank_search_outcome="ok") == 0


async def test_it_needs_the_key_that_everything_needs(make_plane: Callable[..., Plane], index: Path) -> None:
    from proxy.secrets import hash_key  # noqa: PLC0415

    plane = await started(make_plane, index, RERANK_CANARY__AUTH__DATA_KEYS=json.dumps([hash_key("secret")]))
    assert (await search(plane)).status_code == 401
    assert (await search(plane, headers={"authorization": "Bearer secret"})).status_code == 200


async def test_without_an_index_there_is_no_such_path(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane()
    assert (await search(plane)).status_code == 404
    assert status_of(plane.parts)["search"] is None
    assert "/v1/search" not in (await plane.client.get("/docs/openapi.json")).json()["paths"]


async def test_the_docs_have_it(plane: Plane) -> None:
    operation = (await plane.client.get("/docs/openapi.json")).json()["paths"]["/v1/search"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert {"query", "top_n", "user"} <= set(schema["properties"])
    assert schema["required"] == ["query"]
    assert {"200", "400", "401", "413", "422", "429", "503", "504"} <= set(operation["responses"])
    assert "relevance_score" in json.dumps(operation["responses"]["200"])


async def test_it_is_counted_and_timed_and_no_query_is_in_any_of_it(plane: Plane) -> None:
    answer = await search(plane)
    assert "retrieve;dur=" in answer.headers["server-timing"]
    assert sample(plane, "rerank_searches_total", rerank_search_outcome="ok") == 1
    assert sample(plane, "rerank_search_duration_seconds_count", rerank_search_outcome="ok") == 1
    found = status_of(plane.parts)["search"]
    assert (found["passages"], found["model"], found["waiting"]) == (len(PASSAGES), None, 0)


async def test_vectors_find_what_has_none_of_the_querys_words(
    make_plane: Callable[..., Plane], with_vectors: Path
) -> None:
    plane = await started(make_plane, with_vectors)
    answer = await search(plane, "vehicle")
    assert answer.status_code == 200
    assert {"cars", "engine"} <= {each["document"]["id"] for each in answer.json()["results"]}
    assert answer.json()["meta"].get("warnings", []) == []


async def test_where_the_vectors_fail_bm25_retrieves_alone_and_the_answer_says_so(
    make_plane: Callable[..., Plane], with_vectors: Path
) -> None:
    plane = await started(make_plane, with_vectors)
    engine = plane.parts.search
    assert engine is not None
    assert engine._retriever is not None
    encoder = MeaningEncoder()
    encoder.fault = RuntimeError("out of memory while reading engine started")
    engine._retriever._encoder = encoder
    answer = await search(plane)
    assert {each["document"]["id"] for each in answer.json()["results"]} == {"engine", "part"}
    assert answer.json()["meta"]["warnings"] == ["retrieved by BM25 alone: the bi-encoder failed"]
    assert answer.headers["x-rerank-warnings"] == "retrieved by BM25 alone: the bi-encoder failed"
    assert sample(plane, "rerank_searches_total", rerank_search_outcome="without_vectors_failed") == 1


async def test_vectors_that_are_late_are_not_waited_for_and_do_not_pile_up(
    make_plane: Callable[..., Plane], with_vectors: Path
) -> None:
    limits = {"RERANK_CANARY__SEARCH__TIMEOUT_SECONDS": "0.05", "RERANK_CANARY__SEARCH__MAX_WAITING": "3"}
    plane = await started(make_plane, with_vectors, **limits)
    engine = plane.parts.search
    assert engine is not None
    retriever = engine._retriever
    assert retriever is not None
    is_over = False

    class Stuck(MeaningEncoder):
        def queries(self, texts: Any) -> Any:
            while not is_over:
                time.sleep(0.01)
            return super().queries(texts)

    retriever._encoder = Stuck()
    try:
        answers = await asyncio.gather(*(search(plane) for _ in range(5)))
        warnings = sorted(answer.json()["meta"]["warnings"][0] for answer in answers)
        assert [each.rpartition(": ")[2] for each in warnings] == [
            *["the bi-encoder was late"] * 3,
            *["too many searches wait for the bi-encoder"] * 2,
        ]
        assert all(answer.json()["results"] for answer in answers)
        assert status_of(plane.parts)["search"]["waiting"] == 3
    finally:
        is_over = True
    await asyncio.to_thread(eventually, lambda: status_of(plane.parts)["search"]["waiting"] == 0)


async def test_where_nothing_can_be_retrieved_the_caller_may_come_back(plane: Plane) -> None:
    engine = plane.parts.search
    assert engine is not None
    assert engine._retriever is not None
    del engine._retriever.lexical
    answer = await search(plane)
    assert answer.status_code == 503
    assert answer.json()["message"] == "nothing could be retrieved"
    assert answer.headers["retry-after"] == "1"
    assert sample(plane, "rerank_searches_total", rerank_search_outcome="failed") == 1


async def test_an_index_that_cannot_be_used_stops_the_start(
    make_plane: Callable[..., Plane], index: Path, tmp_path: Path
) -> None:
    def settings(folder: Path) -> Any:
        return load({"RERANK_CANARY__DATA_DIR": str(tmp_path / "v"), "RERANK_CANARY__SEARCH__INDEX": str(folder)})

    check_machine(settings(index), {})
    write_jsonl(tmp_path / "corpus.jsonl", {"new": "of another time"})
    for folder, words in ((index, "has changed since"), (tmp_path / "none", "no index can be read here")):
        with pytest.raises(InvalidSettings, match=words):
            check_machine(settings(folder), {})
        with pytest.raises(InvalidSettings, match=words):
            await started(make_plane, folder)


def test_more_passages_than_a_request_may_have_stop_the_start(index: Path) -> None:
    env = {"RERANK_CANARY__SEARCH__INDEX": str(index), "RERANK_CANARY__LIMITS__MAX_DOCUMENTS": "10"}
    with pytest.raises(InvalidSettings, match=r"\$\.search\.top_k: 25 is over \$\.limits\.max_documents, 10"):
        load(env)
