"""The lines of judged collections, format by format: this project's JSONL, BEIR's, TREC's and MS MARCO's.

Each reader checks what one file can show of itself (syntax, doubled ids) and names the line.
"""

from __future__ import annotations

import codecs
import gzip
import re
import zlib
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
from msgspec import Meta

from proxy.errors import InvalidFile
from proxy.offline.training_data import read_lines

if TYPE_CHECKING:
    from collections.abc import Container, Iterator
    from pathlib import Path

_T = TypeVar("_T")
_WHOLE = re.compile(r"-?[0-9]{1,9}")


class QueryRow(msgspec.Struct, frozen=True):
    """One query, by the names of this project or of BEIR; its candidates by id, if it brings them."""

    id: str = ""
    query: str = ""
    candidates: list[str] | None = None
    beir_id: str = msgspec.field(name="_id", default="")
    text: str = ""


class PassageRow(msgspec.Struct, frozen=True):
    """One passage, by the names of this project or of BEIR."""

    text: str
    id: str = ""
    beir_id: str = msgspec.field(name="_id", default="")
    title: str = ""


class Judgement(msgspec.Struct, frozen=True):
    """How relevant a passage is to a query: 0 not, 1 on the subject, 2 in part, 3 it answers."""

    query_id: Annotated[str, Meta(min_length=1)]
    passage_id: Annotated[str, Meta(min_length=1)]
    grade: Annotated[int, Meta(ge=0, le=100)]


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number, line) of a file that may be gzipped, without blank lines.

    Raises:
        InvalidFile: it cannot be read, or has none.

    """
    number = 0
    try:
        for number, line in read_lines(path):
            yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
    except (OSError, EOFError, zlib.error, gzip.BadGzipFile) as exc:
        raise InvalidFile(path, f"cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    if not number:
        raise InvalidFile(path, "is empty")


def json_rows(path: Path, kind: type[_T]) -> Iterator[tuple[int, _T]]:
    """Yield (line number, row) of a JSONL file.

    Raises:
        InvalidFile: a line is no such row; names it.

    """
    decoder = msgspec.json.Decoder(kind)
    for number, line in numbered_lines(path):
        try:
            yield number, decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise InvalidFile(path, str(exc), line=number) from exc


def text_rows(path: Path, separator: str | None, columns: Container[int]) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number, fields) of a file with fields between *separator*; None: between white space.

    Raises:
        InvalidFile: a line has another number of fields, or is no UTF-8; names it.

    """
    for number, line in numbered_lines(path):
        try:
            fields = line.decode("utf-8").rstrip("\r\n").split(separator)
        except UnicodeDecodeError as exc:
            raise InvalidFile(path, "is no UTF-8", line=number) from exc
        if len(fields) not in columns:
            raise InvalidFile(path, f"has {len(fields)} fields, which is none of the formats known", line=number)
        yield number, fields


class Once:
    """Refuses what was on an earlier line."""

    def __init__(self, path: Path, what: str) -> None:
        self._path = path
        self._what = what
        self._line: dict[object, int] = {}

    def check(self, key: object, shown: str, line: int) -> None:
        """Pass *key* the first time.

        Raises:
            InvalidFile: it was there before; names both lines.

        """
        if (before := self._line.setdefault(key, line)) != line:
            raise InvalidFile(self._path, f"{self._what} `{shown}` is on line {before} already", line=line)


def is_json(path: Path) -> bool:
    """Tell by its name whether a file holds JSON lines."""
    return path.name.removesuffix(".gz").endswith((".jsonl", ".ndjson", ".json"))


def read_passages(path: Path, wanted: Container[str] | None) -> dict[str, str]:
    """Return the passages of a file by id, only those *wanted* (None: all): JSONL, or ``id<TAB>text``.

    Raises:
        InvalidFile: a line is no passage, or an id is there twice; names the line.

    """
    found: dict[str, str] = {}
    once = Once(path, "the id")
    for number, name, text in _passages(path):
        if not name:
            raise InvalidFile(path, "a passage needs an `id` (or `_id`)", line=number)
        once.check(name, name, number)
        if wanted is None or name in wanted:
            found[name] = text
    return found


def _passages(path: Path) -> Iterator[tuple[int, str, str]]:
    if is_json(path):
        for number, row in json_rows(path, PassageRow):
            yield number, row.id or row.beir_id, f"{row.title}\n{row.text}".strip()
    else:
        for number, (name, text) in text_rows(path, "\t", {2}):
            yield number, name, text


def read_queries(path: Path) -> dict[str, QueryRow]:
    """Return the queries of a file by id: JSONL, or ``id<TAB>text``.

    Raises:
        InvalidFile: a line is no query, or an id is there twice; names the line.

    """
    found: dict[str, QueryRow] = {}
    once = Once(path, "the id")
    for number, row in _queries(path):
        name, text = row.id or row.beir_id, row.query or row.text
        if not name or not text.strip():
            raise InvalidFile(path, "a query needs an `id` and a `query` (or `_id` and `text`)", line=number)
        once.check(name, name, number)
        if row.candidates is not None and len(set(row.candidates)) < len(row.candidates):
            raise InvalidFile(path, "a candidate is named twice", line=number)
        found[name] = QueryRow(name, text, row.candidates)
    return found


def _queries(path: Path) -> Iterator[tuple[int, QueryRow]]:
    if is_json(path):
        yield from json_rows(path, QueryRow)
    else:
        for number, (name, text) in text_rows(path, "\t", {2}):
            yield number, QueryRow(name, text)


def read_judgements(path: Path) -> Iterator[tuple[int, Judgement]]:
    """Yield (line number, judgement): JSONL, BEIR's three columns with a header, or TREC's four.

    Raises:
        InvalidFile: a line is no judgement, a grade is no number, or a pair is judged twice; names the line.

    """
    once = Once(path, "the judgement of")
    for number, row in _judgements(path):
        once.check((row.query_id, row.passage_id), f"{row.query_id}, {row.passage_id}", number)
        yield number, row


def _judgements(path: Path) -> Iterator[tuple[int, Judgement]]:
    if is_json(path):
        yield from json_rows(path, Judgement)
        return
    for number, fields in text_rows(path, None, {3, 4}):
        query, passage, grade = fields if len(fields) == 3 else (fields[0], fields[2], fields[3])
        if number == 1 and grade == "score":
            continue
        try:
            given = max(0, int(grade)) if _WHOLE.fullmatch(grade) else None  # TREC marks spam by -2
            yield number, msgspec.convert({"query_id": query, "passage_id": passage, "grade": given}, Judgement)
        except msgspec.ValidationError as exc:
            raise InvalidFile(path, f"the grade `{grade[:20]}` is no whole number up to 100", line=number) from exc
