"""Reads the passages that a retriever searches: JSON lines, gzipped or not, or Parquet."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

from proxy.errors import InvalidFile
from proxy.offline.judged_lines import Once, PassageRow, is_json, json_rows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CHUNK_BYTES = 1 << 20
_BATCH_ROWS = 4096
_IDS, _TEXTS, _TITLES = ("id", "_id"), ("text",), ("title",)


class Passage(msgspec.Struct, frozen=True, array_like=True):
    """One passage of a corpus."""

    id: str
    text: str
    title: str = ""

    @property
    def whole(self) -> str:
        """What is indexed and ranked: the title, where there is one, on a line of its own before the text."""
        return f"{self.title}\n{self.text}".strip()


class Stamp(msgspec.Struct, frozen=True):
    """What tells whether a file is the one that it was."""

    size_bytes: int
    modified_ns: int
    checksum: str
    """BLAKE2b of its bytes, 32 hex digits."""

    def fits(self, path: Path) -> bool:
        """Tell whether *path* has the same bytes; they are read only where size or time of change are others.

        Raises:
            OSError: it cannot be read.

        """
        found = path.stat()
        if found.st_size != self.size_bytes:
            return False
        return found.st_mtime_ns == self.modified_ns or _checksum_of(path) == self.checksum


def stamp_of(path: Path) -> Stamp:
    """Return the stamp of a file.

    Raises:
        InvalidFile: it cannot be read.

    """
    try:
        found = path.stat()
        return Stamp(found.st_size, found.st_mtime_ns, _checksum_of(path))
    except OSError as exc:
        raise InvalidFile(path, f"cannot be read: {exc.strerror}") from exc


def _checksum_of(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def read_corpus(path: Path) -> Iterator[Passage]:
    """Yield the passages of a file: JSONL with ``id`` (or ``_id``), ``text`` and maybe ``title``, or such Parquet.

    Raises:
        InvalidFile: it cannot be read, has none, or one is no passage or has an id that was there before; names the
            line, or of Parquet the row, from 1 on.

    """
    if path.name.endswith((".parquet", ".pq")):
        rows = _parquet(path)
    elif is_json(path):
        rows = _json(path)
    else:
        raise InvalidFile(path, "is neither .jsonl, .jsonl.gz nor .parquet")
    once = Once(path, "the id")
    number = 0
    for number, passage in rows:
        if not passage.id:
            raise InvalidFile(path, "a passage needs an `id` (or `_id`)", line=number)
        once.check(passage.id, passage.id, number)
        yield passage
    if not number:
        raise InvalidFile(path, "is empty")


def _json(path: Path) -> Iterator[tuple[int, Passage]]:
    for number, row in json_rows(path, PassageRow):
        yield number, Passage(row.id or row.beir_id, row.text, row.title)


def _parquet(path: Path) -> Iterator[tuple[int, Passage]]:
    arrow, parquet = _import(path)
    try:
        with parquet.ParquetFile(path) as file:
            columns = _columns(path, file.schema_arrow)
            number = 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=[name for name in columns if name]):
                fields = [batch.column(name).to_pylist() if name else None for name in columns]
                for place in range(batch.num_rows):
                    number += 1
                    yield number, _passage(path, number, [None if each is None else each[place] for each in fields])
    except (OSError, arrow.ArrowException) as exc:
        raise InvalidFile(path, f"cannot be read: {str(exc).splitlines()[0]}") from exc


def _import(path: Path) -> tuple[Any, Any]:
    try:
        import pyarrow  # noqa: ICN001, PLC0415 - an extra
        from pyarrow import parquet  # noqa: PLC0415
    except ImportError as exc:
        raise InvalidFile(path, "needs pyarrow: pip install 'rerank-canary[events]'") from exc
    return pyarrow, parquet


def _columns(path: Path, schema: Any) -> tuple[str, str, str | None]:
    """Return the columns of id, text and title."""
    found = [next((name for name in names if name in schema.names), None) for names in (_IDS, _TEXTS, _TITLES)]
    name, text, title = found
    if name is None or text is None:
        raise InvalidFile(path, f"has no column `{'id' if name is None else 'text'}`")
    return name, text, title


def _passage(path: Path, number: int, fields: list[Any]) -> Passage:
    name, text, title = fields
    name = str(name) if isinstance(name, int) and not isinstance(name, bool) else name
    for value, column in ((name, "id"), (text, "text"), (title or "", "title")):
        if not isinstance(value, str):
            raise InvalidFile(path, f"`{column}` is no text", line=number)
    return Passage(name, text, title or "")
