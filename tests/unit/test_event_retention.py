"""How old hours of the event log go, and that nothing else does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxy.events.records import Kind
from proxy.events.retention import Retention, delete_old
from proxy.events.storage import Partition, Storage
from tests.events import NOON, feedback, ranking, read, write

if TYPE_CHECKING:
    from pathlib import Path

HOUR, DAY = 3600.0, 86400.0


class Lease:
    def __init__(self, *, is_leader: bool = True) -> None:
        self.is_leader = is_leader


class NoDeletes(Storage):
    def delete(self, partition: Partition) -> None:
        raise PermissionError(partition.path)


def test_hours_that_ended_before_go_and_later_ones_stay(tmp_path: Path) -> None:
    write(tmp_path, *(ranking(started_at=NOON + hours * HOUR, request_id=str(hours)) for hours in (-30, -2, -1, 0)))
    write(tmp_path, feedback(received_at=NOON - 2 * DAY))
    assert delete_old(Storage(tmp_path), NOON) == 4
    assert [row["request_id"] for row in read(tmp_path)] == ["0"]
    assert read(tmp_path, Kind.FEEDBACK) == []


def test_an_hour_goes_when_all_of_it_is_old(tmp_path: Path) -> None:
    write(tmp_path, ranking())
    assert delete_old(Storage(tmp_path), NOON + HOUR - 0.001) == 0
    assert delete_old(Storage(tmp_path), NOON + HOUR) == 1


def test_what_is_no_hour_of_the_log_stays(tmp_path: Path) -> None:
    write(tmp_path, ranking())
    (tmp_path / "exposures/date=2020-01-01/notes").mkdir(parents=True)
    (tmp_path / "exposures/README").write_text("mine")
    (tmp_path / "other").mkdir()
    delete_old(Storage(tmp_path), NOON + DAY)
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if not path.is_dir())
    assert left == ["exposures/README"]
    assert (tmp_path / "exposures/date=2020-01-01/notes").is_dir()
    assert not (tmp_path / "exposures/date=2026-11-23").exists()


async def test_only_the_leader_deletes_and_once_an_hour(tmp_path: Path) -> None:
    write(tmp_path, ranking())
    lease = Lease(is_leader=False)
    retention = Retention(Storage(tmp_path), 1, lease)
    await retention.look(NOON + 3 * DAY)
    assert retention.deleted == 0
    lease.is_leader = True
    await retention.look(NOON + 3 * DAY)
    assert retention.deleted == 1
    write(tmp_path, ranking())
    await retention.look(NOON + 3 * DAY + 1)
    assert retention.deleted == 1
    await retention.look(NOON + 3 * DAY + HOUR)
    assert retention.deleted == 2


@pytest.mark.parametrize("days", [3, 400])
async def test_what_is_younger_than_the_days_kept_stays(tmp_path: Path, days: int) -> None:
    write(tmp_path, ranking())
    retention = Retention(Storage(tmp_path), days, Lease())
    await retention.look(NOON + days * DAY)
    assert len(read(tmp_path)) == 1
    await retention.look(NOON + days * DAY + HOUR)
    assert read(tmp_path) == []


async def test_a_store_that_deletes_nothing_is_counted_and_asked_again(tmp_path: Path) -> None:
    write(tmp_path, ranking())
    retention = Retention(NoDeletes(tmp_path), 1, Lease())
    await retention.look(NOON + 3 * DAY)
    await retention.look(NOON + 3 * DAY)
    assert (retention.failures, retention.deleted) == (2, 0)
