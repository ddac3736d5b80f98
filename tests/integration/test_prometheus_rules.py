"""The rules for those who alert from Prometheus: each fires in its case, asks for metrics that exist, has a runbook."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from alerts.alert import alert_name
from alerts.verdict import GRACE_SECONDS, HoldReason
from tests.conftest import require_part
from tests.integration.pages import metrics_page
from tests.parts.programs import eventually
from tests.running import ROOT, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prometheus_client.samples import Sample

    from tests.conftest import Plane

CHART = ROOT / "helm/rerank-canary"
RULES = CHART / "files/prometheus-rules.yaml"
CASES = CHART / "files/prometheus-rules.test.yaml"
RUNBOOKS = CHART / "docs/runbooks"
KINDS = (
    "rolled_back",
    "flag_not_written",
    "fallback_budget",
    "ready_to_advance",
    "reverted",
    "undelivered",
    "no_guard",
    "test",
    HoldReason.INCONCLUSIVE,
    *GRACE_SECONDS,
)
"""Of the alerts that the proxy itself sends."""
WANTED = {
    "RerankCanaryRolledBack": "critical",
    "RerankCanaryNoGuard": "critical",
    "RerankCanaryErrors": "critical",
    "RerankCanaryUndelivered": "critical",
    "RerankCanaryHoldTooLong": "warning",
    "RerankCanaryGuardrailBreached": "warning",
    "RerankCanaryFlagStale": "warning",
    "RerankCanaryFallbackShare": "warning",
    "RerankCanaryBothArmsSlow": "warning",
    "RerankCanaryStoreAway": "warning",
    "RerankCanaryObserverFailing": "warning",
    "RerankCanaryShareDrift": "warning",
    "RerankCanaryReadyToAdvance": "info",
}
IN_A_FAULT = {
    "rerank_observer_failures",
    "rerank_observer",
    "rerank_alerts_deliveries_total",
    "rerank_receiver",
    "rerank_outcome",
}
"""A metric, and its label, that a healthy proxy does not show."""
METRIC = re.compile(r"\b(?:rerank|http_server|gen_ai)_[a-z_0-9]+")
_KEYWORDS = re.compile(r'"[^"]*"|\b(?:by|on|ignoring) *\([^)]*\)')


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    require_part("promtool", found=shutil.which("promtool") is not None)
    return subprocess.run(["promtool", *arguments], cwd=RULES.parent, capture_output=True, text=True, check=False)


def rules() -> dict[str, str]:
    """Return the text of each rule by the name of its alert."""
    parts = re.split(r"      - alert: (\w+)\n", RULES.read_text())[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def expressions() -> dict[str, str]:
    return {
        name: re.split(r"\n        (?:for|labels):", rule.removeprefix("        expr:"), maxsplit=1)[0]
        for name, rule in rules().items()
    }


def queries() -> list[str]:
    """Return what the runbooks ask Prometheus."""
    pages = "\n".join(page.read_text() for page in sorted(RUNBOOKS.glob("*.md")))
    return re.findall(r"promtool query instant \"\$PROM\" '([^']+)'", pages)


def metrics_of(expression: str) -> set[str]:
    """Return the metrics of *expression*, and not its labels."""
    bare = re.sub(r"\{[^}]*\}", "", _KEYWORDS.sub(" ", expression))
    named = re.findall(r'__name__=~"([^"]+)"', expression)
    alternatives = [re.fullmatch(r"(\w+)\((.+)\)", each) for each in named]
    return set(METRIC.findall(bare)) | {
        f"{found[1]}{each}" for found in alternatives if found for each in found[2].split("|")
    }


def test_the_rules_can_be_read() -> None:
    done = promtool("check", "rules", RULES.name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_rule_fires_in_its_case_and_not_in_a_near_miss() -> None:
    done = promtool("test", "rules", CASES.name)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", WANTED)
def test_each_rule_has_a_case_and_a_near_miss(name: str) -> None:
    short = name.removeprefix("RerankCanary")
    asked = re.findall(rf'alertname="RerankCanary{short}".*exp_samples: \[\{{value: (\d+)\}}\]', CASES.read_text())
    fires = any(int(count) for count in asked) or f"alertname: {name}\n" in CASES.read_text()
    assert fires
    assert "0" in asked


@pytest.mark.parametrize(
    ("was", "is_now"),
    [
        ("max by (namespace, job) (rerank_latch_set) == 1", "min by (namespace, job) (rerank_latch_set) == 1"),
        ("[1h])) > 60", "[1h])) > 600"),
        ('few_users"} > 60', 'few_users"} > 600'),
        ("> 0.1\n", "> 0.3\n"),
        ('=~"5.."', '=~"[45].."'),
    ],
)
def test_the_cases_notice_a_rule_that_is_changed(tmp_path: Path, was: str, is_now: str) -> None:
    text = RULES.read_text()
    assert was in text
    (tmp_path / RULES.name).write_text(text.replace(was, is_now, 1))
    (tmp_path / CASES.name).write_text(CASES.read_text())
    assert promtool("test", "rules", str(tmp_path / CASES.name)).returncode == 1


def test_the_rules_are_those_that_are_wanted_and_as_severe() -> None:
    found = {name: re.findall(r"labels: \{severity: (\w+)\}", rule) for name, rule in rules().items()}
    assert found == {name: [severity] for name, severity in WANTED.items()}


def test_a_hold_is_told_after_the_grace_that_the_proxy_itself_gives() -> None:
    parts = re.findall(r'rerank_hold_reason=~?"([a-z_|]+)"\} > (\d+)', expressions()["RerankCanaryHoldTooLong"])
    assert {reason: float(grace) for reasons, grace in parts for reason in reasons.split("|")} == GRACE_SECONDS


@pytest.mark.parametrize("name", sorted({*WANTED, *(alert_name(kind) for kind in KINDS)}))
def test_every_alert_has_a_page_that_says_what_to_do(name: str) -> None:
    page = (RUNBOOKS / f"{name}.md").read_text()
    assert all(part in page for part in (f"# {name}", "**Done already.**", "## Look at", "## Do", "**It ends:**"))
    assert f"({name}.md)" in (RUNBOOKS / "README.md").read_text()


def test_every_rule_points_to_its_own_page() -> None:
    found = {name: re.findall(r"runbook_url: \S+/([^/\s]+\.md)\n", rule + "\n") for name, rule in rules().items()}
    assert found == {name: [f"{name}.md"] for name in rules()}
    assert all((RUNBOOKS / page).is_file() for pages in found.values() for page in pages)


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in RUNBOOKS.glob("*.md"):
        assert [
            name for name in re.findall(r"\]\((\S+\.md)\)", page.read_text()) if not (RUNBOOKS / name).is_file()
        ] == []


def test_what_a_page_asks_prometheus_can_be_asked(tmp_path: Path) -> None:
    assert len(queries()) >= 20
    asked = [{"record": f"asked:{place}", "expr": query} for place, query in enumerate(queries())]
    file = tmp_path / "asked.yaml"
    file.write_text(json.dumps({"groups": [{"name": "asked", "rules": asked}]}))  # JSON is YAML too
    done = promtool("check", "rules", str(file))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Return a proxy that has served both arms, of which the candidate is one that cannot be reached."""
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
        eventually(lambda: "rerank_guardrail_breached" in metrics_page(started), timeout_seconds=30)
        yield started


@pytest.fixture(scope="module")
def exported(proxy: Proxy) -> list[Sample]:
    return [sample for family in text_string_to_metric_families(metrics_page(proxy)) for sample in family.samples]


def test_every_metric_that_a_rule_asks_for_is_exported(exported: list[Sample]) -> None:
    asked = set().union(*map(metrics_of, expressions().values()))
    assert len(asked) > 14
    assert asked - {sample.name for sample in exported} == IN_A_FAULT & asked


def test_every_label_of_a_rule_is_exported_with_the_values_that_it_asks_for(exported: list[Sample]) -> None:
    text = "\n".join(expressions().values())
    known = {label for sample in exported for label in sample.labels}
    grouped = {name for names in re.findall(r"\b(?:by|on) *\(([^)]*)\)", text) for name in re.split(r", *", names)}
    asked = re.findall(r'(\w+)(?:=~|!=|=|!~)"', text)
    assert {*asked, *grouped} - known - IN_A_FAULT - {"namespace", "job", "instance"} == set()
    healthy = [
        (label, values) for label, values in re.findall(r'(\w+)=~?"([a-z_|]+)"', text) if label not in IN_A_FAULT
    ]
    for label, values in healthy:
        found = {sample.labels[label] for sample in exported if label in sample.labels}
        assert set(values.split("|")) <= found
    assert {
        sample.labels["rerank_hold_reason"] for sample in exported if sample.name == "rerank_guard_held_seconds"
    } == {*HoldReason}


def test_the_durations_have_a_bucket_at_each_limit(exported: list[Sample]) -> None:
    bounds = {each.labels["le"] for each in exported if each.name == "rerank_request_duration_seconds_bucket"}
    limits = re.findall(r"^ *\) > ([\d.]+)$", expressions()["RerankCanaryBothArmsSlow"], re.MULTILINE)
    assert limits == ["0.6", "5"]
    assert {float(limit) for limit in limits} <= {float(bound) for bound in bounds}


def test_a_failing_observer_is_exported_as_the_rule_asks_for_it(plane: Plane) -> None:
    plane.parts.observers.failures["SignalObserver"] += 1
    page = generate_latest(plane.parts.otel.registry).decode()
    assert '\nrerank_observer_failures{rerank_observer="SignalObserver"} 1.0\n' in page


def test_what_a_page_asks_prometheus_for_is_exported(exported: list[Sample]) -> None:
    asked = set().union(*map(metrics_of, queries())) - {sample.name for sample in exported} - IN_A_FAULT
    # What only a model in process makes; the candidate of this proxy is a server.
    assert asked == {"rerank_queue_documents", "rerank_score_statistic_bucket"}
    made = "".join((ROOT / "proxy" / file).read_text() for file in ("gauges.py", "otel_observer.py"))
    assert all(f'"{name}"' in made for name in ("rerank.queue.documents", "rerank.score.statistic"))
