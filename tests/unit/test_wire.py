"""Each dialect, both ways, without HTTP."""

from __future__ import annotations

import json
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InvalidRequest, MalformedBody, ProxyError, TooLarge, TooManyDocuments
from proxy.settings import Limits, Wire
from proxy.wire.canonical import Dialect, Ranked, Reply, RerankCall
from proxy.wire.detect import COHERE_V1, COHERE_V2, DIALECTS, INFINITY, JINA, NIM, TEI, VOYAGE, by_body
from proxy.wire.limits import check_limits
from proxy.wire.score import ScoreDialect

WIRE = Wire()
REPLY = Reply(
    request_id="r1", model="m", results=(Ranked(1, 0.9, 2.2), Ranked(0, 0.1, -2.2)), tokens=7, warnings=("w",)
)

SMALLEST: dict[str, dict[str, Any]] = {
    "cohere-v1": {"query": "q", "documents": ["a", "b"]},
    "cohere-v2": {"query": "q", "documents": ["a", "b"], "model": "m"},
    "jina": {"query": "q", "documents": ["a", "b"]},
    "infinity": {"query": "q", "documents": ["a", "b"]},
    "voyage": {"query": "q", "documents": ["a", "b"]},
    "tei": {"query": "q", "texts": ["a", "b"]},
    "nim": {"query": {"text": "q"}, "passages": [{"text": "a"}, {"text": "b"}]},
}


def read(dialect: Dialect, wire: Wire = WIRE, **fields: Any) -> RerankCall:
    return dialect.read(json.dumps(SMALLEST[dialect.name] | fields).encode(), wire)


def written(dialect: Dialect, call: RerankCall, wire: Wire = WIRE) -> Any:
    return json.loads(msgspec.json.encode(dialect.write(call, REPLY, wire)))


dialects = pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS.keys())


@dialects
def test_the_smallest_request_is_understood(dialect: Dialect) -> None:
    call = read(dialect)
    assert (call.query, call.documents, call.top_n, call.truncate) == ("q", ("a", "b"), None, True)


@dialects
def test_nulls_mean_absent(dialect: Dialect) -> None:
    optional: dict[str, Any] = {
        name: None for name in dialect.request_type.__struct_fields__ if name not in SMALLEST[dialect.name]
    }
    assert read(dialect, **optional) == read(dialect)


@dialects
def test_unknown_fields_are_passed_over(dialect: Dialect) -> None:
    assert read(dialect, invented={"deep": [1, 2]}) == read(dialect)


@dialects
@pytest.mark.parametrize("query", ["", " ", "\n\t"], ids=["empty", "space", "lines"])
def test_a_blank_query_is_refused_by_name(dialect: Dialect, query: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(dialect, query={"text": query} if dialect is NIM else query)
    assert str(caught.value.field).startswith("query")


@dialects
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"nonsense", b"\xff\xfe", b'{"x":' + b"[" * 3000],
    ids=lambda b: str(b[:12]),
)
def test_a_body_that_is_no_json_is_malformed(dialect: Dialect, body: bytes) -> None:
    with pytest.raises(MalformedBody):
        dialect.read(body, WIRE)


@dialects
def test_a_body_that_is_no_object_is_refused(dialect: Dialect) -> None:
    with pytest.raises(InvalidRequest):
        dialect.read(b"[]", WIRE)


@dialects
def test_a_wrong_type_is_refused_with_its_place(dialect: Dialect) -> None:
    field = read(dialect).documents_field
    with pytest.raises(InvalidRequest) as caught:
        read(dialect, **cast("Any", {field: ["a", 7] if dialect is not NIM else [{"text": "a"}, {"text": 7}]}))
    assert str(caught.value.field).startswith(f"{field}[1]")
    assert caught.value.message.startswith(f"{field}[1]")


@dialects
def test_no_documents_are_accepted_unless_configured_otherwise(dialect: Dialect) -> None:
    field = read(dialect).documents_field
    none: dict[str, Any] = {field: []}
    assert read(dialect, **none).documents == ()
    with pytest.raises(InvalidRequest):
        read(dialect, Wire(empty_documents="reject"), **none)


@pytest.mark.parametrize("dialect", [COHERE_V1, COHERE_V2, JINA, TEI], ids=lambda d: d.name)
@pytest.mark.parametrize(("given_top_n", "top_n"), [(0, None), (1, 1), (99, 99)])
def test_top_n_zero_means_all(dialect: Dialect, given_top_n: int, top_n: int | None) -> None:
    assert read(dialect, top_n=given_top_n).top_n == top_n


@pytest.mark.parametrize("dialect", [COHERE_V1, COHERE_V2, JINA, TEI], ids=lambda d: d.name)
@pytest.mark.parametrize("top_n", [-1, "three", 2.5, True])
def test_a_top_n_that_is_no_count_is_refused_by_name(dialect: Dialect, top_n: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(dialect, top_n=top_n)
    assert caught.value.field == "top_n"


def test_voyage_counts_by_top_k() -> None:
    assert read(VOYAGE, top_k=1).top_n == 1
    with pytest.raises(InvalidRequest, match="top_k"):
        read(VOYAGE, top_k=-1)


@pytest.mark.parametrize(
    ("dialect", "fields"),
    [(VOYAGE, {"truncation": False}), (TEI, {"truncate": False}), (NIM, {"truncate": "NONE"})],
    ids=["voyage", "tei", "nim"],
)
def test_truncation_can_be_refused(dialect: Dialect, fields: dict[str, Any]) -> None:
    assert read(dialect, **fields).truncate is False


@pytest.mark.parametrize("dialect", [COHERE_V1, COHERE_V2, JINA], ids=lambda d: d.name)
def test_documents_may_be_objects_and_come_back_whole(dialect: Dialect) -> None:
    call = read(dialect, documents=[{"text": "a", "id": "x9", "n": 1}, "b"], return_documents=True)
    assert call.documents == ("a", "b")
    documents = [result["document"] for result in written(dialect, call)["results"]]
    assert documents == [{"text": "b"}, {"text": "a", "id": "x9", "n": 1}]


def test_rank_fields_are_what_is_ranked() -> None:
    call = read(COHERE_V1, documents=[{"title": "t", "body": "b", "text": "x"}], rank_fields=["title", "body", "no"])
    assert call.documents == ("title: t\nbody: b",)


def test_an_object_without_text_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(JINA, documents=["a", {"title": "t"}])
    assert caught.value.field == "documents[1].text"


@pytest.mark.parametrize(
    ("dialect", "default"), [(COHERE_V1, False), (COHERE_V2, False), (VOYAGE, False), (JINA, True)]
)
def test_documents_come_back_as_the_dialect_has_it_unless_said(dialect: Dialect, default: bool) -> None:  # noqa: FBT001
    assert read(dialect).return_documents is default
    assert read(dialect, return_documents=not default).return_documents is not default
    assert read(dialect, Wire(return_documents=not default)).return_documents is not default


@pytest.mark.parametrize("dialect", [COHERE_V1, COHERE_V2, JINA], ids=lambda d: d.name)
def test_the_envelope_has_what_every_client_reads(dialect: Dialect) -> None:
    body = written(dialect, read(dialect))
    assert [(r["index"], r["relevance_score"]) for r in body["results"]] == [(1, 0.9), (0, 0.1)]
    assert body["usage"]["total_tokens"] == 7
    assert body["meta"]["warnings"] == ["w"]
    assert (body["id"], body["object"], body["model"]) == ("r1", "list", "m")


@pytest.mark.parametrize("dialect", [COHERE_V1, COHERE_V2, JINA], ids=lambda d: d.name)
def test_a_document_not_asked_for_is_absent_never_null(dialect: Dialect) -> None:
    body = written(dialect, read(dialect, return_documents=False))
    assert all("document" not in result for result in body["results"])


@pytest.mark.parametrize(
    ("sent", "read_as"),
    [
        (r"cut \ud83d", "cut \ufffd"),
        (r"\ude00 cut", "\ufffd cut"),
        (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (r"\\ud83d \ud83d", "\\ud83d \ufffd"),
        (r"whole \ud83d\ude00 \n", "whole \U0001f600 \n"),
    ],
    ids=["high", "low", "high before a pair", "a backslash before", "whole"],
)
def test_half_an_emoji_is_read_as_a_replacement_character(sent: str, read_as: str) -> None:
    body = b'{"query": "q", "documents": ["' + sent.encode() + b'", "b"]}'
    assert JINA.read(body, WIRE).documents == (read_as, "b")


def test_infinity_returns_documents_as_text() -> None:
    assert written(INFINITY, read(INFINITY))["results"][0]["document"] == "b"


def test_a_document_can_be_a_string_for_clients_of_infinity() -> None:
    body = written(JINA, read(JINA), Wire(document_as_string=True))
    assert body["results"][0]["document"] == "b"


def test_voyage_reads_data_with_plain_documents() -> None:
    body = written(VOYAGE, read(VOYAGE, return_documents=True))
    assert body["data"][0] == {"index": 1, "relevance_score": 0.9, "document": "b"}
    assert "results" not in body


def test_tei_reads_a_bare_array() -> None:
    assert written(TEI, read(TEI)) == [{"index": 1, "score": 0.9}, {"index": 0, "score": 0.1}]
    assert written(TEI, read(TEI, return_text=True, raw_scores=True))[0] == {"index": 1, "score": 2.2, "text": "b"}


def test_nim_reads_raw_logits() -> None:
    assert written(NIM, read(NIM)) == {"rankings": [{"index": 1, "logit": 2.2}, {"index": 0, "logit": -2.2}]}


def test_raw_scores_are_for_those_who_ask() -> None:
    assert written(JINA, read(JINA, raw_scores=True))["results"][0]["relevance_score"] == 2.2
    assert written(JINA, read(JINA, use_activation=False))["results"][0]["relevance_score"] == 2.2


SCORE = ScoreDialect()


def test_one_text_against_many_is_one_ranking() -> None:
    asked = SCORE.read(b'{"text_1": "q", "text_2": ["a", "b"]}')
    assert [(call.query, call.documents) for call in asked.calls] == [("q", ("a", "b"))]
    body = SCORE.write(asked, [REPLY])
    assert [(pair.index, pair.score) for pair in body.data] == [(0, 0.1), (1, 0.9)]


def test_pairs_are_one_ranking_for_each_query_and_keep_their_places() -> None:
    asked = SCORE.read(b'{"queries": ["p", "q", "p"], "documents": ["a", "b", "c"]}')
    assert [(call.query, call.documents) for call in asked.calls] == [("p", ("a", "c")), ("q", ("b",))]
    one = Reply(request_id="r", model="m", results=(Ranked(0, 0.5, 0.0),))
    assert [(pair.index, pair.score) for pair in SCORE.write(asked, [REPLY, one]).data] == [
        (0, 0.1),
        (1, 0.5),
        (2, 0.9),
    ]


@pytest.mark.parametrize(
    "names", [("queries", "documents"), ("text_1", "text_2"), ("data_1", "data_2"), ("text_1", "items")]
)
def test_both_sides_have_several_names(names: tuple[str, str]) -> None:
    asked = SCORE.read(json.dumps({names[0]: "q", names[1]: "a"}).encode())
    assert asked.calls[0].documents == ("a",)
    assert asked.calls[0].documents_field == names[1]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"text_1": "q"}, "documents"),
        ({"text_2": "q"}, "queries"),
        ({"text_1": ["p", "q"], "text_2": ["a"]}, "text_2"),
        ({"text_1": [], "text_2": ["a"]}, "text_1"),
        ({"text_1": " ", "text_2": ["a"]}, "text_1"),
    ],
    ids=["no right side", "no left side", "unequal", "empty", "blank"],
)
def test_sides_that_do_not_pair_up_are_refused_by_name(body: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        SCORE.read(json.dumps(body).encode())
    assert caught.value.field == field


SIGNS: list[tuple[dict[str, Any], dict[str, str], Dialect]] = [
    ({"texts": []}, {}, TEI),
    ({"passages": []}, {}, NIM),
    ({"top_k": None}, {}, VOYAGE),
    ({"truncation": True}, {}, VOYAGE),
    ({"rank_fields": []}, {}, COHERE_V1),
    ({"max_chunks_per_doc": 1}, {}, COHERE_V1),
    ({}, {"x-fern-sdk-name": "cohere"}, COHERE_V1),
    ({}, {"user-agent": "cohere/7.3.1"}, COHERE_V1),
    ({}, {"user-agent": "Voyage/v1 PythonBindings/0.5.0"}, VOYAGE),
    ({"model": "rerank-2.5"}, {}, VOYAGE),
    ({"model": "rerank-lite-1"}, {}, VOYAGE),
    ({"model": "rerank-v3.5"}, {}, JINA),
    ({"model": "rerank-english-v3.0"}, {}, JINA),
    ({"texts": None, "passages": None, "rank_fields": None, "max_chunks_per_doc": None}, {}, JINA),
    ({}, {"user-agent": "curl/8"}, JINA),
    ({"texts": [], "top_k": 1}, {"x-fern-sdk-name": "cohere"}, TEI),
    ({"top_k": 1}, {"x-fern-sdk-name": "cohere"}, VOYAGE),
]


@pytest.mark.parametrize(("body", "headers", "dialect"), SIGNS, ids=[f"{b}{h}" for b, h, _ in SIGNS])
def test_the_first_sign_tells_the_dialect(body: dict[str, Any], headers: dict[str, str], dialect: Dialect) -> None:
    assert by_body(json.dumps({"query": "q", "documents": []} | body).encode(), headers) is dialect


@given(st.binary(max_size=60))
def test_detection_never_fails(body: bytes) -> None:
    assert by_body(body, {}).name in DIALECTS


def count(texts: Any) -> int:
    return sum(len(text.split()) for text in texts)


LIMITS = Limits(max_documents=3, max_document_bytes=20, max_query_bytes=10, max_tokens=8)


def check(query: str, *documents: str) -> None:
    call = RerankCall(query=query, documents=documents)
    check_limits(call, LIMITS, count, sum(map(len, (query, *documents))) + 30)


def test_what_is_within_the_limits_passes() -> None:
    check("é" * 5, "é" * 10, "b", "c")


@pytest.mark.parametrize(
    ("texts", "kind", "field"),
    [
        (("q", "a", "b", "c", "d"), TooManyDocuments, "documents"),
        (("é" * 6, "a"), TooLarge, "query"),
        (("q", "a", "é" * 11), TooLarge, "documents[1]"),
        (("q q", "a b c d", "e f g"), TooManyDocuments, "documents"),
    ],
    ids=["documents", "query bytes", "document bytes", "tokens"],
)
def test_each_limit_is_refused_by_name(texts: tuple[str, ...], kind: type[ProxyError], field: str) -> None:
    with pytest.raises(kind) as caught:
        check(*texts)
    assert caught.value.field == field
