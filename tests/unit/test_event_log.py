"""The event log's queue and threads: what is kept, what is dropped, and that it is counted."""

from __future__ import annotations

import os
import stat
import subprocess
import threading
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
import structlog

from flags.vocabulary import Arm
from proxy.errors import NotReady
from proxy.events.records import Kind, ServedRanking
from proxy.events.uploader import encoded
from proxy.exposure import Outcome, Role
from proxy.wire.canonical import RerankCall
from tests.events import NOON, FullDisk, event_log, exposure, feedback, ranking, read, write
from tests.parts.programs import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOUR = 3600.0


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[str]:
    FullDisk.is_full = True
    yield f"full://{tmp_path}"
    FullDisk.is_full = False


def parts_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_ranking_is_kept_with_order_scores_arm_outcome_latency_and_cost(tmp_path: Path) -> None:
    write(tmp_path, ranking(arm=Arm.CANDIDATE, served_by=Role.FALLBACK, outcome=Outcome.LOW_SCORE, seconds=0.25))
    (row,) = read(tmp_path)
    assert row["order"] == [2, 1, 0]
    assert row["scores"] == [0.9, 0.9 - 1 / 10, 0.9 - 2 / 10]
    assert row["logits"] == [2.0, 1.0, 0.0]
    assert (row["arm"], row["served_by"], row["outcome"]) == ("candidate", "fallback", "low_score")
    assert (row["seconds"], row["cost_dollars"], row["user_hash"]) == (0.25, 0.001, "0123456789abcdef")
    assert row["at"].timestamp() == NOON
    assert (row["bucket"], row["share_percent"], row["sent"], row["document_count"]) == (42, 5, 3, 3)
    (attempt,) = row["attempts"]
    assert (attempt["role"], attempt["tokens"], attempt["statistic"]) == ("candidate", 900, None)


def test_a_request_that_nobody_ranked_is_kept_without_an_order(tmp_path: Path) -> None:
    call = RerankCall(query="q", documents=("a", "b"))
    failed = exposure(served_by=Role.NOBODY, status=NotReady.status, error_code=NotReady.code, outcome=Outcome.ERROR)
    write(tmp_path, ServedRanking(failed, call))
    (row,) = read(tmp_path)
    assert (row["order"], row["status"], row["error_code"], row["sent"]) == ([], 503, "not_ready", 0)


def test_feedback_is_a_table_of_its_own(tmp_path: Path) -> None:
    write(tmp_path, ranking(), feedback(vote=-1, ranks=(None,)))
    (row,) = read(tmp_path, Kind.FEEDBACK)
    assert (row["request_id"], row["action"], row["indices"], row["ranks"]) == ("request-1", "clicked", [1], [None])
    assert (row["vote"], row["served_at"].timestamp(), row["at"].timestamp()) == (-1, NOON, NOON + 5)
    assert len(read(tmp_path)) == 1


def test_each_hour_has_its_folder_and_each_part_its_name(tmp_path: Path) -> None:
    moments = (NOON, NOON + HOUR - 0.001, NOON + HOUR, NOON + 12 * HOUR)
    write(tmp_path, *(ranking(started_at=at) for at in moments), feedback())
    assert parts_in(tmp_path) == [
        "exposures/date=2026-11-23/hour=12/part-replica-0.parquet",
        "exposures/date=2026-11-23/hour=13/part-replica-1.parquet",
        "exposures/date=2026-11-24/hour=00/part-replica-2.parquet",
        "feedback/date=2026-11-23/hour=12/part-replica-3.parquet",
    ]


def test_a_part_is_written_after_so_many_rows(tmp_path: Path) -> None:
    log = event_log(tmp_path, flush_rows=3)
    log.start()
    for number in range(3):
        log.observe_ranking(ranking(request_id=str(number)))
    eventually(lambda: log.counts.files == 1, timeout_seconds=30)
    assert len(read(tmp_path)) == 3
    log.close()


def test_a_part_is_written_after_so_many_seconds(tmp_path: Path) -> None:
    log = event_log(tmp_path, flush_seconds=0.2)
    log.start()
    log.observe_ranking(ranking())
    eventually(lambda: log.counts.files == 1, timeout_seconds=30)
    log.close()
    assert log.counts.held_rows == 0
    assert log.counts.held_bytes == 0


def test_a_full_queue_drops_the_newest_and_counts_them(tmp_path: Path) -> None:
    log = event_log(tmp_path, queue_rows=5)
    for number in range(8):
        log.observe_ranking(ranking(request_id=str(number)))
    log.record_feedback(feedback())
    assert (log.counts.dropped(Kind.EXPOSURES), log.counts.dropped(Kind.FEEDBACK)) == (3, 1)
    log.start()
    log.close()
    assert [row["request_id"] for row in read(tmp_path)] == list("01234")


def test_large_documents_fill_the_queue_before_the_rows_do(tmp_path: Path) -> None:
    log = event_log(tmp_path, queue_mb=1)
    call = RerankCall(query="q", documents=("x" * 400_000,))
    for _ in range(5):
        log.observe_ranking(ranking(call))
    assert log.counts.refused[Kind.EXPOSURES] == 3
    assert log.counts.held_bytes < 1_000_000
    log.start()
    log.close()
    assert (len(read(tmp_path)), log.counts.held_bytes) == (2, 0)


def test_one_record_that_fits_no_row_costs_no_other(tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as lines:
        log = write(tmp_path, ranking(), ranking(status=10**9), ranking())
    assert len(read(tmp_path)) == 2
    assert (log.counts.dropped(Kind.EXPOSURES), log.counts.held_rows) == (1, 0)
    assert [line["event"] for line in lines] == ["events.not_encoded"]


def test_half_of_an_emoji_costs_no_row(tmp_path: Path) -> None:
    call = RerankCall(query="half \ud83d", documents=("\ude00 half", "\x00"))
    write(tmp_path, ranking(call), query="text", documents="text")
    (row,) = read(tmp_path)
    assert row["query"] == "half ?"
    assert row["documents"] == ["? half", "\x00"]


def test_a_full_disk_is_counted_logged_once_and_tried_again(tmp_path: Path, full_disk: str) -> None:
    with structlog.testing.capture_logs() as lines:
        log = event_log(full_disk, flush_seconds=0.05)
        log.start()
        log.observe_ranking(ranking())
        eventually(lambda: log.counts.failures >= 2, timeout_seconds=30)
        assert "No space left" in (log.counts.error or "")
        assert log.counts.held_rows == 1
        assert parts_in(tmp_path) == []
        FullDisk.is_full = False
        eventually(lambda: log.counts.files == 1, timeout_seconds=60)
        log.close()
    assert [line["event"] for line in lines] == ["events.not_written", "events.written_again"]
    assert len(read(tmp_path)) == 1
    assert log.counts.error is None


def test_what_a_full_disk_still_refuses_at_the_end_is_counted_as_lost(tmp_path: Path, full_disk: str) -> None:
    with structlog.testing.capture_logs() as lines:
        log = write(full_disk, ranking(), ranking(), feedback())
    assert (log.counts.dropped(Kind.EXPOSURES), log.counts.dropped(Kind.FEEDBACK)) == (2, 1)
    assert parts_in(tmp_path) == []
    assert [line["event"] for line in lines] == ["events.not_written", "events.lost"]


def test_a_disk_that_stays_full_holds_no_more_than_the_queue_may(full_disk: str) -> None:
    log = event_log(full_disk, flush_seconds=0.05, queue_rows=10)
    log.start()
    log.observe_ranking(ranking())
    eventually(lambda: log.counts.failures, timeout_seconds=30)
    for _ in range(30):
        log.observe_ranking(ranking())
    assert (log.counts.held_rows, log.counts.refused[Kind.EXPOSURES]) == (10, 21)
    log.close()


def test_a_part_is_seen_as_a_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def look() -> None:
        seen.append((read(tmp_path), [name for name in parts_in(tmp_path) if "/part-" in name]))

    monkeypatch.setattr(FullDisk, "in_the_middle", look)
    write(f"full://{tmp_path}", ranking())
    assert seen == [([], [])]
    assert len(read(tmp_path)) == 1


def test_a_disk_without_room_leaves_no_torn_part(tmp_path: Path) -> None:
    """On a real file system of 64 kB, where this user may mount one."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a tmpfs")
    try:
        calls = [RerankCall(query="q", documents=(os.urandom(1000).hex(),)) for _ in range(100)]
        log = write(tmp_path, *map(ranking, calls), documents="text", flush_rows=1)
        assert log.counts.failures > 0
        assert log.counts.dropped(Kind.EXPOSURES) + len(read(tmp_path)) == 100
        assert 0 < len(read(tmp_path)) < 100
        assert not [name for name in parts_in(tmp_path) if name.endswith(".tmp")]
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_a_place_that_is_no_folder_never_stops_the_caller(tmp_path: Path) -> None:
    (tmp_path / "events").write_text("a file")
    log = write(tmp_path / "events", ranking())
    assert log.counts.dropped(Kind.EXPOSURES) == 1
    assert "NotADirectory" in (log.counts.error or "") or "FileExists" in (log.counts.error or "")


def test_a_log_that_was_never_started_closes(tmp_path: Path) -> None:
    event_log(tmp_path).close()
    assert not parts_in(tmp_path)


def test_its_threads_do_not_outlive_it(tmp_path: Path) -> None:
    write(tmp_path, ranking())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("events-")]


def test_parts_are_readable_for_whoever_may_read_the_folder(tmp_path: Path) -> None:
    write(tmp_path, ranking())
    (part,) = tmp_path.rglob("*.parquet")
    assert stat.S_IMODE(part.stat().st_mode) & 0o400


def test_an_object_store_gets_whole_objects_under_their_last_name() -> None:
    write("memory://log", ranking(), feedback())
    assert len(read("memory://log")) == 1
    assert len(read("memory://log", Kind.FEEDBACK)) == 1


def test_a_part_that_cannot_be_made_a_file_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def fails_once(batches: tuple[pa.RecordBatch, ...]) -> bytes:
        made.append(len(batches))
        if len(made) == 1:
            raise pa.ArrowInvalid("a planted fault")
        return encoded(batches)

    monkeypatch.setattr("proxy.events.uploader.encoded", fails_once)
    log = write(tmp_path, ranking(), ranking(started_at=NOON + HOUR, request_id="next"))
    assert [row["request_id"] for row in read(tmp_path)] == ["next"]
    assert (log.counts.dropped(Kind.EXPOSURES), log.counts.held_rows) == (1, 0)
