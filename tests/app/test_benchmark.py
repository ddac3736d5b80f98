"""``rerank-canary benchmark`` as it is called, on the sample that ships, with the rerankers that it really has."""

from __future__ import annotations

import json
import subprocess
import sys
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from proxy.cli import main
from tests.parts.llm import ScriptedLlm
from tests.parts.llm_replies import error, scores
from tests.running import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    ran = CliRunner(env=env).invoke(main, ["benchmark", *arguments, "--json"])
    assert ran.exit_code == 0, ran.output
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.fixture
def llm_env(tmp_path: Path) -> dict[str, str]:
    """Let the stand-in not wait, and give the machine a price."""
    config = tmp_path / "config.toml"
    config.write_text(
        '[backends.gpt]\nkind = "llm"\nstand_in_delay_seconds = 0\n'
        '[backends.cross-encoder]\nkind = "cross-encoder"\nmachine_dollars_per_hour = 1.0\n'
    )
    return {"RERANK_CANARY_CONFIG": str(config)}


def test_the_plans_own_command_line_works_from_anywhere(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "benchmark_rerank.py"), "--queries", "sample_queries.jsonl"]
    command += ["--truth", "judgements.jsonl", "--reranker", "bm25"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "nDCG@25" in ran.stdout
    assert "p95 ms" in ran.stdout


def test_recall_of_25_is_the_retrievers_whoever_ranks() -> None:
    report = run("--reranker", "bm25", "--reranker", "none")
    assert report["queries"] == 86
    [bm25, none] = report["summaries"]
    assert bm25["measures"]["recall@25"] == none["measures"]["recall@25"]
    assert bm25["measures"]["nDCG@10"] != none["measures"]["nDCG@10"]


def test_the_shipped_model_is_measured_beside_the_stand_in(llm_env: dict[str, str], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    report = run("--limit", "6", "--html", str(page), env=llm_env)
    by_name = {each["name"]: each for each in report["summaries"]}
    assert set(by_name) == {"crossencoder", "legacy", "bm25", "none"}
    new, old = by_name["crossencoder"], by_name["legacy"]
    assert new["model"].startswith("minilm-l6@")
    assert new["failed"] == old["failed"] == 0
    assert new["stand_in"] is None
    assert "stand-in" in old["stand_in"]
    assert new["dollars_per_thousand"] == pytest.approx(1000 / 3600 / new["queries_per_second"])
    tokens = (old["tokens"] * 0.15 + old["output_tokens"] * 0.60) / 1e6
    assert old["dollars_per_thousand"] == pytest.approx(1000 * tokens / 6)
    assert new["p50_ms"] <= new["p95_ms"]
    pairs = {(each["a"], each["b"]) for each in report["comparisons"]}
    assert len(pairs) == 6
    text = page.read_text(encoding="utf-8")
    assert "stand-in answered" in text
    for plot in text.split("<svg")[1:]:
        ET.fromstring("<svg" + plot.partition("</svg>")[0] + "</svg>")  # noqa: S314 - what we wrote ourselves
    assert "<script" not in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


def test_the_closing_table_has_both_arms_and_marks_the_stand_in(llm_env: dict[str, str]) -> None:
    ran = CliRunner(env=llm_env).invoke(main, ["benchmark", "--limit", "3", "--reranker", "legacy", "--table"])
    assert ran.exit_code == 0, ran.output
    for words in ("tokens billed", "$ a thousand queries", "p95 latency", "x less", "* a stand-in answered"):
        assert words in ran.stdout


def test_the_language_model_of_the_configuration_is_asked_and_paid() -> None:
    with ScriptedLlm(always=scores()) as llm:
        [legacy] = run("--reranker", "legacy", "--limit", "3", env=llm.env)["summaries"]
        assert len(llm.calls) == 3
    assert legacy["model"] == "gpt-4o-mini"
    assert legacy["stand_in"] is None
    assert legacy["dollars_per_thousand"] > 0


def test_a_query_that_fails_counts_as_received_and_is_told() -> None:
    with ScriptedLlm(always=error(500)) as llm:
        ran = CliRunner(env=llm.env).invoke(main, ["benchmark", "--reranker", "legacy", "--limit", "2", "--json"])
    assert ran.exit_code == 1
    [legacy] = json.loads(ran.stdout)["summaries"]
    assert legacy["failed"] == 2
    [none] = run("--reranker", "none", "--limit", "2")["summaries"]
    assert legacy["measures"] == none["measures"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--queries", "nowhere.jsonl"], "nowhere.jsonl"),
        (["--truth", "{folder}/bad.jsonl"], "bad.jsonl:1"),
        (["--config", "{folder}/bad.toml"], "speed"),
        (["--html", "{folder}/none/page.html"], "cannot be written"),
    ],
    ids=["no file", "no judgement", "unknown setting", "no folder for the page"],
)
def test_what_cannot_be_used_ends_the_command_with_two(tmp_path: Path, arguments: list[str], words: str) -> None:
    (tmp_path / "bad.jsonl").write_text('{"query_id": "q01", "passage_id": "hr-01", "grade": "good"}')
    (tmp_path / "bad.toml").write_text("speed = 1")
    given = [argument.format(folder=tmp_path) for argument in arguments]
    ran = CliRunner().invoke(main, ["benchmark", "--reranker", "none", *given])
    assert ran.exit_code == 2
    assert words in ran.stderr
