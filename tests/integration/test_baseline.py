"""The baseline of a real proxy's log, and of judged queries that it ranks."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest

from proxy.baseline_file import read_baseline
from tests.events import read
from tests.parts.callers import QUICK, ask_all
from tests.running import DOCUMENTS, QUERY, ROOT, Proxy, command_of

if TYPE_CHECKING:
    from pathlib import Path

ENV = {
    **QUICK,
    "RERANK_CANARY__EVENTS__IS_ON": "true",
    "RERANK_CANARY__EVENTS__FLUSH_SECONDS": "3600",  # at the end only
}


def baseline(proxy: Proxy, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*command_of(has_extras=True), "baseline", "--config", "rerank-canary.toml", *arguments],
        cwd=proxy.folder,
        env={"PATH": os.environ["PATH"], "HOME": str(proxy.folder), "PYTHONPATH": str(ROOT), "COLUMNS": "120", **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def judged(folder: Path) -> Path:
    file = folder / "judged.jsonl"
    rows = [{"query": QUERY, "documents": DOCUMENTS, "judgements": {"1": 2, "3": 1}}] * 3
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return file


def test_real_traffic_comes_to_what_was_answered(tmp_path: Path) -> None:
    with Proxy(tmp_path, ENV, has_extras=True) as proxy:
        answers = ask_all(proxy.url, [f"user-{number}" for number in range(60)])
        done = baseline(proxy, "--judged", str(judged(tmp_path)), "--proxy", proxy.url)
        assert done.returncode == 1  # nothing is written yet
        assert proxy.stop() == 0
        proxy.start()
        done = baseline(proxy, "--judged", str(judged(tmp_path)), "--proxy", proxy.url, "--html", "page.html")
        assert done.returncode == 0, done.stderr
        proxy.stop()
    found = read_baseline(tmp_path / "var/baseline.json")
    control = [answer for answer in answers if answer.arm == "control"]
    assert (found.requests, found.all_requests) == (len(control), len(answers))
    rows = [row for row in read(tmp_path / "var/events") if row["arm"] == "control" and not row["is_forced"]]
    assert found.latency.p95 == pytest.approx(np.quantile([row["seconds"] for row in rows], 0.95))
    assert found.cost.per_query == pytest.approx(np.mean([row["cost_dollars"] for row in rows]))
    assert found.quality is not None
    assert (found.quality.queries, found.quality.not_ranked) == (3, 0)
    by_name = {each.name: each for each in found.quality.measures}
    assert 0 < (by_name["nDCG@25"].value or 0) <= 1
    assert by_name["R@50"].value is None
    assert "nDCG@25, 3 queries" in done.stdout
    assert "<svg" in (tmp_path / "page.html").read_text()


def test_judged_queries_are_nobodys_traffic(tmp_path: Path) -> None:
    with Proxy(tmp_path, ENV, has_extras=True) as proxy:
        ask_all(proxy.url, ["ada"])
        proxy.stop()
        proxy.start()
        assert baseline(proxy, "--judged", str(judged(tmp_path)), "--proxy", proxy.url).returncode == 0
        proxy.stop()
        again = baseline(proxy, "--json")
    assert json.loads(again.stdout)["all_requests"] == 1
    assert sum(row["is_forced"] for row in read(tmp_path / "var/events")) == 3


def test_a_wrong_token_ends_with_4(tmp_path: Path) -> None:
    with Proxy(tmp_path, ENV, has_extras=True) as proxy:
        ask_all(proxy.url, ["ada"])
        proxy.stop()
        proxy.start()
        arguments = ("--judged", str(judged(tmp_path)), "--proxy", proxy.url)
        done = baseline(proxy, *arguments, RERANK_CANARY_TOKEN="wrong")
        assert done.returncode == 4
        assert "the proxy refuses: x-rerank-force-arm needs a control token" in done.stderr
        assert not (tmp_path / "var/baseline.json").exists()


def test_without_the_extra_it_says_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [str(ROOT / ".venv/bin/rerank-canary"), "baseline"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("rerank-canary: baseline: needs pyarrow")


def test_a_baseline_that_cannot_be_read_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("{}")
    proxy = Proxy(
        tmp_path, {"RERANK_CANARY__GUARD__BASELINE_FILE": str(tmp_path / "old.json")}, config="", has_extras=False
    )
    with pytest.raises(AssertionError, match=r"\$\.guard\.baseline_file: .*old\.json: is no baseline"):
        proxy.start()
