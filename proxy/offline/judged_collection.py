"""Puts a judged collection together from the files that a command was given, and refuses what does not fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from proxy.errors import InvalidFile
from proxy.offline.candidate_files import Retrieved, read_candidates
from proxy.offline.judged import Judged
from proxy.offline.judged_lines import QueryRow, is_json, read_judgements, read_passages, read_queries
from proxy.offline.lexical import Bm25

if TYPE_CHECKING:
    from collections.abc import Mapping

SAMPLE = Path(__file__).parent / "sample"
QUERIES, TRUTH = "sample_queries.jsonl", "judgements.jsonl"


class Sources(msgspec.Struct, frozen=True, kw_only=True):
    """Where a collection lies. Only `queries` must be said; a folder is one in BEIR's layout."""

    queries: Path = SAMPLE / QUERIES
    truth: Path | None = None
    passages: Path | None = None
    candidates: Path | None = None
    split: str = "test"
    """Of a BEIR folder: which of its ``qrels``."""
    skips_unknown: bool = False
    """Leave out judgements of unknown queries and passages instead of refusing them."""


def shipped(path: Path) -> Path:
    """Return *path*, or the file of the shipped sample where there is none and the sample has one of that name."""
    sample = SAMPLE / path.name
    return sample if not path.exists() and path.parent == Path() and sample.is_file() else path


def read_collection(sources: Sources, depth: int, min_grade: int = 1) -> Judged:
    """Return a collection with at most *depth* candidates a query: those given, else the best by BM25.

    Queries without a relevant document, or without candidates, are left out, and its `notes` say how many.

    Raises:
        InvalidFile: a file is missing, cannot be read, or does not fit the others; names file and line.

    """
    found = _in_folder(sources) if sources.queries.is_dir() else sources
    retrieved = read_candidates(shipped(found.candidates)) if found.candidates else Retrieved({})
    rows = _queries(shipped(found.queries), retrieved)
    if found.candidates and not rows.keys() & retrieved.candidates.keys():
        raise InvalidFile(found.candidates, f"has none of the queries of {found.queries}")
    notes: list[str] = []
    candidates = {
        q: (retrieved.candidates.get(q, []) if found.candidates else row.candidates or [])[:depth]
        for q, row in rows.items()
    }
    documents = dict(retrieved.passages) or _documents(found, candidates)
    if not any(candidates.values()):
        index = Bm25(documents)
        candidates = {q: index.best(row.query, depth) for q, row in rows.items()}
        notes.append(f"the candidates are BM25's best {depth} of {len(documents)} passages")
    _check_candidates(found, candidates, documents)
    grades = _grades(found, rows, documents, notes)
    kept = [q for q in rows if candidates[q] and any(grade >= min_grade for grade in grades.get(q, {}).values())]
    if not kept:
        raise InvalidFile(found.queries, "no query has both candidates and a relevant judgement")
    if len(kept) < len(rows):
        notes.append(f"{len(rows) - len(kept)} queries without candidates or a relevant judgement are left out")
    name = sources.queries.name if sources.queries.is_dir() else found.queries.name.partition(".")[0]
    return Judged(
        name,
        {q: rows[q].query for q in kept},
        documents,
        {q: candidates[q] for q in kept},
        {q: grades[q] for q in kept},
        tuple(notes),
    )


def _in_folder(sources: Sources) -> Sources:
    folder = sources.queries
    qrels = sources.truth or one_of(folder, f"qrels/{sources.split}.tsv", "qrels.tsv")
    given = sources.candidates or next((p for n in ("bm25.json", "bm25.json.gz") if (p := folder / n).is_file()), None)
    return Sources(
        queries=one_of(folder, "queries.jsonl"),
        truth=qrels,
        passages=sources.passages or one_of(folder, "corpus.jsonl"),
        candidates=given,
        skips_unknown=sources.skips_unknown,
    )


def one_of(folder: Path, *names: str) -> Path:
    """Return the first of *names* that a folder has, gzipped or not.

    Raises:
        InvalidFile: it has none of them.

    """
    for name in names:
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise InvalidFile(folder, f"has no {' and no '.join(names)}")


def _queries(path: Path, retrieved: Retrieved) -> dict[str, QueryRow]:
    if retrieved.queries:
        return {name: QueryRow(name, text) for name, text in retrieved.queries.items()}
    return read_queries(path)


def _documents(sources: Sources, candidates: Mapping[str, list[str]]) -> dict[str, str]:
    queries = shipped(sources.queries)
    path = shipped(sources.passages) if sources.passages else one_of(queries.parent, "passages.jsonl", "corpus.jsonl")
    named = {name for ids in candidates.values() for name in ids}
    # of millions of passages only those are kept that are asked for; BM25's weights want a small collection whole
    return read_passages(path, named if named and path.stat().st_size > 200e6 else None)


def _check_candidates(sources: Sources, candidates: Mapping[str, list[str]], documents: Mapping[str, str]) -> None:
    for query, ids in candidates.items():
        for name in ids:
            if name not in documents:
                raise InvalidFile(sources.queries, f"the query `{query}` has a candidate `{name}` that is no passage")


def _grades(
    sources: Sources, rows: Mapping[str, QueryRow], documents: Mapping[str, str], notes: list[str]
) -> dict[str, dict[str, int]]:
    """Return the grades. BEIR's and TREC's judge passages that need not be at hand: those count as not found."""
    path = shipped(sources.truth or shipped(sources.queries).parent / TRUTH)
    is_whole = is_json(path)
    grades: dict[str, dict[str, int]] = {}
    unknown = 0
    for number, judgement in read_judgements(path):
        wrong = None
        if judgement.query_id not in rows:
            wrong = f"the query `{judgement.query_id}` is not among the queries"
        elif is_whole and judgement.passage_id not in documents:
            wrong = f"the passage `{judgement.passage_id}` is not among the passages"
        if wrong is None:
            grades.setdefault(judgement.query_id, {})[judgement.passage_id] = judgement.grade
        elif sources.skips_unknown:
            unknown += 1
        else:
            raise InvalidFile(path, f"{wrong} (--skip-unknown leaves such judgements out)", line=number)
    if unknown:
        notes.append(f"{unknown} judgements of unknown queries or passages are left out")
    return grades
