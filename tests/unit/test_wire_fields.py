"""Fields at the edge of what a dialect has, without HTTP: nulls, halves of emoji, other servers' options."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from proxy.errors import InvalidRequest, TooManyDocuments
from proxy.settings import Limits, Wire
from proxy.wire.canonical import Dialect, Ranked, Reply, RerankCall
from proxy.wire.detect import COHERE_V1, COHERE_V2, DIALECTS, INFINITY, JINA, NIM, TEI, VOYAGE, by_beginning, by_body
from proxy.wire.limits import check_limits
from proxy.wire.score import ScoreDialect

WIRE = Wire()
REPLY = Reply(request_id="r1", model="m", results=(Ranked(0, 0.9, 2.2),), tokens=7)
BODIES: dict[str, dict[str, Any]] = {
    "tei": {"query": "q", "texts": ["a"]},
    "nim": {"query": {"text": "q"}, "passages": [{"text": "a"}]},
}


def read(dialect: Dialect, **fields: Any) -> RerankCall:
    body = BODIES.get(dialect.name, {"query": "q", "documents": ["a"]})
    return dialect.read(json.dumps(body | fields).encode(), WIRE)


def written(dialect: Dialect, call: RerankCall) -> Any:
    return json.loads(msgspec.json.encode(dialect.write(call, REPLY, WIRE)))


own_envelope = pytest.mark.parametrize("dialect", [COHERE_V1, COHERE_V2, JINA, INFINITY], ids=lambda d: d.name)


@own_envelope
@pytest.mark.parametrize("tokens", [-1, -99999999999999999999])
def test_a_negative_number_of_tokens_is_refused_by_name(dialect: Dialect, tokens: int) -> None:
    with pytest.raises(InvalidRequest, match="at least") as caught:
        read(dialect, max_tokens_per_doc=tokens)
    assert caught.value.field == "max_tokens_per_doc"


@own_envelope
def test_a_number_of_tokens_is_one_that_a_tokenizer_can_count_to(dialect: Dialect) -> None:
    assert read(dialect, max_tokens_per_doc=7).max_tokens_per_doc == 7
    assert read(dialect, max_tokens_per_doc=10**20).max_tokens_per_doc == 1 << 31
    assert read(JINA, max_tokens_per_doc=0).max_tokens_per_doc is None


@own_envelope
def test_a_document_alone_is_a_list_of_one(dialect: Dialect) -> None:
    assert read(dialect, documents="only this").documents == ("only this",)


@own_envelope
def test_the_envelope_counts_tokens_as_cohere_does(dialect: Dialect) -> None:
    meta = written(dialect, read(dialect))["meta"]
    assert meta["billed_units"] == {"search_units": 0, "total_tokens": 7}
    assert meta["tokens"] == {"input_tokens": 7}


@own_envelope
@pytest.mark.parametrize("text", [None, 7, ["a"]], ids=["null", "number", "list"])
def test_a_document_comes_back_with_text_whatever_rank_fields_left_there(dialect: Dialect, text: object) -> None:
    call = read(dialect, documents=[{"text": text, "title": "t"}], rank_fields=["title"], return_documents=True)
    assert call.echo(0) == {"text": "title: t", "title": "t"}


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"query": "a"}', "documents"),
        (b'{"documents": ["a"]}', "query"),
        (b'{"query": {}, "documents": []}', "query.text"),
    ],
)
def test_a_missing_field_is_the_param_of_the_error(body: bytes, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        JINA.read(body, WIRE)
    assert caught.value.field == field
    assert caught.value.message == f"{field}: is missing"


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS.keys())
@pytest.mark.parametrize("user", [123, True, {"id": 1}, ["a"]], ids=str)
def test_a_user_of_any_type_is_no_reason_to_refuse(dialect: Dialect, user: object) -> None:
    assert read(dialect, user=user) == read(dialect)


@pytest.mark.parametrize("dialect", DIALECTS.values(), ids=DIALECTS.keys())
@pytest.mark.parametrize("half", ["\\ud83d", "\\ude00", "\\uD83D"])
def test_half_an_emoji_at_the_very_end_is_read_too(dialect: Dialect, half: str) -> None:
    body = {
        "tei": '{"query":"q","texts":["a%s"]}',
        "nim": '{"query":{"text":"q"},"passages":[{"text":"a%s"}]}',
    }.get(dialect.name, '{"query":"q","documents":["a%s"]}')
    assert dialect.read((body % half).encode(), WIRE).documents == ("a�",)


def test_half_an_emoji_does_not_hide_the_dialect() -> None:
    assert by_body(b'{"query":"q","texts":["a\\ud83d"]}', {}) is TEI


def test_what_is_left_out_is_said() -> None:
    assert "truncate_prompt_tokens" in read(JINA, truncate_prompt_tokens=64).warnings[0]
    assert read(JINA, truncate_prompt_tokens=-1).warnings == ()
    assert "truncation_direction" in read(TEI, truncation_direction="left").warnings[0]
    assert read(TEI, truncation_direction="Right").warnings == ()


@pytest.mark.parametrize(
    ("beginning", "dialect"),
    [
        (b'{"query": "a \\"texts\\": []", "documents": ["', JINA),
        (b'{"query": "q", "texts": ["a', TEI),
        (b'{"query": "q", "texts": null, "passages" : [', NIM),
        (b'{"model": "rerank-2.5", "query": "q', VOYAGE),
        (b'{"query": "q", "top_k": null', VOYAGE),
        (b'{"rank_fields": ["a"]', COHERE_V1),
        (b"", JINA),
        (b"\xff\xfe", JINA),
    ],
)
def test_the_beginning_of_a_body_tells_the_dialect(beginning: bytes, dialect: Dialect) -> None:
    assert by_beginning(beginning, {}) is dialect


def test_the_headers_tell_where_the_beginning_does_not() -> None:
    assert by_beginning(b'{"query": "q"', {"user-agent": "cohere/7.3.1"}) is COHERE_V1


def test_counting_ends_at_the_limit_and_takes_no_long_steps() -> None:
    steps: list[int] = []

    def count(texts: Any) -> int:
        steps.append(sum(map(len, texts)))
        return steps[-1]

    call = RerankCall(query="q", documents=("a" * 300_000, *["b" * 30_000] * 10))
    with pytest.raises(TooManyDocuments, match="200000 tokens"):
        check_limits(call, Limits(max_tokens=200_000), count, 700_000)
    assert max(steps) < 140_000
    assert sum(steps) < 300_000
    steps.clear()
    check_limits(call, Limits(max_tokens=600_001), count, 700_000)
    assert sum(steps) == 600_001


def test_pairs_are_refused_by_the_callers_own_names() -> None:
    body = json.dumps({"text_1": ["x" * 20, "y"], "text_2": ["a", "b"]}).encode()
    asked = ScoreDialect().read(body)
    assert asked.queries_field == "text_1"
    with pytest.raises(Exception, match=r"^text_1: longer than") as caught:
        check_limits(asked.calls[0], Limits(max_query_bytes=10), len, len(body))
    assert getattr(caught.value, "field", None) == "text_1"
