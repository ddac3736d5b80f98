"""What people type: curl, with every ranking as raw JSON."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.clients.cases import CASES
from tests.clients.conftest import SHARE_PERCENT
from tests.clients.driving import Rank
from tests.clients.test_rankings import check_ranking
from tests.conftest import require_part
from tests.running import DOCUMENTS, QUERY, user_of

if TYPE_CHECKING:
    from tests.clients.cases import Case
    from tests.clients.conftest import Place, Places

_LARGE = ["A long line about nothing at all. " * 1600 + str(i) for i in range(39)]
_NULLS = ("model", "top_n", "return_documents", "max_tokens_per_doc", "user")


@pytest.fixture(scope="module", autouse=True)
def _curl() -> None:
    require_part("curl", found=shutil.which("curl") is not None)


def curl(place: Place, path: str, body: str | bytes, *more: str, key: str | None = None) -> tuple[int, Any]:
    """Post *body* with the key under a lower-case ``bearer``, as Cohere's own examples do."""
    asked = ["curl", "--silent", "--show-error", "--max-time", "60", "--data-binary", "@-", *more]
    asked += ["--header", "content-type: application/json", "--header", f"authorization: bearer {key or place.key}"]
    done = subprocess.run(
        [*asked, "--write-out", "\n%{http_code}", place.proxy.url + path],
        input=body.encode() if isinstance(body, str) else body,
        capture_output=True,
        check=True,
    )
    answer, _, status = done.stdout.decode().rpartition("\n")
    return int(status), json.loads(answer)


@pytest.mark.parametrize("arm", ["control", "candidate"])
@pytest.mark.parametrize("is_ascii", [True, False], ids=["escaped", "utf8"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_curl_gets_the_whole_ranking_and_the_documents_as_they_were(
    places: Places, case: Case, arm: str, *, is_ascii: bool
) -> None:
    fields = dict.fromkeys(_NULLS) if case.send_nulls else {}
    body = {"query": case.query, "documents": case.documents, **fields}
    if case.top_n:
        body["top_n"] = case.top_n
    user = ("--header", f"x-user-id: {user_of(arm, SHARE_PERCENT)}")

    status, answer = curl(places.keyed, "/v1/rerank", json.dumps(body, ensure_ascii=is_ascii), *user)

    assert status == 200, answer
    ranks = [Rank(r["index"], r["relevance_score"], r["document"]) for r in answer["results"]]
    check_ranking(ranks, case)
    assert [one.document for one in ranks] == [{"text": case.text(one.index)} for one in ranks]
    assert places.keyed.proxy.logged("rerank.served")[-1]["served_by"] == arm


@pytest.mark.parametrize(
    ("path", "body", "results", "score"),
    [
        pytest.param(
            "/v2/rerank", {"model": "m", "documents": DOCUMENTS}, "results", "relevance_score", id="cohere_v2"
        ),
        pytest.param("/v1/rerank", {"documents": DOCUMENTS, "top_k": None}, "data", "relevance_score", id="voyage"),
        pytest.param("/rerank", {"documents": DOCUMENTS, "top_n": 0}, "results", "relevance_score", id="vllm"),
        pytest.param("/rerank", {"texts": DOCUMENTS, "truncate": None}, None, "score", id="tei"),
        pytest.param("/cohere/v2/rerank", {"documents": DOCUMENTS}, "results", "relevance_score", id="envoy"),
    ],
)
def test_curl_speaks_every_dialect(places: Places, path: str, body: Any, results: str | None, score: str) -> None:
    status, answer = curl(places.keyed, path, json.dumps({"query": QUERY, **body}))
    assert status == 200, answer
    check_ranking([Rank(r["index"], r[score]) for r in (answer[results] if results else answer)], CASES[0])


@pytest.mark.parametrize(
    "how", [("--header", "transfer-encoding: chunked"), ("--http1.0",), ("--compressed",)], ids=lambda how: how[-1]
)
def test_curl_may_send_the_body_in_its_own_way(places: Places, how: tuple[str, ...]) -> None:
    status, answer = curl(places.keyed, "/v1/rerank", json.dumps({"query": QUERY, "documents": DOCUMENTS}), *how)
    assert status == 200, answer
    check_ranking([Rank(r["index"], r["relevance_score"]) for r in answer["results"]], CASES[0])


@pytest.mark.parametrize("arm", ["control", "candidate"])
def test_two_megabytes_are_ranked(places: Places, arm: str) -> None:
    body = json.dumps({"query": QUERY, "documents": [*_LARGE, DOCUMENTS[1]], "return_documents": False})
    assert len(body) > 2 * 1024 * 1024
    user = ("--header", f"x-user-id: {user_of(arm, SHARE_PERCENT)}")
    status, answer = curl(places.keyed, "/v1/rerank", body, *user)  # curl waits for a 100 first
    assert status == 200, answer
    assert answer["results"][0]["index"] == len(_LARGE)
    assert len(answer["results"]) == len(_LARGE) + 1


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        pytest.param('{"query": " ", "documents": ["a"]}', 422, "query: must not be empty", id="blank_query"),
        pytest.param('{"query": "a", "documents": [', 400, "not valid JSON", id="cut_off"),
        pytest.param(b'{"query": "\xff", "documents": ["a"]}', 400, "not valid JSON", id="no_utf8"),
        pytest.param('{"query": "a\x00", "documents": ["a"]}', 400, "not valid JSON", id="bare_nul"),
        pytest.param("", 400, "not valid JSON", id="nothing"),
    ],
)
def test_curl_is_told_what_is_wrong(places: Places, body: str | bytes, status: int, words: str) -> None:
    found, answer = curl(places.keyed, "/v1/rerank", body)
    assert found == status
    assert words in answer["message"]
    assert answer["message"] == answer["detail"] == answer["error"]["message"]


def test_curl_with_a_wrong_key_is_turned_away_in_json(places: Places) -> None:
    status, answer = curl(places.keyed, "/v1/rerank", "{}", key="wrong")
    assert status == 401
    assert "no valid API key" in answer["message"]
