"""Reading the event log: a period of it, in any version, and what is no event log at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from proxy.errors import InvalidSettings
from proxy.events.reading import EventReader, Period, UnreadableEvents
from proxy.events.records import Kind
from proxy.events.schema import TABLES, VERSION_KEY, Table
from proxy.events.storage import Storage
from tests.events import ALWAYS, NOON, event_log, feedback, ranking, read, write

if TYPE_CHECKING:
    from collections.abc import Sequence

HOUR = 3600.0
VECTORS = Path(__file__).parents[1] / "vectors"


def only_part(folder: Path) -> Path:
    (part,) = folder.rglob("*.parquet")
    return part


def ids(folder: Path, since: float, until: float) -> list[str]:
    table = EventReader(folder).table(Kind.EXPOSURES, Period(since, until), ["request_id"])
    assert table.column_names == ["request_id"]
    found: list[str] = table["request_id"].to_pylist()
    return found


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (NOON, NOON + HOUR, ["0", "1"]),
        (NOON + 1, NOON + HOUR, ["1"]),
        (NOON, NOON + 1, ["0"]),
        (NOON + 1, NOON + HOUR + 0.5, ["1", "2"]),
        (NOON + 2 * HOUR, NOON + 9 * HOUR, []),
    ],
    ids=["an hour", "since is in it", "until is not", "over an hour's end", "nothing there"],
)
def test_a_period_has_what_came_from_its_beginning_until_before_its_end(
    tmp_path: Path, since: float, until: float, expected: Sequence[str]
) -> None:
    moments = (NOON, NOON + 1, NOON + HOUR, NOON + HOUR + 1)
    write(tmp_path, *(ranking(started_at=at, request_id=str(n)) for n, at in enumerate(moments)))
    assert ids(tmp_path, since, until) == expected


def test_hours_outside_the_period_are_not_opened(tmp_path: Path) -> None:
    write(tmp_path, ranking(started_at=NOON))
    only_part(tmp_path).write_bytes(b"damaged")
    write(tmp_path, ranking(started_at=NOON + HOUR, request_id="whole"))
    assert ids(tmp_path, NOON + HOUR, NOON + 2 * HOUR) == ["whole"]


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert EventReader(tmp_path / "none").table(Kind.FEEDBACK, ALWAYS, ["arm"]).num_rows == 0


def test_files_that_are_no_parts_are_passed_over(tmp_path: Path) -> None:
    write(tmp_path, ranking())
    (only_part(tmp_path).parent / ".part-x-1.parquet.tmp").write_bytes(b"torn")
    (only_part(tmp_path).parent / "_SUCCESS").write_bytes(b"")
    for name in ("date=today", "date=2026-13-01/hour=08", "date=2026-11-23/hour=24"):
        (tmp_path / "exposures" / name).mkdir(parents=True)
    assert len(read(tmp_path)) == 1


def test_a_torn_part_is_named(tmp_path: Path) -> None:
    write(tmp_path, ranking())
    part = only_part(tmp_path)
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(UnreadableEvents, match=r"part-replica-0\.parquet: cannot be read"):
        read(tmp_path)


def test_a_newer_version_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, ranking())
    part = only_part(tmp_path)
    table = pq.read_table(part)
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, VERSION_KEY: b"99"}), part)
    with pytest.raises(UnreadableEvents, match=r"part-replica-0\.parquet: was written by a newer .* 99; .* to 1"):
        read(tmp_path)


def test_parts_rewritten_by_another_tool_are_known_by_their_column(tmp_path: Path) -> None:
    write(tmp_path, ranking())
    part = only_part(tmp_path)
    pq.write_table(pq.read_table(part).replace_schema_metadata(None), part)
    assert [row["order"] for row in read(tmp_path)] == [[2, 1, 0]]


def test_rows_of_several_versions_in_one_part_are_refused(tmp_path: Path) -> None:
    write(tmp_path, ranking(), ranking())
    part = only_part(tmp_path)
    table = pq.read_table(part).replace_schema_metadata(None)
    pq.write_table(table.set_column(0, table.schema.field(0), [pa.array([1, 2], pa.int16())]), part)
    with pytest.raises(UnreadableEvents, match="rows of several versions"):
        read(tmp_path)


def test_parquet_of_somebody_else_is_refused(tmp_path: Path) -> None:
    write(tmp_path, ranking())
    pq.write_table(pa.table({"price": [1.0]}), only_part(tmp_path))
    with pytest.raises(UnreadableEvents, match="is no part of an event log: it has no column `schema_version`"):
        read(tmp_path)


def test_a_part_without_a_column_is_named(tmp_path: Path) -> None:
    write(tmp_path, ranking())
    part = only_part(tmp_path)
    pq.write_table(pq.read_table(part).drop_columns(["seconds"]), part)
    with pytest.raises(UnreadableEvents, match=r"part-replica-0\.parquet: has no column `seconds`"):
        read(tmp_path, columns=["seconds"])
    assert read(tmp_path, columns=["arm"]) == [{"arm": "control"}]


def test_feedback_in_the_place_of_exposures_is_refused(tmp_path: Path) -> None:
    write(tmp_path, feedback())
    (tmp_path / "feedback").rename(tmp_path / "exposures")
    with pytest.raises(UnreadableEvents, match="holds feedback, not exposures"):
        read(tmp_path)


def test_an_unknown_kind_of_url_is_named_without_its_password() -> None:
    with pytest.raises(InvalidSettings, match=r"\$\.events\.url: nowhere://host/x cannot be opened") as refused:
        Storage("nowhere://user:secret@host/x")
    assert "secret" not in str(refused.value)


def next_version() -> Table:
    """Return exposures as they might be one day: a column renamed, one added, one of another type."""
    columns = TABLES[Kind.EXPOSURES].columns
    place = columns.get_field_index("seconds")
    columns = columns.set(place, pa.field("latency_seconds", pa.float64()))
    columns = columns.set(columns.get_field_index("status"), pa.field("status", pa.int64()))
    columns = columns.append(pa.field("region", pa.string()))

    def renamed(table: pa.Table) -> pa.Table:
        return table.rename_columns(["latency_seconds" if name == "seconds" else name for name in table.column_names])

    return Table(Kind.EXPOSURES, 2, columns, {1: renamed})


def test_an_older_version_is_read_as_the_present_one(tmp_path: Path) -> None:
    write(tmp_path, ranking(seconds=0.25))
    reader = EventReader(tmp_path, {Kind.EXPOSURES: next_version()})
    found = reader.table(Kind.EXPOSURES, ALWAYS, ["latency_seconds", "region", "status", "order"])
    assert found.to_pylist() == [{"latency_seconds": 0.25, "region": None, "status": 200, "order": [2, 1, 0]}]
    assert found.schema.field("status").type == pa.int64()


def test_a_period_over_both_versions_is_one_table(tmp_path: Path) -> None:
    write(tmp_path, ranking(seconds=0.25))
    table = next_version()
    old = pq.read_table(only_part(tmp_path))
    new = table.up_cast(old, 1).set_column(0, "schema_version", [pa.array([2], pa.int16())])
    later = tmp_path / "exposures/date=2026-11-23/hour=12/part-later-0.parquet"
    pq.write_table(new.replace_schema_metadata(table.schema().metadata), later)
    found = EventReader(tmp_path, {Kind.EXPOSURES: table}).table(Kind.EXPOSURES, ALWAYS, ["latency_seconds", "region"])
    assert found["latency_seconds"].to_pylist() == [0.25, 0.25]
    assert ids(tmp_path / "none", 0, 1) == []


@pytest.mark.parametrize("kind", Kind)
def test_the_first_version_as_it_was_written_is_read_for_ever(kind: Kind) -> None:
    """The folder was written by version 1 of the code, and is never written again."""
    (row,) = read(VECTORS / "events-1", kind, ["request_id", "arm", "schema_version"])
    assert row == {"request_id": "request-1", "arm": "control", "schema_version": 1}


def test_every_column_is_filled(tmp_path: Path) -> None:
    """A column that nothing is written to says that the row and the schema have parted."""
    log = event_log(tmp_path, query="text", documents="text")
    log.start()
    log.observe_ranking(ranking(error_code="not_ready"))
    log.record_feedback(feedback(share_percent=5, vote=1, document_ids=("a",), user_hash="b"))
    log.close()
    for kind in Kind:
        (row,) = read(tmp_path, kind)
        assert [name for name, value in row.items() if value is None] == []
