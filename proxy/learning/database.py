"""The event log as DuckDB sees it: two views over Parquet files, and room on disk for what does not fit memory.

Needs duckdb and pyarrow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from proxy.errors import InvalidSettings
from proxy.events.records import Kind
from proxy.events.schema import TABLES
from proxy.learning.log_parts import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxy.events.reading import EventReader, Period
    from proxy.learning.log_parts import Parts
    from proxy.learning.mining_plan import MiningPlan

_LOCAL = {"file", "local"}
_ROWS = 10_000
"""Of a batch between DuckDB and Python."""


class Database:
    """A DuckDB of one run, in a folder that is deleted with it."""

    def __init__(self, plan: MiningPlan, scratch: Path) -> None:
        """Make it in *scratch*.

        Raises:
            InvalidSettings: `memory` is no size.

        """
        self.scratch = scratch
        self._connection = duckdb.connect(str(scratch / "mine.duckdb"))
        try:
            self._connection.execute(f"SET memory_limit = '{plan.memory.replace(chr(39), '')}'")
        except duckdb.Error as exc:
            self._connection.close()
            raise InvalidSettings(f"--memory: {plan.memory} is no size such as 4GB") from exc
        for setting in (
            f"threads = {plan.threads}",
            f"temp_directory = '{_quoted(scratch / 'spilled')}'",
            "preserve_insertion_order = false",
            "enable_progress_bar = false",
        ):
            self._connection.execute(f"SET {setting}")

    def open_log(self, reader: EventReader, parts: Parts, period: Period) -> None:
        """Make the views ``exposures`` and ``feedback``, of the rows of *period* and of today's columns.

        Their ``at`` is ``came`` here, as the word is one of SQL's, and ``moment``, in microseconds.
        """
        if not _LOCAL & set(_protocols(reader.filesystem)):
            self._connection.register_filesystem(reader.filesystem)
        for kind in Kind:
            files = list(self._files(kind, reader, parts, period))
            since, until = (round(moment * 1e6) for moment in (period.since, period.until))
            names = ", ".join(f'"{name}"' for name in COLUMNS[kind]).replace(
                '"at"', '"at" AS came, epoch_us("at") AS moment'
            )
            self.run(
                f"CREATE VIEW {kind.value} AS SELECT {names} FROM read_parquet([{', '.join(files)}], "
                f"union_by_name = true, hive_partitioning = false) "
                f'WHERE "at" >= make_timestamptz({since}) AND "at" < make_timestamptz({until})'
            )

    def _files(self, kind: Kind, reader: EventReader, parts: Parts, period: Period) -> Iterator[str]:
        """Yield the files of *kind* as SQL names them; those of an older version are written anew first."""
        is_local = _LOCAL & set(_protocols(reader.filesystem))
        for number, part in enumerate(parts.of[kind]):
            if part.is_current:
                yield f"'{_quoted(part.path if is_local else reader.filesystem.unstrip_protocol(part.path))}'"
                continue
            file = self.scratch / f"{kind.value}-{number}.parquet"
            schema = pa.schema([TABLES[kind].columns.field(name) for name in COLUMNS[kind]])
            rows = reader.part(kind, part.path, period, COLUMNS[kind])
            pq.write_table(pa.Table.from_batches(rows, schema=schema), file)
            yield f"'{_quoted(file)}'"

    def run(self, sql: str, *values: Any) -> None:
        """Do *sql*."""
        self._connection.execute(sql, list(values) or None)

    def one(self, sql: str, *values: Any) -> tuple[Any, ...]:
        """Return the only row of what *sql* finds."""
        found: tuple[Any, ...] = self._connection.execute(sql, list(values) or None).fetchall()[0]
        return found

    def count(self, sql: str) -> int:
        """Return the only figure of what *sql* finds; nothing is 0."""
        return int(self.one(sql)[0] or 0)

    def all(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of what *sql* finds: for few."""
        found: list[tuple[Any, ...]] = self._connection.execute(sql).fetchall()
        return found

    def batches(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Yield what *sql* finds, some thousands of rows at a time."""
        with self._connection.cursor() as cursor:
            yield from cursor.sql(sql).to_arrow_reader(_ROWS)

    def add(self, table: str, rows: pa.Table) -> None:
        """Append *rows* to a table."""
        with self._connection.cursor() as cursor:
            cursor.register("added", rows)
            cursor.execute(f"INSERT INTO {table} SELECT * FROM added")
            cursor.unregister("added")

    def close(self) -> None:
        """Give back what is held; the files stay until their folder goes."""
        self._connection.close()


def _protocols(filesystem: Any) -> tuple[str, ...]:
    found = filesystem.protocol
    return (found,) if isinstance(found, str) else tuple(found)


def _quoted(path: object) -> str:
    return str(path).replace("'", "''")
