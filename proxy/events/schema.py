"""The columns of the event log, with their version. Needs pyarrow: imported by what was told to use the log.

A version is raised with every change of columns. `Table.steps` then says how a table of the version before
becomes one of the next, so that old files are read for ever; a column that is only added needs no step: it is
null in old files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
import pyarrow as pa

from proxy.events.records import Kind

VERSION_KEY = b"rerank_canary.schema_version"
KIND_KEY = b"rerank_canary.kind"
VERSION_COLUMN = "schema_version"

_TIME = pa.timestamp("us", tz="UTC")
_ATTEMPT = pa.struct(
    [
        ("role", pa.string()),
        ("model", pa.string()),
        ("kind", pa.string()),
        ("outcome", pa.string()),
        ("seconds", pa.float64()),
        ("queue_seconds", pa.float64()),
        ("inference_seconds", pa.float64()),
        ("cost_dollars", pa.float64()),
        ("tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("statistic", pa.float64()),
    ]
)
_EXPOSURES = pa.schema(
    [
        (VERSION_COLUMN, pa.int16()),
        ("at", _TIME),  # when the request came
        ("request_id", pa.string()),
        ("instance_id", pa.string()),
        ("flag", pa.string()),
        ("arm", pa.string()),  # assigned
        ("reason", pa.string()),  # of the assignment
        ("bucket", pa.int32()),
        ("share_percent", pa.int32()),
        ("outcome", pa.string()),  # of the assigned arm
        ("served_by", pa.string()),
        ("model", pa.string()),
        ("status", pa.int16()),  # of HTTP
        ("error_code", pa.string()),
        ("route", pa.string()),
        ("dialect", pa.string()),
        ("user_hash", pa.string()),
        ("user_group", pa.int16()),
        ("user_source", pa.string()),
        ("is_forced", pa.bool_()),
        ("seconds", pa.float64()),
        ("cost_dollars", pa.float64()),  # of all attempts
        ("attempts", pa.list_(_ATTEMPT)),
        ("document_count", pa.int32()),
        ("query", pa.string()),
        ("query_hash", pa.string()),
        ("documents", pa.list_(pa.string())),  # in the order received, as the ids are
        ("document_ids", pa.list_(pa.string())),
        ("order", pa.list_(pa.int32())),  # places received, best first; empty: nobody ranked
        ("scores", pa.list_(pa.float64())),  # as sent, in that order
        ("logits", pa.list_(pa.float64())),  # raw, in that order
        ("sent", pa.int32()),  # how many of the order the caller got
    ]
)
_FEEDBACK = pa.schema(
    [
        (VERSION_COLUMN, pa.int16()),
        ("at", _TIME),  # when it was received
        ("served_at", _TIME),
        ("request_id", pa.string()),
        ("instance_id", pa.string()),
        ("arm", pa.string()),
        ("share_percent", pa.int32()),
        ("action", pa.string()),
        ("vote", pa.int8()),
        ("indices", pa.list_(pa.int32())),
        ("ranks", pa.list_(pa.int32())),
        ("document_ids", pa.list_(pa.string())),
        ("user_hash", pa.string()),
    ]
)


class Table(msgspec.Struct, frozen=True):
    """One kind of event."""

    kind: Kind
    version: int
    columns: pa.Schema
    steps: Mapping[int, Callable[[pa.Table], pa.Table]] = msgspec.field(default_factory=dict)
    """Version → how a table of it becomes one of the next."""

    def schema(self) -> pa.Schema:
        """Return the columns with what a file says of itself."""
        return self.columns.with_metadata({KIND_KEY: self.kind.value, VERSION_KEY: str(self.version)})

    def up_cast(self, table: pa.Table, version: int) -> pa.Table:
        """Return a table of an older *version* as one of this; columns that it lacks are null.

        Raises:
            pa.ArrowInvalid: a column does not fit.

        """
        for step in range(version, self.version):
            if step in self.steps:
                table = self.steps[step](table)
        columns = [
            table[name].cast(kind) if name in table.column_names else pa.nulls(len(table), kind)
            for name, kind in zip(self.columns.names, self.columns.types, strict=True)
        ]
        return pa.table(columns, schema=self.columns)


TABLES = {
    Kind.EXPOSURES: Table(Kind.EXPOSURES, 1, _EXPOSURES),
    Kind.FEEDBACK: Table(Kind.FEEDBACK, 1, _FEEDBACK),
}
