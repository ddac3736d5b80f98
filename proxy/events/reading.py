"""Reads the event log over a period, whatever version it was written in. Needs pyarrow and fsspec.

Only the hours of the period are opened, and only the columns that are asked for are read: a day of 25 documents a
request is read batch by batch, not held.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from proxy.events.schema import KIND_KEY, TABLES, VERSION_COLUMN, VERSION_KEY, Table
from proxy.events.storage import Partition, Storage, hour_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from proxy.events.records import Kind

_BATCH_ROWS = 8192
_PARTS_AHEAD = 4
"""Parts that are read while those before are looked at: an object store takes its time for each."""


class UnreadableEvents(Exception):
    """The data set cannot be read; the message names the file and says why."""

    def __init__(self, message: str, *, is_damage: bool = False) -> None:
        """Take whether the bytes are damaged: all else is whole, and is no part that this version can read."""
        super().__init__(message)
        self.is_damage = is_damage


class Period(msgspec.Struct, frozen=True):
    """From a moment on, and until before another. Unix seconds."""

    since: float
    until: float

    @property
    def seconds(self) -> float:
        """How long it is."""
        return self.until - self.since


class PartFacts(msgspec.Struct, frozen=True):
    """What a part says of itself."""

    version: int
    rows: int


class EventReader:
    """Opens a data set."""

    def __init__(self, url: str | Path, tables: Mapping[Kind, Table] = TABLES) -> None:
        """Take a folder or URL.

        Raises:
            InvalidSettings: there is no such kind of URL.

        """
        self._url = str(url)
        self._storage = Storage(url)
        self._tables = tables

    def columns(self, kind: Kind) -> list[str]:
        """Return the names of all columns."""
        return list(self._tables[kind].columns.names)

    def table(self, kind: Kind, period: Period, columns: Sequence[str]) -> pa.Table:
        """Return *columns* of all rows of *period*, the oldest hour first.

        Raises:
            UnreadableEvents: a part is damaged, is no part of an event log, or was written by a newer version.

        """
        schema = pa.schema([self._tables[kind].columns.field(name) for name in columns])
        return pa.Table.from_batches(list(self.batches(kind, period, columns)), schema=schema)

    def rows(self, kind: Kind, period: Period, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield *columns* of each row as Python values; times are aware datetimes.

        Raises:
            UnreadableEvents: as `table` says.

        """
        for batch in self.batches(kind, period, columns):
            yield from batch.to_pylist()

    def batches(self, kind: Kind, period: Period, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield *columns* of the rows of *period*, some thousands at a time.

        Raises:
            UnreadableEvents: as `table` says.

        """
        paths, table = iter(self.parts(kind, period)), self._tables[kind]
        with ThreadPoolExecutor(_PARTS_AHEAD) as pool:

            def next_parts(count: int) -> list[Future[list[pa.RecordBatch]]]:
                return [pool.submit(self._of_part, path, table, period, columns) for path in islice(paths, count)]

            ahead = deque(next_parts(_PARTS_AHEAD))
            try:
                while ahead:
                    yield from ahead.popleft().result()
                    ahead += next_parts(1)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    @property
    def filesystem(self) -> Any:
        """What the parts are read through."""
        return self._storage.filesystem

    def parts(self, kind: Kind, period: Period) -> list[str]:
        """Return the paths of the parts of the hours of *period*, the oldest first.

        Raises:
            UnreadableEvents: they cannot be listed.

        """
        try:
            return [path for each in self._partitions(kind, period) for path in self._storage.parts(each)]
        except Exception as exc:  # each store's client has errors of its own
            raise UnreadableEvents(f"{self._url}: cannot be listed: {exc}") from exc

    def version(self, kind: Kind) -> int:
        """Return the version that parts are written in now."""
        return self._tables[kind].version

    def check(self, kind: Kind, path: str, columns: Sequence[str]) -> PartFacts:
        """Return what the end of a part says of it; its rows are not read.

        Raises:
            UnreadableEvents: as `table` says.

        """
        table = self._tables[kind]
        try:
            with pq.ParquetFile(path, filesystem=self.filesystem) as part:
                version = _version_of(part, path, table)
                if version == table.version:
                    _check_columns(part, path, columns)
                return PartFacts(version, part.metadata.num_rows)
        except (pa.ArrowException, OSError, ValueError) as exc:
            raise UnreadableEvents(f"{path}: cannot be read: {exc}", is_damage=True) from exc

    def part(self, kind: Kind, path: str, period: Period, columns: Sequence[str]) -> list[pa.RecordBatch]:
        """Return *columns* of the rows of one part, as of today's version.

        Raises:
            UnreadableEvents: as `table` says.

        """
        return self._of_part(path, self._tables[kind], period, columns)

    def _partitions(self, kind: Kind, period: Period) -> list[Partition]:
        first, end = hour_of(period.since), period.until
        return [each for each in self._storage.partitions(kind) if each.hour >= first and each.ends_at - 3600 < end]

    def _of_part(self, path: str, table: Table, period: Period, columns: Sequence[str]) -> list[pa.RecordBatch]:
        try:
            with pq.ParquetFile(path, filesystem=self._storage.filesystem) as part:
                return list(_rows_of(part, path, table, period, columns))
        except (pa.ArrowException, OSError, ValueError) as exc:
            raise UnreadableEvents(f"{path}: cannot be read: {exc}", is_damage=True) from exc


def _check_columns(part: pq.ParquetFile, path: str, columns: Sequence[str]) -> None:
    if missing := {*columns, "at"} - set(part.schema_arrow.names):
        raise UnreadableEvents(f"{path}: has no column `{min(missing)}`")


def _rows_of(
    part: pq.ParquetFile, path: str, table: Table, period: Period, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    version = _version_of(part, path, table)
    is_current = version == table.version
    if is_current:
        _check_columns(part, path, columns)
    wanted = list(dict.fromkeys([*columns, "at"])) if is_current else None  # a step may need any column
    since, until = (round(moment * 1e6) for moment in (period.since, period.until))
    schema = pa.schema([table.columns.field(name) for name in columns])
    for batch in part.iter_batches(_BATCH_ROWS, columns=wanted, use_threads=False):
        found = pa.Table.from_batches([batch])
        found = found if is_current else table.up_cast(found, version)
        at = found["at"].cast(pa.int64())
        found = found.filter(pc.and_(pc.greater_equal(at, since), pc.less(at, until))).select(columns)
        yield from found.cast(schema).to_batches()


def _version_of(part: pq.ParquetFile, path: str, table: Table) -> int:
    """Return the version that a part says it has; where another tool rewrote it, what its rows say.

    Raises:
        UnreadableEvents: it says none, or one that is not known yet.

    """
    about = part.schema_arrow.metadata or {}
    if about.get(KIND_KEY, table.kind.value.encode()) != table.kind.value.encode():
        raise UnreadableEvents(f"{path}: holds {about[KIND_KEY].decode()}, not {table.kind.value}")
    if (told := about.get(VERSION_KEY)) is not None:
        version = int(told)
    elif VERSION_COLUMN in part.schema_arrow.names:
        found = pc.unique(part.read([VERSION_COLUMN])[VERSION_COLUMN]).to_pylist()
        if len(found) != 1 or found[0] is None:
            raise UnreadableEvents(f"{path}: holds rows of several versions ({VERSION_COLUMN})")
        version = int(found[0])
    else:
        raise UnreadableEvents(f"{path}: is no part of an event log: it has no column `{VERSION_COLUMN}`")
    if version > table.version:
        raise UnreadableEvents(
            f"{path}: was written by a newer rerank-canary (schema {version}; this one reads up to {table.version})"
        )
    return version
