"""``rerank-canary retrieve``: index, search and evaluate as they are called, with a model on disk."""

from __future__ import annotations

import builtins
import json
from typing import TYPE_CHECKING, Any

import ir_measures
import pytest
from click.testing import CliRunner, Result

from proxy.cli import main
from proxy.offline.index_corpus import write_index
from proxy.offline.judged_collection import SAMPLE
from proxy.offline.retrieval_quality import evaluate, read_asked
from proxy.offline.retrieve import Retriever
from tests.retrieval import PASSAGES, MeaningEncoder, write_jsonl, write_model

if TYPE_CHECKING:
    from pathlib import Path

QUERIES = {"q1": "vehicle", "q2": "gasket XK7741", "q3": "beverage", "q4": "jar of honey"}
TRUTH = {"q1": "cars", "q2": "part", "q3": "tea", "q4": "honey"}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["retrieve", *map(str, arguments)])


def done(*arguments: object) -> str:
    ran = run(*arguments)
    assert ran.exit_code == 0, ran.output
    return ran.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model, a corpus, an index and judged queries."""
    folder = tmp_path_factory.mktemp("retrieve")
    write_model(folder / "model")
    write_jsonl(folder / "corpus.jsonl")
    rows = [json.dumps({"_id": name, "text": text}) for name, text in QUERIES.items()]
    (folder / "queries.jsonl").write_text("\n".join(rows))
    qrels = "".join(f"{query}\t{passage}\t1\n" for query, passage in TRUTH.items())
    (folder / "qrels.tsv").write_text("query-id\tcorpus-id\tscore\n" + qrels)
    done("index", folder / "corpus.jsonl", folder / "index", "--model", folder / "model")
    return folder


def test_index_says_what_it_made(folder: Path, tmp_path: Path) -> None:
    assert f"{len(PASSAGES)} passages, BM25 only" in done("index", folder / "corpus.jsonl", tmp_path / "i")
    arguments = ("index", folder / "corpus.jsonl", tmp_path / "i", "--model", folder / "model", "--json")
    made = json.loads(done(*arguments))
    assert made["passages"] == len(PASSAGES)
    assert made["dense"]["model"] == str(folder / "model")
    assert made["dense"]["dtype"] == "float32"
    assert "vectors of" in done(*arguments[:-1], "--dtype", "float16")
    assert json.loads(done(*arguments, "--precision", "bfloat16"))["dense"]["precision"] == "bfloat16"
    assert "1 cars" in done("search", tmp_path / "i", "vehicle", "--top", 1)


def test_search_prints_the_best_and_where_each_order_had_them(folder: Path) -> None:
    shown = done("search", folder / "index", "vehicle", "--top", 1)
    assert "1 cars" in shown
    assert "bm25 -, dense 1" in shown
    assert PASSAGES["cars"] in shown
    rows = [json.loads(line) for line in done("search", folder / "index", "gasket XK7741", "--json").splitlines()]
    assert rows[0] == {"id": "part", "text": PASSAGES["part"], "bm25_rank": 1, "dense_rank": 1}
    assert "nothing" in done("search", folder / "index", "vehicle", "--mode", "bm25")


def test_evaluate_prints_all_three_side_by_side_and_rare_words_apart(folder: Path) -> None:
    shown = done("evaluate", folder / "index", "--queries", folder)
    for words in ("4 queries, 6 passages", "recall@25", "recall@50", "nDCG@10", "bm25", "dense", "hybrid"):
        assert words in shown
    assert "2 queries with a rare word" in shown
    assert "recall@50, hybrid - dense" in shown
    found = json.loads(done("evaluate", folder / "index", "--queries", folder, "--json"))
    sides = {side["mode"]: side["measures"]["recall@50"] for side in found["sides"]}
    assert sides == {"bm25": 0.5, "dense": 1.0, "hybrid": 1.0}
    rare = {side["mode"]: side["measures"]["recall@50"] for side in found["rare_sides"]}
    assert rare == {"bm25": 1.0, "dense": 1.0, "hybrid": 1.0}
    assert (found["gain"]["over"], found["gain"]["mean"]) == ("dense", 0.0)


def test_evaluate_takes_the_sample_that_ships(tmp_path: Path) -> None:
    done("index", SAMPLE / "passages.jsonl", tmp_path / "index")
    shown = done("evaluate", tmp_path / "index")
    assert "sample_queries: " in shown
    assert "hybrid" not in shown


def test_relevant_passages_that_are_not_indexed_count_as_not_found(folder: Path, tmp_path: Path) -> None:
    truth = tmp_path / "qrels.tsv"
    truth.write_text("q2\tpart\t1\nq2\tgone\t1\n")
    found = json.loads(done("evaluate", folder / "index", "--queries", folder, "--truth", truth, "--json"))
    assert found["not_indexed"] == 1
    assert found["sides"][-1]["measures"]["recall@50"] == 0.5
    shown = done("evaluate", folder / "index", "--queries", folder, "--truth", truth)
    assert "1 relevant passages are not in the index" in shown


def test_the_measures_are_those_of_trec_eval(folder: Path) -> None:
    retriever = Retriever.load(folder / "index")
    asked = read_asked(folder)
    found = evaluate(retriever, asked)
    runs: dict[str, Any] = {
        name: {each.passage.id: -float(rank) for rank, each in enumerate(retriever.search(one.query, 50))}
        for name, one in asked.items()
    }
    qrels = {name: one.grades for name, one in asked.items()}
    names = ("R@25", "R@50", "nDCG@10")
    wanted = ir_measures.calc_aggregate([ir_measures.parse_measure(name) for name in names], qrels, runs)
    assert list(found.sides[-1].measures.values()) == pytest.approx(
        [wanted[ir_measures.parse_measure(name)] for name in names]
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["index", "no.jsonl", "i"], "no.jsonl: cannot be read"),
        (["index", "corpus.jsonl", "i", "--model", "./none"], "./none: there is no such folder"),
        (["index", "corpus.jsonl", "i", "--model", "empty"], "empty: cannot be loaded"),
        (["index", "corpus.jsonl", "corpus.jsonl"], "corpus.jsonl: cannot be written"),
        (["search", "none", "x"], "none/manifest.json: no index can be read here"),
        (["search", "index", " "], "QUERY: must not be empty"),
        (["search", "index", "x", "--model", "other"], "other: is of revision"),
        (["search", "index", "x", "--model", "model", "--device", "none"], "cannot be loaded"),
        (["evaluate", "index", "--queries", "none.jsonl"], "none.jsonl: cannot be read"),
        (["evaluate", "index", "--queries", "corpus.jsonl", "--truth", "qrels.tsv"], "qrels.tsv:2: the query `q1`"),
        (["evaluate", "index", "--queries", "queries.jsonl", "--truth", "zero.tsv"], "no query has a relevant passage"),
    ],
)
def test_what_cannot_be_used_ends_with_two_and_the_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    (folder / "empty").mkdir(exist_ok=True)
    (folder / "zero.tsv").write_text("q1\tcars\t0\n")
    if "other" in arguments:
        write_model(folder / "other")
        (folder / "other/1_Pooling").mkdir()
        (folder / "other/1_Pooling/config.json").write_text("{}")
    monkeypatch.chdir(folder)
    ran = run(*arguments)
    assert ran.exit_code == 2, ran.output
    assert words in ran.stderr.replace("\n", " ")
    assert "Traceback" not in ran.output


def test_without_the_extra_its_name_is_said(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.partition(".")[0] in {"sentence_transformers", "pyarrow"}:
            raise ImportError(name)
        return real(name, *arguments, **named)

    (tmp_path / "c.parquet").write_bytes(b"")
    monkeypatch.setattr(builtins, "__import__", without)
    for arguments, words in (
        (("index", folder / "corpus.jsonl", tmp_path / "i", "--model", folder / "model"), "rerank-canary[torch]"),
        (("search", folder / "index", "x"), "rerank-canary[torch]"),
        (("index", tmp_path / "c.parquet", tmp_path / "i"), "rerank-canary[events]"),
    ):
        ran = run(*arguments)
        assert ran.exit_code == 2
        assert words in ran.stderr
    assert done("index", folder / "corpus.jsonl", tmp_path / "i")


def test_a_model_that_was_moved_is_named_by_where_it_lies_now(folder: Path, tmp_path: Path) -> None:
    moved = write_model(tmp_path / "moved")
    encoder = MeaningEncoder()
    write_index(folder / "corpus.jsonl", tmp_path / "i", encoder)
    ran = run("search", tmp_path / "i", "vehicle", "--model", moved)
    assert ran.exit_code == 2  # another model altogether
    (folder / "model").rename(folder / "gone")
    try:
        assert "1 cars" in done("search", folder / "index", "vehicle", "--model", folder / "gone", "--top", 1)
    finally:
        (folder / "gone").rename(folder / "model")
