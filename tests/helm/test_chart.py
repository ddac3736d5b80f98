"""What the chart makes of values: it is what Kubernetes takes, what checkers ask for, and what was meant."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from tests.conftest import require_part
from tests.helm.charts import (
    CHART,
    EXAMPLES,
    HELMS,
    helm,
    kinds,
    manifests,
    one,
    pods,
    refusal,
    rendered,
    template,
    tool,
)
from tests.running import ROOT

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = ("1.27", "1.32", "1.37")
"""Of Kubernetes."""
REDIS = {"redis": {"url": "redis://redis:6379/0"}}
UNLEASH = {"flag": {"unleashUrl": "https://unleash.example.com/api"}}
KEYS = ("controlTokens", "dataKeys", "unleashToken", "unleashAdminToken", "salt")
SECRETS = {"secrets": {name: {"name": "keys"} for name in KEYS}}
MANY: dict[str, Any] = {"replicas": 2, **REDIS, **UNLEASH, **SECRETS}


@pytest.mark.parametrize("which", HELMS)
@pytest.mark.parametrize("example", EXAMPLES)
def test_every_example_passes_lint_without_a_warning(example: str, which: str) -> None:
    done = helm(which, "lint", "--strict", ".", "--values", f"ci/{example}-values.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout


@pytest.mark.parametrize("example", EXAMPLES)
def test_helm_3_and_helm_4_make_the_same_of_every_example(example: str) -> None:
    assert rendered(example, "helm3") == rendered(example, "helm4")


def test_the_examples_are_those_that_are_promised() -> None:
    assert EXAMPLES == ["air-gapped", "cpu", "full", "gpu", "minimal"]


def test_the_full_example_has_every_kind() -> None:
    assert kinds(rendered("full")) == sorted(
        [
            *("ConfigMap", "ConfigMap", "CronJob", "Deployment", "HTTPRoute", "HorizontalPodAutoscaler", "Ingress"),
            *(
                "Job",
                "NetworkPolicy",
                "NetworkPolicy",
                "Pod",
                "PodDisruptionBudget",
                "PrometheusRule",
                "Service",
                "Service",
            ),
            *("ServiceAccount", "ServiceMonitor"),
        ]
    )


@pytest.mark.parametrize("which", HELMS)
@pytest.mark.parametrize(
    ("values", "reason"),
    [
        pytest.param({"replicas": "two"}, "replicas", id="a wrong type"),
        pytest.param({"replicas": -1}, "replicas", id="out of range"),
        pytest.param({"replica": 2}, "replica", id="an unknown key"),
        pytest.param({"redis": {"uri": "redis://r"}}, "uri", id="an unknown key below"),
        pytest.param({"secrets": {"salt": {"value": "s"}}}, "value", id="a secret in the values"),
        pytest.param({"image": {"digest": "latest"}}, "digest", id="no digest"),
        pytest.param({"autoscaling": {"metric": "memory"}}, "metric", id="no metric"),
    ],
)
def test_the_schema_refuses(values: dict[str, Any], reason: str, which: str) -> None:
    said = refusal(values, which)
    assert "don't meet the specifications of the schema" in said
    assert reason in said


REFUSALS = {
    "two replicas without Redis": ({**MANY, "redis": {}}, "without Redis each pod has a store of its own"),
    "an autoscaler without Redis": (
        {**UNLEASH, **SECRETS, "autoscaling": {"enabled": True}},
        "without Redis each pod has a store of its own",
    ),
    "two replicas without Unleash": ({**MANY, "flag": {}}, "a flag file is each pod's own"),
    "two replicas without a salt": (
        {**MANY, "secrets": {"unleashToken": {"name": "keys"}}},
        "a user has another hash in each",
    ),
    "more at least than at most": (
        {**MANY, "autoscaling": {"enabled": True, "minReplicas": 9, "maxReplicas": 3}},
        "minReplicas is above",
    ),
    "Unleash without a token": (UNLEASH, "needs secrets.unleashToken"),
    "a flag to be made, and no token": (
        {**UNLEASH, "secrets": {"unleashToken": {"name": "keys"}}, "flag": {"create": True}},
        "flag.create needs",
    ),
    "open to the world": ({"ingress": {"enabled": True}}, "needs secrets.dataKeys"),
    "a route to no gateway": ({**SECRETS, "gateway": {"enabled": True}}, "gateway.parentRefs"),
    "nothing to scrape": ({"serviceMonitor": {"enabled": True}}, "listens inside of the pod only"),
    "two Redis": ({**REDIS, "secrets": {"redisUrl": {"name": "keys"}}}, "say one of them"),
    "a password in the values": ({"redis": {"url": "redis://:secret@redis:6379"}}, "set secrets.redisUrl"),
    "the shipped model on a GPU": ({"gpu": {"enabled": True}}, "int8 for CPUs"),
    "a GPU and nothing on it": ({"gpu": {"enabled": True}, "model": {"name": ""}}, "no model of these pods"),
    "a GPU without a CUDA image": (
        {"gpu": {"enabled": True}, "model": {"name": "a/b"}, "image": {"tag": "0.1.0"}},
        "needs the CUDA image",
    ),
    "a folder that is not there": ({"model": {"name": "/models/mine"}}, "set model.claim"),
    "no pod may be replaced": (
        {**MANY, "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}},
        "no pod could ever be replaced",
    ),
    "shorter than a request": ({"shutdown": {"graceSeconds": 15}}, "cut answers off"),
    "shorter than a long request": (
        {"config": "[deadline]\ntotal_seconds = 30\n"},
        "cut answers off",
    ),
    "what the chart says itself": ({"config": "[server]\nport = 80\n"}, "[server] port"),
    "a token in a ConfigMap": ({"config": '[flag]\ntoken = "*:production.abc"\n'}, "holds no secrets"),
    "a key in a ConfigMap": (
        {"config": '[alerts.receivers.pd]\nkind = "pagerduty"\nrouting_key = "abc"\n'},
        "holds no secrets",
    ),
    "no TOML": ({"config": "ramp = ["}, "config: is no TOML"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_what_is_wrong_together_is_refused_with_the_reason(name: str) -> None:
    values, reason = REFUSALS[name]
    assert reason in refusal(values)


def test_one_is_refused_by_helm_3_as_well() -> None:
    assert "without Redis each pod has a store of its own" in refusal({**MANY, "redis": {}}, "helm3")


@pytest.mark.parametrize("example", EXAMPLES)
def test_kubernetes_takes_every_manifest(example: str, tmp_path: Path) -> None:
    file = tmp_path / "manifests.yaml"
    file.write_text(template(example).stdout)
    custom = {"HTTPRoute", "PrometheusRule", "ServiceMonitor"}
    built_in = sorted(set(kinds(rendered(example))) - custom)
    for version in VERSIONS:
        command = [tool("kubernetes-validate"), "--kubernetes-version", version, "--strict", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        passed = set(re.findall(r"passed for resource (\w+)/", done.stdout))
        assert passed == {kind.lower() for kind in built_in}


def test_a_field_that_kubernetes_does_not_know_is_noticed(tmp_path: Path) -> None:
    broken = one(rendered("minimal"), "Service", "rerank-canary")
    broken["spec"]["portz"] = []
    file = tmp_path / "service.yaml"
    file.write_text(json.dumps(broken))
    command = [tool("kubernetes-validate"), "--kubernetes-version", VERSIONS[0], "--strict", str(file)]
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


def test_checkov_fails_nothing_but_what_is_skipped_with_a_reason(tmp_path: Path) -> None:
    files = []
    for example in EXAMPLES:
        file = tmp_path / f"{example}.yaml"
        file.write_text(template(example).stdout)
        files += ["--file", str(file)]
    config = ROOT / "helm/checkov.yaml"
    command = [tool("checkov"), "--skip-download", "--framework", "kubernetes", "--config-file", str(config)]
    done = subprocess.run(
        [*command, *files, "--output", "json", "--compact"], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    report = json.loads(done.stdout)
    failed = {(each["check_id"], each["resource"], each["check_name"]) for each in report["results"]["failed_checks"]}
    assert failed == set()
    assert report["summary"]["passed"] > 500
    text = config.read_text()
    assert re.findall(r"^  - (\w+)$", text, re.MULTILINE) == []  # each has its reason beside it


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    done = subprocess.run([tool("hadolint"), "helm/Dockerfile"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_reads_the_rules_as_they_are_rendered(tmp_path: Path) -> None:
    require_part("promtool", found=shutil.which("promtool") is not None)
    rules = one(rendered("full"), "PrometheusRule")["spec"]
    file = tmp_path / "rules.yaml"
    file.write_text(json.dumps(rules))
    done = subprocess.run(["promtool", "check", "rules", str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert rules == msgspec.yaml.decode((CHART / "files/prometheus-rules.yaml").read_bytes())


def test_the_dashboard_arrives_as_it_is() -> None:
    [text] = one(rendered("full"), "ConfigMap", "-dashboard")["data"].values()
    assert json.loads(text) == json.loads((CHART / "files/dashboard.json").read_text())


@pytest.mark.parametrize("example", EXAMPLES)
def test_every_pod_runs_without_rights(example: str) -> None:
    found = pods(rendered(example))
    assert "Deployment/rc-rerank-canary" in found
    for spec in found.values():
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            rights = container["securityContext"]
            assert rights["readOnlyRootFilesystem"] is True
            assert rights["allowPrivilegeEscalation"] is False
            assert rights["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= set(container["resources"]["limits"])
            shells = {"sh", "bash", "/bin/sh", "/bin/bash"}
            assert shells.isdisjoint([*container.get("command", []), *container.get("args", [])])


@pytest.mark.parametrize("example", EXAMPLES)
def test_secrets_come_by_reference_only(example: str) -> None:
    for spec in pods(rendered(example)).values():
        for container in spec["containers"]:
            for variable in container.get("env", []):
                is_secret = re.search(r"TOKEN|API_KEY$|KEYS$|SALT|PASSWORD|HEADERS", variable["name"])
                assert not (is_secret and "value" in variable), variable["name"]


def test_every_pod_runs_where_pods_may() -> None:
    place: dict[str, Any] = {
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "search", "operator": "Exists"}],
        "priorityClassName": "high",
        "image": {"pullSecrets": [{"name": "registry"}]},
    }
    flag = {"flag": {**UNLEASH["flag"], "create": True}}
    found = pods(rendered({**MANY, **flag, **place, "nightly": {"enabled": True}}))
    assert len(found) == 4
    for spec in found.values():
        assert {name: spec[name] for name in place if name != "image"} | {
            "image": {"pullSecrets": spec["imagePullSecrets"]}
        } == place


def test_what_runs_at_night_is_beside_the_volume_that_it_reads() -> None:
    alone = pods(rendered({"nightly": {"enabled": True}}))["CronJob/rc-rerank-canary-nightly"]
    [term] = alone["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "kubernetes.io/hostname"
    many = pods(rendered({**MANY, "nightly": {"enabled": True}}))["CronJob/rc-rerank-canary-nightly"]
    assert "affinity" not in many


@pytest.mark.parametrize("example", EXAMPLES)
def test_no_variable_is_said_twice(example: str) -> None:
    for spec in pods(rendered(example)).values():
        for container in spec["containers"]:
            said = [variable["name"] for variable in container.get("env", [])]
            assert len(set(said)) == len(said)


def test_a_pod_ends_after_the_longest_request_may() -> None:
    spec = pods(rendered({"shutdown": {"preStopSeconds": 7, "drainSeconds": 3, "graceSeconds": 40}}))
    proxy = spec["Deployment/rc-rerank-canary"]
    assert proxy["terminationGracePeriodSeconds"] == 7 + 3 + 40 + 15
    [container] = proxy["containers"]
    assert container["lifecycle"]["preStop"]["exec"]["command"][-1] == "import time; time.sleep(7)"


def test_the_model_gets_the_cores_that_the_pod_has() -> None:
    for limit, threads in (("4", "4"), ("2500m", "2"), ("500m", "1"), (3, "3")):
        found = rendered({"resources": {"limits": {"cpu": limit}, "requests": {"cpu": limit}}})
        assert variables(found)["RERANK_CANARY__BACKENDS__CROSS_ENCODER__THREADS"] == threads


def variables(found: list[dict[str, Any]]) -> dict[str, str]:
    [container] = pods(found)["Deployment/rc-rerank-canary"]["containers"]
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}


def test_a_gpu_is_one_value() -> None:
    values = {"gpu": {"enabled": True}, "model": {"name": "org/model"}}
    found = rendered(values)
    [container] = pods(found)["Deployment/rc-rerank-canary"]["containers"]
    assert container["image"].endswith("-cuda")
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert variables(found)["DEVICE"] == "cuda"


def test_a_model_that_is_here_asks_no_hub() -> None:
    assert variables(rendered("minimal"))["HF_HUB_OFFLINE"] == "1"
    assert variables(rendered("air-gapped"))["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in variables(rendered({"model": {"name": "org/model"}}))


def test_new_settings_roll_the_pods_and_the_same_ones_do_not() -> None:
    def checksum(values: dict[str, Any]) -> str:
        found: str = one(rendered(values), "Deployment")["spec"]["template"]["metadata"]["annotations"][
            "checksum/config"
        ]
        return found

    slow = {"config": "[ramp]\ncool_down_seconds = 60\n"}
    assert checksum(slow) == checksum({**slow, "replicas": 1})
    assert checksum(slow) != checksum({"config": "[ramp]\ncool_down_seconds = 61\n"})


@pytest.mark.parametrize(
    ("values", "is_kept"),
    [
        pytest.param({}, True, id="an embedded store"),
        pytest.param({**REDIS}, True, id="a flag file"),
        pytest.param({**REDIS, **UNLEASH, "secrets": {"unleashToken": {"name": "keys"}}}, True, id="a salt of its own"),
        pytest.param({**MANY}, False, id="nothing of its own"),
        pytest.param({"persistence": {"enabled": False}}, False, id="on the user's risk"),
    ],
)
def test_a_pod_has_a_volume_where_it_keeps_something(values: dict[str, Any], *, is_kept: bool) -> None:
    found = rendered(values)
    assert ("PersistentVolumeClaim" in kinds(found)) is is_kept
    strategy = one(found, "Deployment")["spec"]["strategy"]["type"]
    assert strategy == ("Recreate" if is_kept else "RollingUpdate")


def test_the_volume_outlives_the_release() -> None:
    claim = one(rendered({}), "PersistentVolumeClaim")
    assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"


def test_only_what_is_asked_may_be_reached() -> None:
    policy = one(rendered("full"), "NetworkPolicy", "rc-rerank-canary")["spec"]
    ports = {port["port"] for rule in policy["egress"] for port in rule["ports"]}
    assert ports == {53, 443, 4318, 6380, 8443, 9093}  # names, OpenAI, OTLP, Redis, Unleash, Alertmanager
    control = [rule for rule in policy["ingress"] if {"port": "control", "protocol": "TCP"} in rule["ports"]]
    selectors = [peer for rule in control for peer in rule["from"]]
    assert len(selectors) == 2  # helm test, and the namespace of ops


def test_nobody_reaches_the_control_plane_unless_told() -> None:
    policy = one(rendered(MANY), "NetworkPolicy", "rc-rerank-canary")["spec"]
    control = [rule for rule in policy["ingress"] if {"port": "control", "protocol": "TCP"} in rule["ports"]]
    peers = [peer for rule in control for peer in rule["from"]]
    assert [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"] for peer in peers] == ["test"]


def test_pods_are_spread_and_kept_when_nodes_are_drained() -> None:
    found = rendered(MANY)
    keys = [
        each["topologyKey"]
        for each in one(found, "Deployment")["spec"]["template"]["spec"]["topologySpreadConstraints"]
    ]
    assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert one(found, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_services_and_budgets_select_the_pods_that_serve_and_no_jobs() -> None:
    found = rendered("full")
    serving = one(found, "Deployment")["spec"]["template"]["metadata"]["labels"].items()
    others = [
        one(found, "Job")["spec"]["template"]["metadata"]["labels"].items(),
        one(found, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["metadata"]["labels"].items(),
        one(found, "Pod")["metadata"]["labels"].items(),
    ]
    selectors = [
        *(each["spec"]["selector"] for each in found if each["kind"] == "Service"),
        one(found, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        one(found, "NetworkPolicy", "rc-rerank-canary")["spec"]["podSelector"]["matchLabels"],
    ]
    for selector in selectors:
        assert selector.items() <= serving
        assert not any(selector.items() <= labels for labels in others)


def test_the_flag_is_made_after_the_install_and_the_test_pod_only_when_asked() -> None:
    hooks = {
        each["kind"]: each["metadata"]["annotations"]["helm.sh/hook"]
        for each in rendered("full")
        if "helm.sh/hook" in each["metadata"].get("annotations", {})
    }
    assert hooks == {"Job": "post-install,post-upgrade", "Pod": "test"}


def test_the_notes_name_three_commands_and_what_is_missing() -> None:
    done = helm("helm4", "install", "rc", ".", "--dry-run=client", "--namespace", "search")
    notes = done.stdout.partition("NOTES:")[2]
    assert all(command in notes for command in ("helm test rc --namespace search", "rerank-canary status", "curl"))
    assert "a stand-in answers" in notes


def test_every_document_is_in_the_namespace_of_the_release() -> None:
    assert {each["metadata"]["namespace"] for each in manifests(template("full").stdout)} == {"search"}
