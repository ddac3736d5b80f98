"""Grafana's dashboard asks for metrics, and their labels, that proxies really export; and PromQL can be asked so."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import require_part
from tests.helm.charts import CHART, one, rendered
from tests.integration.pages import metrics_page
from tests.parts.llm import ScriptedLlm
from tests.parts.llm_replies import scores
from tests.parts.programs import eventually
from tests.running import DOCUMENTS, QUERY, Proxy, user_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prometheus_client.samples import Sample

DASHBOARD: dict[str, Any] = json.loads((CHART / "files/dashboard.json").read_text())
IN_A_FAULT = {"rerank_observer_failures"}
"""What a proxy without a fault of its own does not show; test_prometheus_rules.py sees it exported."""
OF_THE_SCRAPE = {"namespace", "job", "instance"}
OF_A_FAULT = {"rerank_observer"}


def panels() -> list[dict[str, Any]]:
    return [each for each in DASHBOARD["panels"] if each["type"] != "row"]


def expressions() -> list[str]:
    """Return what the dashboard asks Prometheus, with its variables as Grafana puts them in."""
    asked = [target["expr"] for each in panels() for target in each["targets"]]
    asked += [each["expr"] for each in DASHBOARD["annotations"]["list"]]
    return [re.sub(r"\$\w+", ".*", each) for each in asked]


def metrics() -> set[str]:
    found = set(re.findall(r"\b(?:rerank|http_server|gen_ai|target)_[a-zA-Z_0-9]+(?=\{)", "\n".join(expressions())))
    queries = [each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    return found | {name for each in queries for name in re.findall(r"label_values\((\w+)", each)}


def labels() -> set[str]:
    text = "\n".join(expressions())
    grouped = {name for names in re.findall(r"\bby *\(([^)]*)\)", text) for name in re.split(r", *", names)}
    legends = "\n".join(target.get("legendFormat", "") for each in panels() for target in each["targets"])
    return grouped | set(re.findall(r'(\w+)(?:=~|!=|=|!~)"', text)) | set(re.findall(r"\{\{(\w+)\}\}", legends))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Sample]]:
    """Return what a proxy exports that did all it can: both arms, shadows, probes, feedback, alerts, a fallback."""
    folder = tmp_path_factory.mktemp("dashboard")
    probes = folder / "probes.jsonl"
    probes.write_text(json.dumps({"query": QUERY, "documents": DOCUMENTS, "judgements": {"1": 1, "3": 1}}) + "\n")
    config = """
        [fallback]
        threshold = 0.9
        max_share = 1.0
        [shadow]
        is_on = true
        control_percent = 100.0
        [alerts.receivers.nobody]
        kind = "webhook"
        url = "http://127.0.0.1:9"
        secret = "s"
    """
    env = {
        "RERANK_CANARY__FLAG__INITIAL_SHARE_PERCENT": "50",
        "RERANK_CANARY__PROBES__FILE": str(probes),
        "RERANK_CANARY__PROBES__INTERVAL_SECONDS": "0.1",
        "RERANK_CANARY__EVENTS__IS_ON": "true",
    }
    with ScriptedLlm(scores()) as llm, Proxy(folder, env | llm.env, config=config, has_extras=True) as proxy:
        for arm in ("control", "candidate"):
            answer = proxy.rerank("which tree grows fastest", headers={"x-user-id": user_of(arm, 50)})
            said = {"request_id": answer.headers["x-rerank-feedback"], "clicked": [1]}
            httpx.post(f"{proxy.url}/v1/feedback", json=said).raise_for_status()
        token = (proxy.folder / "var/control.token").read_text().strip()
        order = {"reason": "to be told"}
        httpx.post(
            f"{proxy.control_url}/rollback", json=order, headers={"Authorization": f"Bearer {token}"}
        ).raise_for_status()

        def samples() -> list[Sample]:
            page = text_string_to_metric_families(metrics_page(proxy))
            found = [sample for family in page for sample in family.samples]
            assert metrics() - {sample.name for sample in found} - IN_A_FAULT == set()
            return found

        yield eventually(samples)


def test_every_metric_of_the_dashboard_is_exported(exported: list[Sample]) -> None:
    assert len(metrics()) > 30
    assert metrics() - {sample.name for sample in exported} == IN_A_FAULT


def test_every_label_of_the_dashboard_is_exported(exported: list[Sample]) -> None:
    known = {label for sample in exported for label in sample.labels}
    assert labels() - known - OF_THE_SCRAPE == OF_A_FAULT


def test_the_autoscaler_asks_for_what_its_page_makes_of_exported_metrics(exported: list[Sample]) -> None:
    page = (CHART / "docs/autoscaling.md").read_text()
    found = rendered("cpu", "helm4", "--set", "autoscaling.enabled=true,autoscaling.metric=queue")
    [metric] = one(found, "HorizontalPodAutoscaler")["spec"]["metrics"]
    assert f"{{as: {metric['pods']['metric']['name']}}}" in page
    asked = set(re.findall(r"rerank_queue_duration_seconds\w*(?=\{)", page))
    assert len(asked) == 2
    assert asked <= {sample.name for sample in exported}


def test_prometheus_can_be_asked_so(tmp_path: Path) -> None:
    require_part("promtool", found=shutil.which("promtool") is not None)
    rules = [{"record": f"asked:{place}", "expr": expr} for place, expr in enumerate(expressions())]
    file = tmp_path / "asked.yaml"
    file.write_text(json.dumps({"groups": [{"name": "asked", "rules": rules}]}))  # JSON is YAML too
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_panels_have_numbers_of_their_own_and_lie_beside_each_other() -> None:
    numbers = [each["id"] for each in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    taken: set[tuple[int, int]] = set()
    for each in DASHBOARD["panels"]:
        place = each["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        cells = {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken, each["title"]
        assert max(columns) < 24
        taken |= cells


def test_every_panel_asks_the_chosen_prometheus_for_the_chosen_deployment() -> None:
    for each in panels():
        assert each["datasource"]["uid"] == "${datasource}"
        for target in each["targets"]:
            selectors = re.findall(r"\{(.*?)\}", target["expr"])
            assert selectors
            assert all('namespace=~"$namespace", job=~"$job"' in selector for selector in selectors)
