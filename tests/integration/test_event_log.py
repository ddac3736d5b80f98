"""The event log of a real proxy: what it writes is what was answered, whatever becomes of the process."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from proxy.events.records import Kind
from tests.events import read
from tests.parts.callers import QUICK, Callers
from tests.parts.programs import eventually
from tests.running import DOCUMENTS, QUERY, ROOT, Proxy, user_of

if TYPE_CHECKING:
    from pathlib import Path

ON = {**QUICK, "RERANK_CANARY__EVENTS__IS_ON": "true"}
AT_ONCE = {**ON, "RERANK_CANARY__EVENTS__FLUSH_SECONDS": "0.2"}
PLANTED = "Quetzalcoatlus"


def events_of(proxy: Proxy) -> Path:
    return proxy.folder / "var/events"


def by_id(proxy: Proxy) -> dict[str, dict[str, Any]]:
    return {row["request_id"]: row for row in read(events_of(proxy))}


def test_what_is_written_is_what_was_answered(tmp_path: Path) -> None:
    with Proxy(tmp_path, ON, has_extras=True) as proxy:
        answers = [proxy.rerank(headers={"X-User-Id": user_of(arm)}) for arm in ("control", "candidate")]
        answers.append(proxy.rerank(documents=[{"text": text} for text in DOCUMENTS], top_n=2))
        refused = proxy.rerank(documents=[1])
        assert proxy.stop() == 0  # which flushes
    rows = by_id(proxy)
    assert len(rows) == len(answers)
    assert refused.headers["x-request-id"] not in rows  # nobody was asked to rank
    for answer in answers:
        row = rows[answer.headers["x-request-id"]]
        results = answer.json()["results"]
        assert row["sent"] == len(results)
        assert row["order"][: row["sent"]] == [each["index"] for each in results]
        assert row["scores"][: row["sent"]] == [each["relevance_score"] for each in results]
        assert sorted(row["order"]) == [0, 1, 2, 3]
        assert (row["arm"], row["served_by"]) == (answer.headers["x-rerank-arm"], answer.headers["x-rerank-served-by"])
        assert len(row["document_ids"]) == 4
    first = [rows[answer.headers["x-request-id"]] for answer in answers]
    assert [row["arm"] for row in first[:2]] == ["control", "candidate"]
    assert first[0]["document_ids"] == first[1]["document_ids"]
    assert first[0]["seconds"] > 0


@pytest.mark.parametrize("env", [{}, {"RERANK_CANARY__EVENTS__DOCUMENTS": "id"}], ids=["by default", "by ids"])
def test_no_text_gets_out_of_the_process_unless_told(tmp_path: Path, env: dict[str, str]) -> None:
    with Proxy(tmp_path, {**ON, **env}, has_extras=True) as proxy:
        documents = [{"text": f"{PLANTED} {text}", "id": number, "title": PLANTED} for number, text in enumerate("ab")]
        answer = proxy.rerank(f"where does {PLANTED} live", documents, headers={"X-User-Id": PLANTED})
        proxy.rerank(f"where does {PLANTED} live", [PLANTED], user=PLANTED, path="/v1/rerank")
        assert answer.is_success
        assert proxy.stop() == 0
    rows = read(events_of(proxy))
    assert len(rows) == 2
    assert PLANTED not in repr(rows)
    files = [path for path in (tmp_path / "var/events").rglob("*") if path.is_file()]
    assert not [path for path in files if PLANTED.encode() in path.read_bytes()]
    assert PLANTED not in proxy.log.read_text()


def test_text_is_written_where_the_settings_say_so(tmp_path: Path) -> None:
    env = {**ON, "RERANK_CANARY__EVENTS__DOCUMENTS": "text", "RERANK_CANARY__EVENTS__QUERY": "text"}
    with Proxy(tmp_path, env, has_extras=True) as proxy:
        assert proxy.rerank().is_success
        proxy.stop()
    (row,) = read(events_of(proxy))
    assert (row["query"], row["documents"]) == (QUERY, DOCUMENTS)


def test_a_killed_process_leaves_whole_parts(tmp_path: Path) -> None:
    with Proxy(tmp_path, {**AT_ONCE, "RERANK_CANARY__EVENTS__FLUSH_ROWS": "1"}, has_extras=True) as proxy:
        with Callers(proxy.url, [f"user-{number}" for number in range(50)]):
            eventually(lambda: len(list(events_of(proxy).rglob("*.parquet"))) >= 5, timeout_seconds=60)
            proxy.stop(signal.SIGKILL)
        rows = read(events_of(proxy))
        assert len(rows) >= 5
        assert all(len(row["order"]) == 2 for row in rows if row["status"] == 200)
        proxy.start()  # and the next process writes beside them
        request_id = proxy.rerank().headers["x-request-id"]
        eventually(lambda: request_id in by_id(proxy), timeout_seconds=30)


def test_a_place_that_cannot_be_written_costs_no_answer_and_is_shown(tmp_path: Path) -> None:
    (tmp_path / "var").mkdir()
    (tmp_path / "var/events").write_text("no folder")
    with Proxy(tmp_path, AT_ONCE, has_extras=True) as proxy:
        answer = proxy.rerank()
        assert answer.is_success

        def shown() -> dict[str, Any]:
            found: dict[str, Any] = proxy.control("/status").json()["events"]
            assert found["write_failures"] >= 2
            return found

        status = eventually(shown, timeout_seconds=30)
        assert status["held_rows"] == 1
        assert "var/events" in status["error"]
        metrics = proxy.control("/metrics").text
        assert "\nrerank_events_up 0.0" in metrics.replace("_ratio", "")
        (tmp_path / "var/events").unlink()
        eventually(lambda: answer.headers["x-request-id"] in by_id(proxy), timeout_seconds=60)
        assert proxy.stop() == 0
    assert len(proxy.logged("events.not_written")) == 1
    assert len(proxy.logged("events.written_again")) == 1


def test_the_leader_deletes_old_hours(tmp_path: Path) -> None:
    old = tmp_path / "var/events/exposures/date=2020-01-01/hour=08"
    old.mkdir(parents=True)
    (old / "part-gone-0.parquet").write_bytes(b"old")
    with Proxy(tmp_path, AT_ONCE, has_extras=True) as proxy:
        request_id = proxy.rerank().headers["x-request-id"]
        eventually(lambda: not old.parent.exists(), timeout_seconds=60)
        eventually(lambda: request_id in by_id(proxy), timeout_seconds=30)


def test_without_the_extra_the_start_says_what_to_install(tmp_path: Path) -> None:
    for command in ("serve", "check-config"):
        ended = subprocess.run(
            [str(ROOT / ".venv/bin/rerank-canary"), command],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), **ON},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert ended.returncode == 2
        assert ended.stderr.startswith("rerank-canary: $.events.is_on: needs pyarrow")
        assert ended.stderr.endswith("pip install 'rerank-canary[events]'\n")


def test_an_object_store_without_its_package_stops_the_start(tmp_path: Path) -> None:
    proxy = Proxy(tmp_path, {**ON, "RERANK_CANARY__EVENTS__URL": "s3://bucket/events"}, has_extras=True)
    with pytest.raises(AssertionError, match=r"\$\.events\.url: s3://bucket/events cannot be opened: Install s3fs"):
        proxy.start()


def test_nothing_is_written_unless_it_is_on(tmp_path: Path) -> None:
    with Proxy(tmp_path, QUICK) as proxy:
        proxy.rerank()
        assert proxy.control("/status").json()["events"] is None
        assert "rerank_events" not in proxy.control("/metrics").text
        proxy.stop()
    assert not events_of(proxy).exists()
    assert read(events_of(proxy), Kind.FEEDBACK) == []
