"""Judged collections: what a reranker's order is measured against."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import msgspec

from proxy.errors import InvalidFile
from proxy.offline.training_data import read_lines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


class Judged(msgspec.Struct, frozen=True):
    """Queries, their candidates in the retriever's order, and how relevant documents are."""

    name: str
    queries: dict[str, str]
    documents: dict[str, str]
    candidates: dict[str, list[str]]
    """For each query the ids of its candidates, the retriever's best first."""
    grades: dict[str, dict[str, int]]
    """For each query the grade of its judged documents; all others are 0."""

    def first(self, queries: int, candidates: int) -> Judged:
        """Return the first *queries*, each with its first *candidates*."""
        kept = list(self.candidates)[:queries]
        return Judged(
            self.name,
            {q: self.queries[q] for q in kept},
            self.documents,
            {q: self.candidates[q][:candidates] for q in kept},
            {q: self.grades[q] for q in kept if q in self.grades},
        )


class _Row(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    text: str = ""
    title: str = ""


def read_beir(folder: Path) -> Judged:
    """Return a collection in BEIR's layout (corpus.jsonl, queries.jsonl, qrels.tsv), its candidates in bm25.json.

    Raises:
        InvalidFile: a file is missing or a line cannot be read; names it.

    """
    documents = {row.id: f"{row.title}\n{row.text}".strip() for row in _rows(_one_of(folder, "corpus.jsonl"))}
    queries = {row.id: row.text for row in _rows(_one_of(folder, "queries.jsonl"))}
    candidates = _candidates(_one_of(folder, "bm25.json"))
    grades = _grades(_one_of(folder, "qrels.tsv"))
    wanted = {q: ids for q, ids in candidates.items() if q in queries and q in grades}
    return Judged(folder.name, queries, documents, wanted, grades)


def _one_of(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise InvalidFile(folder / name, "is not there")


def _rows(path: Path) -> list[_Row]:
    decoder = msgspec.json.Decoder(_Row)
    rows = []
    for number, line in read_lines(path):
        try:
            rows.append(decoder.decode(line))
        except msgspec.MsgspecError as exc:
            raise InvalidFile(path, str(exc), line=number) from exc
    return rows


def _candidates(path: Path) -> dict[str, list[str]]:
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    try:
        return msgspec.json.decode(raw, type=dict[str, list[str]])
    except msgspec.MsgspecError as exc:
        raise InvalidFile(path, str(exc)) from exc


def _grades(path: Path) -> dict[str, dict[str, int]]:
    grades: dict[str, dict[str, int]] = {}
    for number, line in read_lines(path):
        fields = line.decode("utf-8").rstrip("\n").split("\t")
        if number == 1 and fields[-1] == "score":
            continue
        try:
            query, document, grade = fields
            grades.setdefault(query, {})[document] = int(grade)
        except ValueError as exc:
            raise InvalidFile(path, "is not `query<TAB>document<TAB>grade`", line=number) from exc
    return grades


Scorer = "Callable[[str, Sequence[str]], Sequence[float]]"


def measure(judged: Judged, scores: Mapping[str, Sequence[float]], measures: Sequence[str]) -> dict[str, float]:
    """Return each of *measures* (as ir-measures names them, such as ``nDCG@10``) over all queries.

    Args:
        judged: the collection.
        scores: for each query a score for each of its candidates, in their order.
        measures: what to compute.

    """
    import ir_measures  # noqa: PLC0415 - comes with the train extra

    run: dict[str, dict[str, float]] = {
        query: dict(zip(judged.candidates[query], map(float, found), strict=True)) for query, found in scores.items()
    }
    parsed = [ir_measures.parse_measure(name) for name in measures]
    found: dict[Any, float] = ir_measures.calc_aggregate(parsed, judged.grades, run)
    return {str(measure): value for measure, value in found.items()}
