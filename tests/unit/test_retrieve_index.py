"""A saved index: what a corpus may be, what is refused on opening, and that a broken run leaves the old one."""

from __future__ import annotations

import gzip
import json
import math
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pytest
from pyarrow import parquet

from proxy.errors import InvalidFile, InvalidModel
from proxy.offline.bi_encoder import BiEncoder
from proxy.offline.corpus import read_corpus
from proxy.offline.index_corpus import write_index
from proxy.offline.index_folder import new_data
from proxy.offline.retrieve import Retriever
from tests.retrieval import PASSAGES, MeaningEncoder, write_jsonl, write_model
from tests.running import ROOT

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from proxy.offline.dense_index import Dtype, Vectors

ROWS = [{"id": "a", "text": "red fox", "title": "Foxes"}, {"id": "b", "text": "ships"}]


def lines(*rows: object) -> str:
    return "".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows)


def test_a_corpus_is_the_same_in_every_format(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text(lines(*ROWS))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines({"_id": "a", **ROWS[0]}, ROWS[1]).encode()))
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "c.parquet")
    found = [list(read_corpus(tmp_path / name)) for name in ("c.jsonl", "c.jsonl.gz", "c.parquet")]
    assert found[0] == found[1] == found[2]
    assert [each.whole for each in found[0]] == ["Foxes\nred fox", "ships"]


def test_parquet_may_have_numbers_for_ids(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"id": [7, 8], "text": ["x", "y"]}), tmp_path / "c.parquet")
    assert [each.id for each in read_corpus(tmp_path / "c.parquet")] == ["7", "8"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("c.jsonl", "", ["c.jsonl", "is empty"]),
        ("c.jsonl", lines(*ROWS, '{"id": "c"'), ["c.jsonl:3", "truncated"]),
        ("c.jsonl", lines(*ROWS, {"id": "c"}), ["c.jsonl:3", "text"]),
        ("c.jsonl", lines(*ROWS, {"text": "x"}), ["c.jsonl:3", "needs an `id`"]),
        ("c.jsonl", lines(*ROWS, {"id": 3, "text": "x"}), ["c.jsonl:3", "$.id"]),
        ("c.jsonl", lines(*ROWS, ROWS[0]), ["c.jsonl:3", "`a`", "line 1"]),
        ("c.jsonl.gz", "no gzip", ["c.jsonl.gz", "cannot be read"]),
        ("c.csv", "id,text\n", ["c.csv", "neither .jsonl"]),
        ("c.parquet", "no parquet", ["c.parquet", "cannot be read"]),
        ("c.jsonl/", "", ["c.jsonl", "cannot be read"]),
    ],
)
def test_a_broken_corpus_is_refused_where_it_is_broken(
    tmp_path: Path, name: str, content: str, words: list[str]
) -> None:
    path = tmp_path / name
    path.mkdir() if name.endswith("/") else path.write_text(content)
    with pytest.raises(InvalidFile) as refused:
        write_index(path, tmp_path / "index")
    assert all(word in str(refused.value) for word in words), refused.value
    assert not list((tmp_path).glob("index/data-*"))


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"id": ["a"], "body": ["x"]}, ["no column `text`"]),
        ({"name": ["a"], "text": ["x"]}, ["no column `id`"]),
        ({"id": ["a", "b"], "text": ["x", None]}, ["c.parquet:2", "`text` is no text"]),
        ({"id": [1.5], "text": ["x"]}, ["c.parquet:1", "`id` is no text"]),
    ],
)
def test_parquet_that_is_no_corpus_is_refused(tmp_path: Path, table: dict[str, Any], words: list[str]) -> None:
    parquet.write_table(pa.table(table), tmp_path / "c.parquet")
    with pytest.raises(InvalidFile) as refused:
        list(read_corpus(tmp_path / "c.parquet"))
    assert all(word in str(refused.value) for word in words), refused.value


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return the folder of an index of the corpus beside it."""
    write_index(write_jsonl(tmp_path / "corpus.jsonl"), tmp_path / "index", MeaningEncoder())
    return tmp_path / "index"


def load(folder: Path, encoder: MeaningEncoder | None = None) -> Retriever:
    return Retriever.load(folder, encoder=encoder or MeaningEncoder())


def test_a_corpus_that_changed_under_the_index_is_refused(folder: Path) -> None:
    corpus = folder.parent / "corpus.jsonl"
    corpus.write_text(corpus.read_text().replace("six weeks", "ten weeks"))
    with pytest.raises(InvalidFile, match=r"corpus\.jsonl: has changed since .* `rerank-canary retrieve index`"):
        load(folder)
    write_index(corpus, folder, MeaningEncoder())
    assert load(folder).search("bee", 1)[0].passage.text == "A worker bee lives about ten weeks in summer."


def test_a_corpus_that_was_only_touched_or_is_gone_is_not_missed(folder: Path) -> None:
    corpus = folder.parent / "corpus.jsonl"
    os.utime(corpus, (1, 1))
    assert load(folder).ids(["honey"], 1) == [["honey"]]
    corpus.unlink()
    assert load(folder).ids(["honey"], 1) == [["honey"]]


def test_a_model_of_another_revision_is_refused(folder: Path) -> None:
    with pytest.raises(InvalidModel, match=r"revision 2, .* was made with 1"):
        load(folder, MeaningEncoder("2"))


def edit(folder: Path, **fields: Any) -> None:
    file = folder / "manifest.json"
    file.write_bytes(msgspec.json.encode(msgspec.json.decode(file.read_bytes()) | fields))


def test_what_is_no_whole_index_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="no index can be read here"):
        load(tmp_path / "nowhere")
    good = (folder / "manifest.json").read_bytes()
    for fields, words in (({"schema": 2}, "version 2"), ({"passages": 7}, "not 7"), ({"sizes": 3}, r"\$.sizes")):
        edit(folder, **fields)
        with pytest.raises(InvalidFile, match=words):
            load(folder)
        (folder / "manifest.json").write_bytes(good)
    (folder / "manifest.json").write_bytes(good[:40])
    with pytest.raises(InvalidFile, match="is no manifest"):
        load(folder)
    (folder / "manifest.json").write_bytes(good)
    [vectors] = folder.glob("data-*/vectors.npy")
    vectors.write_bytes(vectors.read_bytes()[:-4])
    with pytest.raises(InvalidFile, match=r"vectors\.npy: has \d+ bytes, not \d+: the index is broken"):
        load(folder)
    vectors.unlink()
    with pytest.raises(InvalidFile, match=r"vectors\.npy: is missing"):
        load(folder)


def test_a_new_index_takes_the_place_of_the_old_and_an_open_one_goes_on(folder: Path) -> None:
    before = load(folder)
    corpus = write_jsonl(folder.parent / "other.jsonl", {"x": "a comet", "y": "a planet"})
    write_index(corpus, folder)
    assert load(folder).ids(["comet"], 1) == [["x"]]
    assert before.ids(["honey jar"], 1) == [["honey"]]
    assert before.search("honey", 1)[0].passage.text == PASSAGES["honey"]
    assert len(list(folder.glob("data-*"))) == 1


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_vectors_of_the_same_texts_by_the_same_model_are_taken_over(tmp_path: Path, dtype: Dtype) -> None:
    corpus, index = write_jsonl(tmp_path / "corpus.jsonl"), tmp_path / "index"
    write_index(corpus, index, MeaningEncoder(), dtype=dtype)
    write_jsonl(corpus, {"new": "a car and its motor", **dict(reversed(PASSAGES.items())), "bees": "an insect"})
    encoder = MeaningEncoder()
    write_index(corpus, index, encoder, dtype=dtype)
    assert encoder.encoded == ["a car and its motor", "an insect"]
    write_index(corpus, tmp_path / "fresh", MeaningEncoder(), dtype=dtype)
    queries = ["beverage", "vehicle motor", "insect", "xk7741"]
    assert load(index).ids(queries, 7, "dense") == load(tmp_path / "fresh").ids(queries, 7, "dense")


def test_vectors_of_another_model_or_precision_are_made_anew(tmp_path: Path) -> None:
    corpus, index = write_jsonl(tmp_path / "corpus.jsonl"), tmp_path / "index"
    write_index(corpus, index, MeaningEncoder())
    other, finer = MeaningEncoder("2"), MeaningEncoder("2")
    finer.precision = "bfloat16"
    for encoder in (other, finer):
        write_index(corpus, index, encoder)
        assert len(encoder.encoded) == len(PASSAGES)
    write_index(corpus, index)
    write_index(corpus, index, again := MeaningEncoder("2"))
    assert len(again.encoded) == len(PASSAGES)


def broken(fault: BaseException) -> MeaningEncoder:
    """Return an encoder that fails in the middle of a corpus."""

    class Broken(MeaningEncoder):
        def passages(self, _: Sequence[str]) -> Vectors:
            raise fault

    return Broken()


@pytest.mark.parametrize("fault", [RuntimeError("out of memory"), KeyboardInterrupt(), OSError(28, "No space left")])
def test_a_run_that_fails_leaves_the_old_index(folder: Path, fault: BaseException) -> None:
    corpus = write_jsonl(folder.parent / "other.jsonl", {"x": "a comet"})
    with pytest.raises(InvalidFile if isinstance(fault, OSError) else type(fault)):
        write_index(corpus, folder, broken(fault))
    assert load(folder).ids(["honey"], 1) == [["honey"]]
    assert len(list(folder.glob("data-*"))) == 1


def test_a_vector_that_is_not_finite_is_refused(folder: Path) -> None:
    corpus = write_jsonl(folder.parent / "other.jsonl", {"x": "a comet"})
    encoder = BiEncoder(str(write_model(folder.parent / "model", unknown=math.nan)))
    with pytest.raises(InvalidModel, match="gave a vector that is not finite"):
        write_index(corpus, folder, encoder)
    assert load(folder).ids(["honey"], 1) == [["honey"]]


def test_a_full_disk_in_the_middle_leaves_the_old_index(folder: Path) -> None:
    corpus = folder.parent / "large.jsonl"
    corpus.write_text(lines(*({"id": str(i), "text": f"passage {i} of many words " * 20} for i in range(2000))))
    limited = (
        "import resource, signal, sys; from proxy.cli import main; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)); main(sys.argv[1:])"
    )
    command = [sys.executable, "-c", limited, "retrieve", "index", str(corpus), str(folder)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 2, ran.stderr
    assert "cannot be written (File too large); what was there is as it was" in ran.stderr
    assert load(folder).ids(["honey"], 1) == [["honey"]]
    assert len(list(folder.glob("data-*"))) == 1


def test_what_a_killed_run_left_is_deleted_by_the_next(folder: Path) -> None:
    (folder / "data-0123").mkdir()
    (folder / "data-0123/vectors.npy").write_bytes(b"half")
    write_index(folder.parent / "corpus.jsonl", folder)
    assert not (folder / "data-0123").exists()


def test_one_run_at_a_time_writes_an_index(folder: Path) -> None:
    with new_data(folder), pytest.raises(InvalidFile, match="another run is writing"):
        write_index(folder.parent / "corpus.jsonl", folder)
    assert load(folder).ids(["honey"], 1) == [["honey"]]


def test_a_corpus_that_changes_while_it_is_indexed_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = folder.parent / "corpus.jsonl"

    def changing(path: Path) -> Any:
        yield from read_corpus(path)
        path.write_text(path.read_text() + lines({"id": "late", "text": "too late"}))

    monkeypatch.setattr("proxy.offline.index_corpus.read_corpus", changing)
    with pytest.raises(InvalidFile, match="changed while it was indexed"):
        write_index(corpus, folder)


def test_readers_find_an_index_whenever_they_open_it(folder: Path) -> None:
    wrong: list[BaseException] = []
    is_over = threading.Event()

    def read() -> None:
        while not is_over.is_set():
            try:
                assert load(folder).ids(["honey"], 1, "bm25") == [["honey"]]
            except BaseException as exc:  # noqa: BLE001
                wrong.append(exc)
                return

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(30):
        write_index(folder.parent / "corpus.jsonl", folder, MeaningEncoder())
    is_over.set()
    for thread in threads:
        thread.join()
    assert not wrong
