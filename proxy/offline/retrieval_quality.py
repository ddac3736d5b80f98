"""How much of what is relevant a retriever finds: BM25, vectors and both, side by side."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from alerts.quality import ndcg, recall
from proxy.errors import InvalidFile
from proxy.offline.benchmark_tables import Table
from proxy.offline.judged_collection import TRUTH, one_of, shipped
from proxy.offline.judged_lines import read_judgements, read_queries
from proxy.offline.significance import intervals, randomisation_p

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from proxy.offline.retrieve import Mode, Retriever

MEASURES = ("recall@25", "recall@50", "nDCG@10")
RARE_SHARE = 0.001
"""A word is rare that no more of the passages have, or only one."""
_DEPTH = 50
_BATCH = 256
_SEED = 1


class Asked(msgspec.Struct, frozen=True):
    """A query, and the grades of the passages that were judged for it."""

    query: str
    grades: dict[str, int]


class Side(msgspec.Struct, frozen=True):
    """One way to retrieve, over some queries."""

    mode: str
    measures: dict[str, float]


class Gain(msgspec.Struct, frozen=True):
    """Recall@50 of both together, less that of the better one alone: over queries, in pairs."""

    over: str
    mean: float
    low: float
    high: float
    """Of the 95 % interval."""
    p: float
    """Two-sided, of a randomisation test."""


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """What was found."""

    name: str
    passages: int
    queries: int
    sides: list[Side]
    gain: Gain | None
    """None: there is nothing but BM25."""
    rare_share: float
    rare_queries: int
    rare_sides: list[Side]
    """Over the queries that have a rare word; empty where none has."""
    rare_gain: Gain | None
    not_indexed: int
    """Relevant passages that the index does not have; they count as not found."""


def read_asked(queries: Path, truth: Path | None = None, split: str = "test") -> dict[str, Asked]:
    """Return the queries that have a relevant passage, by id: files as `benchmark` reads them, or a BEIR folder.

    Raises:
        InvalidFile: a file is missing or cannot be read, or no query has a relevant passage; names file and line.

    """
    if queries.is_dir():
        truth = truth or one_of(queries, f"qrels/{split}.tsv", "qrels.tsv")
        queries = one_of(queries, "queries.jsonl")
    queries = shipped(queries)
    rows = read_queries(queries)
    path = shipped(truth or queries.parent / TRUTH)
    asked = {name: Asked(row.query, {}) for name, row in rows.items()}
    for number, judgement in read_judgements(path):
        if judgement.query_id not in asked:
            raise InvalidFile(path, f"the query `{judgement.query_id}` is not among the queries", line=number)
        asked[judgement.query_id].grades[judgement.passage_id] = judgement.grade
    found = {name: one for name, one in asked.items() if any(one.grades.values())}
    if not found:
        raise InvalidFile(path, "no query has a relevant passage")
    return found


def evaluate(
    retriever: Retriever,
    asked: Mapping[str, Asked],
    *,
    name: str = "",
    rare_share: float = RARE_SHARE,
    on_done: Callable[[int], None] = lambda _: None,
) -> Evaluation:
    """Return the measures of each way to retrieve that the index can do; a grade above 0 is relevant.

    Args:
        retriever: the index.
        asked: queries by id, at least one, each with a relevant passage.
        name: of the collection.
        rare_share: a query has a rare word where a word of it is in this share of the passages at most, or in one.
        on_done: told how many queries more are done.

    """
    rows = list(asked.values())
    values = np.concatenate([_values(retriever, batch, on_done) for batch in _batches(rows)])
    least = max(rare_share, 1 / retriever.manifest.passages)
    is_rare = np.array([retriever.lexical.lowest_share(each.query) <= least for each in rows])
    indexed = {retriever.passages[place].id for place in range(len(retriever.passages))}
    return Evaluation(
        name=name,
        passages=retriever.manifest.passages,
        queries=len(rows),
        sides=_sides(retriever.modes, values),
        gain=_gain(retriever.modes, values),
        rare_share=rare_share,
        rare_queries=int(is_rare.sum()),
        rare_sides=_sides(retriever.modes, values[is_rare]) if is_rare.any() else [],
        rare_gain=_gain(retriever.modes, values[is_rare]) if is_rare.any() else None,
        not_indexed=sum(grade > 0 and each not in indexed for one in rows for each, grade in one.grades.items()),
    )


def _batches(rows: Sequence[Asked]) -> Iterator[Sequence[Asked]]:
    for begin in range(0, len(rows), _BATCH):
        yield rows[begin : begin + _BATCH]


def _values(
    retriever: Retriever, rows: Sequence[Asked], on_done: Callable[[int], None]
) -> np.ndarray[tuple[int, int, int], np.dtype[np.float64]]:
    """Return the measures, shape (queries, modes, measures)."""
    found = []
    for row, orders in zip(rows, retriever.orders([row.query for row in rows], _DEPTH), strict=True):
        by_mode: dict[Mode, list[int]] = {"bm25": orders.bm25, "dense": orders.dense, "hybrid": orders.fused}
        ranked = ([retriever.passages[place].id for place in by_mode[mode][:_DEPTH]] for mode in retriever.modes)
        found.append([_measures([row.grades.get(each, 0) for each in ids], row.grades) for ids in ranked])
    on_done(len(rows))
    return np.array(found)


def _measures(gains: Sequence[int], grades: Mapping[str, int]) -> list[float]:
    judged = list(grades.values())
    return [recall(gains, judged, 25), recall(gains, judged, 50), ndcg(gains, judged, 10)]


def _sides(modes: Sequence[Mode], values: np.ndarray[tuple[int, int, int], np.dtype[np.float64]]) -> list[Side]:
    means = values.mean(axis=0)
    return [
        Side(mode, {measure: float(value) for measure, value in zip(MEASURES, means[i], strict=True)})
        for i, mode in enumerate(modes)
    ]


def _gain(modes: Sequence[Mode], values: np.ndarray[tuple[int, int, int], np.dtype[np.float64]]) -> Gain | None:
    if len(modes) == 1:
        return None
    recalls = values[:, :, MEASURES.index("recall@50")]
    better = int(recalls[:, :-1].mean(axis=0).argmax())
    differences = (recalls[:, -1] - recalls[:, better])[:, None]
    [(low, high)] = intervals(differences, seed=_SEED)
    return Gain(modes[better], fmean(differences[:, 0]), low, high, randomisation_p(differences, seed=_SEED)[0])


def tables(found: Evaluation) -> list[Table]:
    """Return all queries, and those with a rare word, as tables for the terminal."""
    title = f"{found.name}: {found.queries} queries, {found.passages:,} passages".removeprefix(": ")
    made = [_table(title, found.sides, found.gain)]
    if found.not_indexed:
        made[0].captions.append(f"{found.not_indexed} relevant passages are not in the index: they count as not found")
    rare = f"rare: in {found.rare_share:.2%} of the passages or fewer, or in one only"
    if found.rare_sides:
        made.append(_table(f"{found.rare_queries} queries with a rare word", found.rare_sides, found.rare_gain))
        made[1].captions.append(rare)
    else:
        made[0].captions.append(f"no query has a rare word ({rare})")
    return made


def _table(title: str, sides: Sequence[Side], gain: Gain | None) -> Table:
    rows = [[side.mode, *(f"{side.measures[measure]:.4f}" for measure in MEASURES)] for side in sides]
    captions = []
    if gain is not None:
        captions.append(
            f"recall@50, hybrid - {gain.over}: {gain.mean:+.4f}, 95 % interval {gain.low:+.4f} to {gain.high:+.4f}, "
            f"p {gain.p:.4f}, paired by query"
        )
    return Table(title, ["retriever", *MEASURES], rows, captions)
