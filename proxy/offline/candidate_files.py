"""Which candidates a retriever found for each query: a JSON object, a TREC run, or MS MARCO's top-k with its texts."""

from __future__ import annotations

import gzip
import math
import zlib
from typing import TYPE_CHECKING

import msgspec

from proxy.errors import InvalidFile
from proxy.offline.judged_lines import Once, is_json, text_rows

if TYPE_CHECKING:
    from pathlib import Path


class Retrieved(msgspec.Struct, frozen=True):
    """Ids of candidates by query, best first; texts where the file brings them."""

    candidates: dict[str, list[str]]
    queries: dict[str, str] = {}
    passages: dict[str, str] = {}


def read_candidates(path: Path) -> Retrieved:
    """Return what a retriever found.

    Raises:
        InvalidFile: the file is none of the formats, or names a candidate twice.

    """
    read = _json if is_json(path) else _top_k if _columns(path) == 4 else _run
    found = read(path)
    for query, ids in found.candidates.items():
        if len(set(ids)) < len(ids):
            raise InvalidFile(path, f"a candidate of the query `{query}` is there twice")
    return found


def _json(path: Path) -> Retrieved:
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return Retrieved(msgspec.json.decode(raw, type=dict[str, list[str]]))
    except (OSError, EOFError, zlib.error) as exc:
        raise InvalidFile(path, f"cannot be read: {exc}") from exc
    except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
        raise InvalidFile(path, f"is no object of lists of ids: {exc}") from exc


def _columns(path: Path) -> int:
    _, line = next(text_rows(path, "\t", range(1, 1000)))
    return len(line) if len(line) == 4 else 6


def _run(path: Path) -> Retrieved:
    """Read ``query Q0 passage rank score tag``; the score decides, as in trec_eval, ties by rank."""
    rows: dict[str, list[tuple[float, float, str]]] = {}
    once = Once(path, "the candidate")
    for number, (query, _, passage, rank, score, _) in text_rows(path, None, {6}):
        once.check((query, passage), f"{query}, {passage}", number)
        try:
            key = (-float(score), float(rank), passage)
        except ValueError as exc:
            raise InvalidFile(path, "rank and score must be numbers", line=number) from exc
        if math.isnan(key[0]):
            raise InvalidFile(path, "the score is not a number", line=number)
        rows.setdefault(query, []).append(key)
    return Retrieved({query: [passage for *_, passage in sorted(found)] for query, found in rows.items()})


def _top_k(path: Path) -> Retrieved:
    """Read ``query id, passage id, query, passage``, tab-separated, in the order retrieved."""
    candidates: dict[str, list[str]] = {}
    queries: dict[str, str] = {}
    passages: dict[str, str] = {}
    for _, (query, passage, text, body) in text_rows(path, "\t", {4}):
        candidates.setdefault(query, []).append(passage)
        queries[query], passages[passage] = text, body
    return Retrieved(candidates, queries, passages)
