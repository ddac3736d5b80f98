"""The rules for those who alert from Prometheus: each fires in its case, asks for metrics that exist, has a runbook."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from alerts.notifiers.alertmanager import alert_name
from alerts.verdict import GRACE_SECONDS, HoldReason
from tests.conftest import require_part
from tests.integration.pages import metrics_page
from tests.parts.programs import eventually
from tests.running import ROOT, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CHART = ROOT / "helm/rerank-canary"
RULES = CHART / "files/prometheus-rules.yaml"
RUNBOOKS = CHART / "docs/runbooks"
KINDS = (
    "rolled_back",
    "flag_not_written",
    "fallback_budget",
    "ready_to_advance",
    "reverted",
    "undelivered",
    "test",
    HoldReason.INCONCLUSIVE,
    *GRACE_SECONDS,
)
"""Of the alerts that the proxy itself sends."""


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    require_part("promtool", found=shutil.which("promtool") is not None)
    return subprocess.run(["promtool", *arguments], cwd=RULES.parent, capture_output=True, text=True, check=False)


def test_the_rules_can_be_read() -> None:
    done = promtool("check", "rules", RULES.name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_rule_fires_in_its_case_and_not_in_a_near_miss() -> None:
    done = promtool("test", "rules", "prometheus-rules.test.yaml")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("was", "is_now"),
    [
        ("> 60 or", "> 600 or"),
        ("> 900", "> 9000"),
        ("max(rerank_latch_set) == 1", "min(rerank_latch_set) == 1"),
        ("> 0.1", "> 0.3"),
    ],
)
def test_the_cases_notice_a_rule_that_is_changed(tmp_path: Path, was: str, is_now: str) -> None:
    rules = RULES.read_text()
    assert was in rules
    (tmp_path / RULES.name).write_text(rules.replace(was, is_now, 1))
    cases = tmp_path / "prometheus-rules.test.yaml"
    cases.write_text((RULES.parent / cases.name).read_text())
    assert promtool("test", "rules", str(cases)).returncode == 1


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", RULES.read_text())


@pytest.mark.parametrize("name", sorted({*alerts(), *(alert_name(kind) for kind in KINDS)}))
def test_every_alert_has_a_page_that_says_what_to_do(name: str) -> None:
    page = (RUNBOOKS / f"{name}.md").read_text()
    assert all(part in page for part in (f"# {name}", "**Done already.**", "## Look at", "## Do", "**It ends:**"))
    assert f"({name}.md)" in (RUNBOOKS / "README.md").read_text()


def test_every_rule_points_to_its_own_page() -> None:
    found = re.findall(r"- alert: (\w+).*?runbook_url: \S+/runbooks/(\w+)\.md", RULES.read_text(), re.DOTALL)
    assert [name for name, _ in found] == alerts()
    assert all(name == page for name, page in found)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    env = {
        "RERANK_CANARY__FLAG__INITIAL_SHARE_PERCENT": "50",
        "RERANK_CANARY__BACKENDS__CE__KIND": "remote",
        "RERANK_CANARY__BACKENDS__CE__API": "tei",
        "RERANK_CANARY__BACKENDS__CE__BASE_URL": "http://127.0.0.1:9",
        "RERANK_CANARY__ARMS__CANDIDATE": "ce",
        "RERANK_CANARY__BACKENDS__GPT__KIND": "llm",
        "RERANK_CANARY__BACKENDS__GPT__STAND_IN_DELAY_SECONDS": "0",
    }
    with Proxy(tmp_path_factory.mktemp("metrics"), env) as started:
        for user in range(10):
            started.rerank(headers={"x-user-id": f"user-{user}"})
        yield started


def test_every_metric_that_a_rule_asks_for_is_exported(proxy: Proxy) -> None:
    eventually(lambda: "rerank_guardrail_breached" in metrics_page(proxy), timeout_seconds=30)
    page = metrics_page(proxy)
    asked = set(re.findall(r"\brerank_[a-z_0-9]+(?=[{)\[ ])", "\n".join(expressions())))
    assert len(asked) > 8
    labels = {"rerank_hold_reason", "rerank_guardrail", "rerank_arm", "rerank_served_by"}
    assert {name for name in asked - labels if f"\n{name}" not in page} == set()
    assert {label for label in labels if f"{label}=" not in page} == set()


def expressions() -> list[str]:
    return re.findall(r"expr: (?:>-\n)?(.*?)(?=\n        (?:for|labels):)", RULES.read_text(), re.DOTALL)
