"""Pairs are cut by tokens, never by characters, and built as the tokenizer's own template builds them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from proxy.engine.batcher import batches_of
from proxy.engine.model_folder import shipped_folder
from proxy.engine.pairs import PairEncoder, PairLimits, TokenPair
from proxy.errors import InvalidModel

if TYPE_CHECKING:
    from pathlib import Path

FILE = shipped_folder() / "tokenizer.json"
ENCODER = PairEncoder.from_file(FILE)
REFERENCE = Tokenizer.from_file(str(FILE))
LIMITS = PairLimits(64, 16)

text = st.text(max_size=200) | st.lists(st.sampled_from(["the", "a,b", "🙂", "ﬁ", "naïve", "א", "x" * 150])).map(
    " ".join
)


def reference(query: str, document: str, limit: int) -> list[int]:
    REFERENCE.no_padding()
    REFERENCE.enable_truncation(limit, strategy="only_second")
    return list(REFERENCE.encode(query, document).ids)


@settings(max_examples=200)
@given(text, text)
def test_a_pair_is_what_the_tokenizer_itself_would_build(query: str, document: str) -> None:
    if ENCODER.count(query) > LIMITS.query:
        return
    [row] = ENCODER.encode(query, [document], LIMITS).rows
    assert row.ids == reference(query, document, LIMITS.pair)


@given(text, st.lists(text, min_size=1, max_size=4), st.none() | st.integers(1, 20))
def test_no_row_is_longer_than_the_limit(query: str, documents: list[str], max_document: int | None) -> None:
    pairs = ENCODER.encode(query, documents, LIMITS, max_document)
    assert len(pairs.rows) == len(documents)
    assert all(len(row) <= LIMITS.pair for row in pairs.rows)


def test_the_query_is_kept_whole_within_its_budget_and_the_document_is_cut() -> None:
    query = " ".join(["word"] * 16)
    pairs = ENCODER.encode(query, ["tree " * 500, "leaf"], LIMITS)
    assert pairs.was_cut == [True, False]
    assert not pairs.query_was_cut
    assert all(row.document_start == 18 for row in pairs.rows)


def test_a_query_over_its_budget_is_cut_and_leaves_room_for_the_document() -> None:
    pairs = ENCODER.encode("word " * 500, ["tree " * 500], LIMITS)
    assert pairs.query_was_cut
    assert pairs.rows[0].document_start == 18
    assert len(pairs.rows[0]) == LIMITS.pair


def test_a_callers_own_limit_cuts_further() -> None:
    [row] = ENCODER.encode("q", ["tree " * 50], LIMITS, 5).rows
    assert len(row) == 3 + 1 + 5


@pytest.mark.parametrize(
    "unit", ["tree ", "x", "🙂", " ", "é"], ids=["words", "one word", "emoji", "spaces", "accents"]
)
def test_a_megabyte_is_cut_exactly_where_the_tokenizer_would(unit: str) -> None:
    document = "tree leaf " + unit * (1_000_000 // len(unit.encode()))
    [row] = ENCODER.encode("q", [document], LIMITS).rows
    assert row.ids == reference("q", document, LIMITS.pair)


def test_windows_cover_a_long_document_with_overlap() -> None:
    limits = PairLimits(64, 16, windows=True)
    words = " ".join(f"w{i}" for i in range(100))
    pairs = ENCODER.encode("q", [words, "short"], limits)
    assert pairs.document_of_row[-1] == 1
    seen = [token for row in pairs.rows[:-1] for token in row.ids[row.document_start : -1]]
    whole = ENCODER.encode("q", [words], PairLimits(4096, 16)).rows[0]
    assert set(seen) == set(whole.ids[whole.document_start : -1])
    assert all(len(row) <= limits.pair for row in pairs.rows)
    assert len(seen) > len(whole)


def test_what_would_be_cut_is_found_without_cutting() -> None:
    assert ENCODER.first_too_long("q", ["a", "tree " * 100], LIMITS) == 1
    assert ENCODER.first_too_long("word " * 17, ["a"], LIMITS) == -1
    assert ENCODER.first_too_long("word " * 16, ["a"], LIMITS) is None
    assert ENCODER.first_too_long("q", ["tree " * 60, "tree " * 61], LIMITS) == 1
    assert ENCODER.first_too_long("q", ["a", "b"], LIMITS) is None
    assert ENCODER.first_too_long("q", ["tree " * 100], PairLimits(64, 16, windows=True)) is None


def test_texts_for_another_server_are_cut_at_a_token() -> None:
    assert ENCODER.cut_texts(["one two three", "one"], 2) == (["one two", "one"], 1)


@pytest.mark.parametrize("content", [None, "", "{}", "garbage"])
def test_a_tokenizer_that_cannot_be_read_is_refused(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "tokenizer.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InvalidModel):
        PairEncoder.from_file(file)


@given(st.lists(st.integers(1, 512), max_size=80), st.integers(1, 4096))
def test_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    rows = [TokenPair([0] * length, 0) for length in lengths]
    batches = batches_of(rows, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(rows)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


@given(st.lists(st.integers(1, 512), min_size=1, max_size=80))
def test_batches_pay_for_little_padding(lengths: list[int]) -> None:
    rows = [TokenPair([0] * length, 0) for length in lengths]
    batches = batches_of(rows, 1024)
    longest_first = [lengths[i] for batch in batches for i in batch]
    assert longest_first == sorted(lengths, reverse=True)
