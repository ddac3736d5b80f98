"""Judged collections in each format, what is refused in them and where, and the sample that ships."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from proxy.errors import InvalidFile
from proxy.offline.candidate_files import read_candidates
from proxy.offline.judged_collection import SAMPLE, Sources, read_collection

if TYPE_CHECKING:
    from pathlib import Path

QUERIES = '{"id": "q1", "query": "red fox", "candidates": ["a", "b"]}\n{"id": "q2", "query": "ships"}\n'
PASSAGES = '{"id": "a", "text": "a red fox"}\n{"id": "b", "text": "ships at sea"}\n{"id": "c", "text": "tea"}\n'
TRUTH = '{"query_id": "q1", "passage_id": "a", "grade": 2}\n{"query_id": "q2", "passage_id": "b", "grade": 1}\n'


def collection(folder: Path, queries: str = QUERIES, passages: str = PASSAGES, truth: str = TRUTH) -> Sources:
    (folder / "queries.jsonl").write_text(queries)
    (folder / "passages.jsonl").write_text(passages)
    (folder / "judgements.jsonl").write_text(truth)
    return Sources(queries=folder / "queries.jsonl")


def test_a_query_without_candidates_is_left_out_where_others_bring_theirs(tmp_path: Path) -> None:
    found = read_collection(collection(tmp_path), 25)
    assert found.candidates == {"q1": ["a", "b"]}
    assert found.texts("q1") == ["a red fox", "ships at sea"]
    assert "1 queries without candidates" in found.notes[0]


def test_without_candidates_bm25_finds_them(tmp_path: Path) -> None:
    found = read_collection(collection(tmp_path, QUERIES.replace(', "candidates": ["a", "b"]', "")), 2)
    assert found.candidates["q1"][0] == "a"
    assert found.candidates["q2"][0] == "b"
    assert [len(ids) for ids in found.candidates.values()] == [2, 2]
    assert "BM25" in found.notes[0]


@pytest.mark.parametrize(
    ("file", "text", "words"),
    [
        ("queries.jsonl", "", ["queries.jsonl", "is empty"]),
        ("queries.jsonl", QUERIES + "{", ["queries.jsonl:3", "truncated"]),
        ("queries.jsonl", QUERIES + QUERIES.splitlines()[0], ["queries.jsonl:3", "`q1`", "line 1"]),
        ("queries.jsonl", '{"id": "q1"}', ["queries.jsonl:1", "needs an `id` and a `query`"]),
        ("queries.jsonl", QUERIES.replace('"b"', '"z"'), ["`q1`", "`z`", "no passage"]),
        ("queries.jsonl", QUERIES.replace('"b"', '"a"'), ["queries.jsonl:1", "twice"]),
        ("queries.jsonl", '{"id": 7, "query": "x"}', ["queries.jsonl:1", "$.id"]),
        ("passages.jsonl", "", ["passages.jsonl", "is empty"]),
        ("passages.jsonl", PASSAGES + PASSAGES, ["passages.jsonl:4", "`a`", "line 1"]),
        ("passages.jsonl", '{"id": "a"}', ["passages.jsonl:1", "text"]),
        ("passages.jsonl", '{"text": "a"}', ["passages.jsonl:1", "`id`"]),
        ("judgements.jsonl", "\n\n", ["judgements.jsonl", "is empty"]),
        ("judgements.jsonl", TRUTH.replace("q2", "q9"), ["judgements.jsonl:2", "`q9`", "not among the queries"]),
        ("judgements.jsonl", TRUTH.replace('"b"', '"z"'), ["judgements.jsonl:2", "`z`", "not among the passages"]),
        ("judgements.jsonl", TRUTH.replace("2}", '"high"}'), ["judgements.jsonl:1", "$.grade"]),
        ("judgements.jsonl", TRUTH.replace("2}", "1.5}"), ["judgements.jsonl:1", "$.grade"]),
        ("judgements.jsonl", TRUTH.replace("2}", "-1}"), ["judgements.jsonl:1", "$.grade"]),
        ("judgements.jsonl", TRUTH + TRUTH, ["judgements.jsonl:3", "`q1, a`", "line 1"]),
        ("judgements.jsonl", TRUTH.replace("2}", "0}").replace("1}", "0}"), ["no query has both"]),
    ],
)
def test_what_cannot_be_used_is_refused_by_file_and_line(
    tmp_path: Path, file: str, text: str, words: list[str]
) -> None:
    sources = collection(tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(InvalidFile) as refused:
        read_collection(sources, 25)
    for word in words:
        assert word in str(refused.value)


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    sources = collection(tmp_path)
    (tmp_path / "passages.jsonl").rename(tmp_path / "elsewhere.jsonl")
    with pytest.raises(InvalidFile, match=r"no passages\.jsonl"):
        read_collection(sources, 25)
    with pytest.raises(InvalidFile, match=r"none\.jsonl: cannot be read"):
        read_collection(Sources(queries=tmp_path / "none.jsonl"), 25)
    broken = tmp_path / "broken.jsonl.gz"
    broken.write_bytes(gzip.compress(QUERIES.encode())[:-12])
    with pytest.raises(InvalidFile, match=r"broken\.jsonl\.gz: cannot be read"):
        read_collection(Sources(queries=broken), 25)


def test_unknown_judgements_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    sources = collection(tmp_path, truth=TRUTH + '{"query_id": "q9", "passage_id": "a", "grade": 1}')
    found = read_collection(Sources(queries=sources.queries, skips_unknown=True), 25)
    assert any("1 judgements of unknown" in note for note in found.notes)


def test_a_folder_in_beirs_layout_is_read(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_text('{"_id": "a", "title": "Fox", "text": "red"}\n{"_id": "b", "text": "tea"}\n')
    (tmp_path / "queries.jsonl").write_text('{"_id": "1", "text": "a fox"}\n')
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n1\ta\t1\n1\tgone\t1\n")
    found = read_collection(Sources(queries=tmp_path), 25)
    assert found.name == tmp_path.name
    assert found.documents["a"] == "Fox\nred"
    assert found.candidates["1"][0] == "a"
    assert found.grades == {"1": {"a": 1, "gone": 1}}
    with pytest.raises(InvalidFile, match=r"no qrels/dev\.tsv"):
        read_collection(Sources(queries=tmp_path, split="dev"), 25)


def test_trecs_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "topics.tsv").write_text("1\tred fox\n2\tships\n")
    (tmp_path / "collection.tsv").write_text("a\ta red fox\nb\tships at sea\n")
    (tmp_path / "qrels").write_text("1 0 a 2\n1 0 b -2\n2 0 b 1\n")
    (tmp_path / "run").write_text("1 Q0 b 1 7.5 x\n1 Q0 a 2 9.5 x\n2 Q0 b 1 3 x\n")
    sources = Sources(
        queries=tmp_path / "topics.tsv",
        truth=tmp_path / "qrels",
        passages=tmp_path / "collection.tsv",
        candidates=tmp_path / "run",
    )
    found = read_collection(sources, 25)
    assert found.candidates == {"1": ["a", "b"], "2": ["b"]}
    assert found.grades["1"] == {"a": 2, "b": 0}


def test_a_top_k_file_brings_queries_and_passages(tmp_path: Path) -> None:
    (tmp_path / "top").write_text("1\tb\tred fox\tships\n1\ta\tred fox\ta red fox\n")
    (tmp_path / "qrels").write_text("1 0 a 1\n")
    top = tmp_path / "top"
    found = read_collection(Sources(queries=top, truth=tmp_path / "qrels", candidates=top), 25)
    assert found.candidates == {"1": ["b", "a"]}
    assert found.queries == {"1": "red fox"}


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("run", "1 Q0 a one 2 x", ":1: rank and score"),
        ("run", "1 Q0 a 1 2 x\n1 Q0 a 2 1 x", ":2: the candidate `1, a`"),
        ("run", "1 Q0 a 1 nan x", ":1: the score"),
        ("run", "1 a", ":1: has"),
        ("top", "1\ta\tq\tx\n1\ta\tq\tx", "`1` is there twice"),
        ("ids.json", "[1]", "no object of lists"),
    ],
)
def test_candidates_that_cannot_be_used_are_refused(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidFile) as refused:
        read_candidates(tmp_path / name)
    assert words in str(refused.value)


def test_a_trec_grade_that_is_no_number_is_refused_by_its_line(tmp_path: Path) -> None:
    sources = collection(tmp_path)
    (tmp_path / "qrels").write_text("q1 0 a 1\nq2 0 b high\n")
    with pytest.raises(InvalidFile, match=r"qrels:2: the grade `high`"):
        read_collection(Sources(queries=sources.queries, truth=tmp_path / "qrels"), 25)


def lines(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (SAMPLE / name).read_text(encoding="utf-8").splitlines()]


def test_the_sample_is_whole() -> None:
    passages, queries, judgements = map(lines, ("passages.jsonl", "sample_queries.jsonl", "judgements.jsonl"))
    assert len(passages) >= 300
    assert len({row["subject"] for row in passages}) >= 12
    assert len(queries) >= 60
    assert all(40 <= len(str(row["text"]).split()) <= 120 for row in passages)
    assert max(Counter(row["id"] for row in (*passages, *queries)).values()) == 1
    assert len({" ".join(str(row["text"]).lower().split()) for row in passages}) == len(passages)
    assert {row["grade"] for row in judgements} == {0, 1, 2, 3}
    judged = Counter(row["query_id"] for row in judgements)
    assert all(judged[row["id"]] >= 3 for row in queries)
    answered = {row["query_id"] for row in judgements if row["grade"] == 3}
    assert answered == {row["id"] for row in queries}
    found = read_collection(Sources(), 25)
    assert {len(ids) for ids in found.candidates.values()} == {25}
    assert not found.notes


def test_candidates_that_were_given_go_before_those_of_the_queries(tmp_path: Path) -> None:
    sources = collection(tmp_path)
    file = tmp_path / "run.json"
    file.write_text('{"q1": ["b", "a"]}')
    found = read_collection(replace(sources, candidates=file), 25)
    assert found.candidates == {"q1": ["b", "a"]}
    file.write_text('{"another": ["b"]}')
    with pytest.raises(InvalidFile, match="has none of the queries"):
        read_collection(replace(sources, candidates=file), 25)


def test_a_candidate_twice_is_refused_in_json_too(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text('{"q1": ["a", "a"]}')
    with pytest.raises(InvalidFile, match="is there twice"):
        read_candidates(file)


def test_files_from_windows_are_read(tmp_path: Path) -> None:
    for name in ("queries.jsonl", "judgements.jsonl"):
        collection(tmp_path)
        file = tmp_path / name
        file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().replace(b"\n", b"\r\n"))
        assert read_collection(Sources(queries=tmp_path / "queries.jsonl"), 25).candidates == {"q1": ["a", "b"]}


@pytest.mark.parametrize("grade", ["1_0", "9" * 400, "101", "1.5", ""])
def test_a_grade_of_qrels_is_a_whole_number_up_to_100(tmp_path: Path, grade: str) -> None:
    sources = collection(tmp_path)
    file = tmp_path / "qrels.txt"
    file.write_text(f"q1 0 a {grade}\n")
    with pytest.raises(InvalidFile, match=r"qrels\.txt:1: "):
        read_collection(replace(sources, truth=file), 25)
