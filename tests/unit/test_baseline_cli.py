"""The `baseline` command: what it prints and saves, and how it ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from proxy.baseline_file import read_baseline
from proxy.cli import main
from tests.events import NOON, ranking, write
from tests.parts.event_days import days
from tests.running import free_port

if TYPE_CHECKING:
    from pathlib import Path

PERIOD = ["--since", "2026-11-23T12:00", "--until", "2026-11-24T12:00:00+00:00"]
PROBE = '{"query": "q", "documents": ["a", "b"], "judgements": {"0": 1}}'


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RERANK_CANARY__DATA_DIR", str(tmp_path / "var"))
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["baseline", *arguments])


def test_it_prints_a_table_and_saves_what_the_guard_reads(folder: Path) -> None:
    write(folder / "var/events", *days(1))
    done = run(*PERIOD, "--html", str(folder / "pages/page.html"))
    assert done.exit_code == 0, done.output
    for words in ("mean latency", "p95", "a thousand queries", "a month of", "Traffic by hour"):
        assert words in done.output
    saved = read_baseline(folder / "var/baseline.json")
    assert saved.requests > 200
    assert saved.latency.p95_upper is not None
    assert (folder / "pages/page.html").read_text().startswith("<!doctype html>")


def test_json_is_what_is_saved_and_nothing_else(folder: Path) -> None:
    write(folder / "log", *days(1))
    done = run(*PERIOD, "--events", str(folder / "log"), "--out", str(folder / "b.json"), "--json")
    assert json.loads(done.stdout) == json.loads((folder / "b.json").read_text())
    assert not (folder / "var/baseline.json").exists()


def test_an_empty_period_ends_with_1(folder: Path) -> None:
    write(folder / "var/events", ranking(started_at=NOON - 86400))
    done = run(*PERIOD)
    assert (done.exit_code, done.stdout) == (1, "")
    assert "control served nobody in this period" in done.stderr
    assert not (folder / "var/baseline.json").exists()


def test_a_torn_part_ends_with_2(folder: Path) -> None:
    write(folder / "var/events", ranking())
    (part,) = (folder / "var/events").rglob("*.parquet")
    part.write_bytes(b"PAR1 torn")
    done = run(*PERIOD)
    assert done.exit_code == 2
    assert "part-replica-0.parquet: cannot be read" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--since", "yesterday"], "yesterday: is neither a time"),
        (["--since", "1h", "--until", "2h"], "--until must be after --since"),
        (["--events", "nowhere://x"], "$.events.url: nowhere://x cannot be opened"),
        (["--config", "none.toml"], "none.toml"),
    ],
)
def test_wrong_usage_ends_with_2(folder: Path, arguments: list[str], words: str) -> None:
    assert folder
    done = run(*arguments)
    assert done.exit_code == 2
    assert words in done.stderr


def test_a_file_that_cannot_be_written_ends_with_2(folder: Path) -> None:
    write(folder / "var/events", ranking())
    done = run(*PERIOD, "--out", str(folder))
    assert done.exit_code == 2
    assert "cannot be written" in done.stderr


@pytest.mark.parametrize(
    ("line", "words"),
    [("{", "judged.jsonl:2: "), ('{"query": "q", "documents": ["a"], "judgements": {}}', ":2: a probe")],
)
def test_judged_queries_that_are_none_end_with_2_and_the_line(folder: Path, line: str, words: str) -> None:
    write(folder / "var/events", ranking())
    (folder / "judged.jsonl").write_text(f"{PROBE}\n{line}\n")
    done = run(*PERIOD, "--judged", str(folder / "judged.jsonl"))
    assert done.exit_code == 2
    assert words in done.stderr


def test_a_proxy_that_is_not_there_ends_with_3(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder / "var/events", ranking())
    (folder / "judged.jsonl").write_text(PROBE)
    monkeypatch.setenv("RERANK_CANARY_TOKEN", "any")
    url = f"http://127.0.0.1:{free_port()}"
    done = run(*PERIOD, "--judged", str(folder / "judged.jsonl"), "--proxy", url)
    assert done.exit_code == 3
    assert f"the proxy at {url} cannot be reached" in done.stderr


def test_without_a_token_it_ends_with_4(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RERANK_CANARY_TOKEN", raising=False)
    write(folder / "var/events", ranking())
    (folder / "judged.jsonl").write_text(PROBE)
    assert run(*PERIOD, "--judged", str(folder / "judged.jsonl")).exit_code == 4
