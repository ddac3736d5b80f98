"""Hybrid retrieval: what BM25 finds, what vectors find, what both find together; exact search in blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.errors import InvalidModel
from proxy.offline import dense_index
from proxy.offline.dense_index import DenseIndex
from proxy.offline.fusion import fused
from proxy.offline.index_corpus import write_index
from proxy.offline.lexical_index import highest
from proxy.offline.retrieve import Retriever
from tests.retrieval import PASSAGES, MeaningEncoder, write_jsonl

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def retriever(tmp_path: Path) -> Retriever:
    write_index(write_jsonl(tmp_path / "corpus.jsonl"), tmp_path / "index", MeaningEncoder())
    return Retriever.load(tmp_path / "index", encoder=MeaningEncoder())


def test_a_rare_word_is_bm25s_and_another_word_for_the_same_the_vectors(retriever: Retriever) -> None:
    assert retriever.ids(["gasket XK7741"], 1, "bm25") == [["part"]]
    assert retriever.ids(["vehicle"], 1, "bm25") == [[]]
    assert retriever.ids(["vehicle"], 1, "dense") == [["cars"]]


def test_both_together_find_what_either_finds(retriever: Retriever) -> None:
    [found] = retriever.ids(["vehicle XK7741"], 4)
    assert {"part", "cars"} <= set(found[:3])


def test_a_passage_says_where_each_order_had_it(retriever: Retriever) -> None:
    by_id = {each.passage.id: each for each in retriever.search("honey jar", 6)}
    assert (by_id["honey"].bm25_rank, by_id["honey"].dense_rank) == (1, 1)
    assert by_id["bees"].bm25_rank is None
    assert by_id["bees"].dense_rank == 2
    assert by_id["honey"].passage.text == PASSAGES["honey"]


def test_many_queries_at_once_find_what_each_finds_alone(retriever: Retriever) -> None:
    queries = ["vehicle", "engine started", "summer bee", "nothing of this"]
    alone = [retriever.ids([query], 3)[0] for query in queries]
    assert retriever.ids(queries, 3) == alone


def test_a_query_that_no_passage_has_a_word_of_finds_nothing_by_bm25(retriever: Retriever) -> None:
    assert retriever.search("zzz", 3, "bm25") == []
    assert retriever.search("the of and", 3, "bm25") == []
    assert len(retriever.search("zzz", 3)) == 3


def test_bm25_alone_asks_no_model(tmp_path: Path) -> None:
    encoder = MeaningEncoder()
    write_index(write_jsonl(tmp_path / "corpus.jsonl"), tmp_path / "index", encoder)
    found = Retriever.load(tmp_path / "index", encoder=encoder)
    encoder.fault = RuntimeError("must not be asked")
    assert found.ids(["honey"], 1, "bm25") == [["honey"]]
    with pytest.raises(RuntimeError):
        found.search("honey", 1)


def test_an_index_without_vectors_does_bm25_and_says_so(tmp_path: Path) -> None:
    write_index(write_jsonl(tmp_path / "corpus.jsonl"), tmp_path / "index")
    found = Retriever.load(tmp_path / "index")
    assert found.modes == ("bm25",)
    assert found.ids(["honey"], 2) == [["honey"]]
    with pytest.raises(InvalidModel, match="--model"):
        found.search("honey", 1, "dense")


def test_half_precision_finds_the_same(tmp_path: Path) -> None:
    corpus = write_jsonl(tmp_path / "corpus.jsonl")
    write_index(corpus, tmp_path / "half", MeaningEncoder(), dtype="float16")
    write_index(corpus, tmp_path / "whole", MeaningEncoder())
    half = Retriever.load(tmp_path / "half", encoder=MeaningEncoder())
    whole = Retriever.load(tmp_path / "whole", encoder=MeaningEncoder())
    queries = ["vehicle motor", "insect", "summer beverage"]
    assert half.ids(queries, 6, "dense") == whole.ids(queries, 6, "dense")
    assert half.manifest.sizes["vectors.npy"] < whole.manifest.sizes["vectors.npy"]


def test_a_rare_word_is_told_by_the_share_of_passages_that_have_it(retriever: Retriever) -> None:
    assert retriever.lexical.lowest_share("XK7741 engine") == pytest.approx(1 / 6)
    assert retriever.lexical.lowest_share("automobile started") == pytest.approx(2 / 6)
    assert retriever.lexical.lowest_share("zzz") == 1.0


@pytest.mark.parametrize("passages", [1, 3, 7, 50])
@pytest.mark.parametrize("count", [1, 5, 100])
def test_search_in_blocks_is_exact_ties_as_indexed(monkeypatch: pytest.MonkeyPatch, passages: int, count: int) -> None:
    monkeypatch.setattr(dense_index, "_BLOCK_BYTES", 4 * 4 * 3)  # three passages
    dice = np.random.default_rng(7)
    vectors = dice.integers(-2, 3, (passages, 4)).astype(np.float32)  # of few values, so that there are ties
    queries = dice.integers(-2, 3, (5, 4)).astype(np.float32)
    wanted = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :count]
    assert DenseIndex(vectors).best(queries, count) == wanted.tolist()


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.integers(1, 45), st.sampled_from([-np.inf, 0.0]))
def test_the_highest_are_those_of_a_full_sort(values: list[int], count: int, above: float) -> None:
    scores = np.array(values, np.float32)
    wanted = [int(place) for place in np.argsort(-scores, kind="stable") if scores[place] > above][:count]
    assert highest(scores, count, above=above) == wanted


def test_reciprocal_ranks_are_added_as_the_paper_has_them() -> None:
    found = fused([[7, 8], [8, 9]])
    assert [place for place, _ in found] == [8, 7, 9]
    assert [score for _, score in found] == pytest.approx([1 / 62 + 1 / 61, 1 / 61, 1 / 62])
    assert fused([[], []]) == []


@given(st.lists(st.permutations(range(6)), min_size=1, max_size=4))
def test_what_every_order_has_first_is_first(orders: list[list[int]]) -> None:
    same = [[99, *order] for order in orders]
    assert fused(same)[0][0] == 99
    assert {place for place, _ in fused(same)} == {99, *range(6)}
