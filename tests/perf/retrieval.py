"""How fast and how good retrieval is: ``python -m tests.perf.retrieval``. Milliseconds a query; recall."""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
import numpy as np

from proxy.benchmark_cli import show
from proxy.offline.bi_encoder import BiEncoder
from proxy.offline.corpus import Passage
from proxy.offline.index_corpus import write_index
from proxy.offline.judged_lines import numbered_lines, read_queries
from proxy.offline.retrieval_quality import MEASURES, Evaluation, evaluate, read_asked, tables
from proxy.offline.retrieve import Retriever
from tests.perf.machine import console, keep, table, this_machine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from proxy.offline.dense_index import Dtype, Vectors

LIMITS_MS = {"bm25": 15.0, "hybrid": 40.0}
_WARM = 20


class Times(msgspec.Struct, frozen=True):
    """Milliseconds of one query after the other, in one thread of ours."""

    what: str
    mean_ms: float
    p50_ms: float
    p95_ms: float
    most_ms: float


class Random:
    """A model whose vectors of passages are random: an exact search takes as long whatever is in them."""

    def __init__(self, model: BiEncoder) -> None:
        self._model = model
        self._dice = np.random.default_rng(1)
        self.name, self.revision, self.precision = model.name, model.revision, model.precision

    def queries(self, texts: Sequence[str]) -> Vectors:
        return self._model.queries(texts)

    def passages(self, texts: Sequence[str]) -> Vectors:
        dimensions = self._model.queries(["a"]).shape[1]
        made = self._dice.standard_normal((len(texts), dimensions), np.float32)
        vectors: Vectors = made / np.linalg.norm(made, axis=1, keepdims=True)
        return vectors


def texts_of(files: Sequence[Path]) -> Iterator[str]:
    """Yield the passages of JSONL files: objects with ``text``, or plain texts."""
    for file in files:
        for _, line in numbered_lines(file):
            found = json.loads(line)
            yield found if isinstance(found, str) else found["text"]


def write_corpus(files: Sequence[Path], count: int, path: Path) -> None:
    """Write *count* passages; where the files have fewer, they come again under other ids."""
    texts = itertools.islice(itertools.cycle(texts_of(files)), count)
    rows = (Passage(f"p{number}", text) for number, text in enumerate(texts))
    with path.open("wb") as out:
        out.writelines(msgspec.json.encode({"id": row.id, "text": row.text}) + b"\n" for row in rows)


def timed(what: str, queries: Sequence[str], ask: Callable[[str], object]) -> Times:
    """Return how long *ask* takes for each of *queries*, the first few apart."""
    for query in queries[:_WARM]:
        ask(query)
    seconds = []
    for query in queries:
        began = time.perf_counter()
        ask(query)
        seconds.append(time.perf_counter() - began)
    taken = np.array(seconds) * 1000
    return Times(what, float(taken.mean()), *(float(np.quantile(taken, q)) for q in (0.5, 0.95, 1)))


def measure_times(
    passages: Sequence[Path], queries: Path, model: BiEncoder, count: int, limit: int, dtype: Dtype
) -> list[Times]:
    """Index *count* passages and time *limit* queries each way."""
    asked = [row.query or row.text for row in read_queries(queries).values()][:limit]
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder) / "corpus.jsonl"
        write_corpus(passages, count, corpus)
        encoder = Random(model)
        write_index(corpus, Path(folder) / "index", encoder, dtype=dtype)
        retriever = Retriever.load(Path(folder) / "index", encoder=encoder)
        return [
            timed("bm25", asked, lambda query: retriever.search(query, 50, "bm25")),
            timed("vector of the query", asked, lambda query: model.queries([query])),
            timed("dense", asked, lambda query: retriever.search(query, 50, "dense")),
            timed("hybrid", asked, lambda query: retriever.search(query, 50, "hybrid")),
        ]


def measure_quality(folders: Sequence[Path], model: BiEncoder) -> list[Evaluation]:
    """Index each collection, a BEIR folder, with the model, and evaluate it."""
    found = []
    for folder in folders:
        corpus = next(path for name in ("corpus.jsonl", "corpus.jsonl.gz") if (path := folder / name).is_file())
        with tempfile.TemporaryDirectory() as index:
            write_index(corpus, Path(index), model)
            retriever = Retriever.load(Path(index), encoder=model)
            found.append(evaluate(retriever, read_asked(folder), name=folder.name))
    return found


def average(found: Sequence[Evaluation]) -> list[list[str]]:
    """Return the rows of the table over all collections."""
    rows = []
    for place, side in enumerate(found[0].sides):
        means = [np.mean([one.sides[place].measures[measure] for one in found]) for measure in MEASURES]
        rows.append([side.mode, *(f"{mean:.4f}" for mean in means)])
    return rows


@click.command()
@click.option("--model", required=True, help="A sentence-transformers bi-encoder.")
@click.option("--passages", type=click.Path(path_type=Path), multiple=True, help="JSONL. None: no times.")
@click.option("--queries", type=click.Path(path_type=Path), help="JSONL, of the times.")
@click.option("--collection", "collections", type=click.Path(path_type=Path), multiple=True, help="BEIR folders.")
@click.option("--count", default=40_000, show_default=True, help="Passages of the times.")
@click.option("--limit", default=300, show_default=True, help="Queries of the times.")
@click.option("--dtype", type=click.Choice(["float32", "float16"]), default="float32", show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Keep the figures.")
def main(
    model: str,
    passages: tuple[Path, ...],
    queries: Path | None,
    collections: tuple[Path, ...],
    count: int,
    limit: int,
    dtype: Dtype,
    file: Path | None,
) -> None:
    """Print times over many passages, and recall on judged collections."""
    machine, out, encoder = this_machine(), console(), BiEncoder(model)
    times = measure_times(passages, queries, encoder, count, limit, dtype) if passages and queries else []
    if times:
        rows = [
            [
                one.what,
                *(f"{ms:.1f}" for ms in (one.mean_ms, one.p50_ms, one.p95_ms, one.most_ms)),
                f"{LIMITS_MS[one.what]:g}" if one.what in LIMITS_MS else "",
            ]
            for one in times
        ]
        title = f"milliseconds a query: {count:,} passages, {limit} queries, 50 found, {dtype}"
        out.print(table(title, ["way", "mean", "p50", "p95", "most", "limit"], rows, str(machine)))
    found = measure_quality(collections, encoder)
    for each in found:
        for shown in tables(each):
            show(shown, out)
    if found:
        out.print(table(f"mean of {len(found)} collections", ["retriever", *MEASURES], average(found)))
    keep(file, machine, times=times, quality=found)


if __name__ == "__main__":
    main()
