"""values.yaml, its schema and the table of the README say the same."""

from __future__ import annotations

import importlib.util
import json
import re
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from proxy.cli import main
from tests.helm.charts import CHART, EXAMPLES, pods, rendered, template
from tests.running import ROOT

if TYPE_CHECKING:
    from types import ModuleType

VALUES = (CHART / "values.yaml").read_text()
README = (CHART / "README.md").read_text()
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
FREE = {"podAnnotations", "podLabels", "nodeSelector", "affinity", "annotations", "labels"}
"""Tables whose names are the user's, or Kubernetes'."""


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("chart_readme", ROOT / "scripts/chart_readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_values_are_few() -> None:
    assert len(VALUES.splitlines()) < 150


def test_every_value_has_a_comment(script: ModuleType) -> None:
    assert len(script.rows(VALUES)) > 80
    with pytest.raises(ValueError, match=r"values.yaml:1: has no comment"):
        script.rows("replicas: 1")


def test_the_table_of_the_readme_is_not_stale(script: ModuleType) -> None:
    assert script.with_table(README, VALUES) == README, "run scripts/chart_readme.py"
    assert script.with_table(README, VALUES.replace("replicas: 1", "replicas: 3")) != README


def test_what_the_readme_links_to_is_there() -> None:
    for page in [CHART / "README.md", *(CHART / "docs").glob("*.md")]:
        links = re.findall(r"\]\(([^):#]+)\)", page.read_text())
        assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_readme_s_configuration_is_taken() -> None:
    [block] = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    rendered(msgspec.yaml.decode(block, type=dict[str, Any]))


def test_the_readme_makes_the_secrets_that_its_command_names() -> None:
    [shell] = re.findall(r"```sh\n(new\(\).*?)```", README, re.DOTALL)
    made = {
        (name, key)
        for name, rest in re.findall(r"create secret generic (\S+)((?:.*\\\n)*.*)", shell)
        for key in re.findall(r"--from-literal=(\w+)=", rest)
    }
    options = [option for name in re.findall(r"--set (\S+)", shell) for option in ("--set", name)]
    found = pods(rendered("cpu", "helm4", *options)).values()
    variables = [each for spec in found for container in spec["containers"] for each in container["env"]]
    sources = [each["valueFrom"]["secretKeyRef"] for each in variables if "valueFrom" in each]
    assert {(each["name"], each["key"]) for each in sources} == made


def closed(schema: dict[str, Any], path: str = "") -> list[str]:
    """Return the tables of the schema that take unknown names."""
    here = [path] if schema.get("type") == "object" and schema.get("additionalProperties") is not False else []
    return here + [
        each for name, below in schema.get("properties", {}).items() for each in closed(below, f"{path}.{name}")
    ]


def test_the_schema_takes_no_unknown_names_but_where_they_are_the_user_s() -> None:
    allowed = {path for path in closed(SCHEMA) if path.rpartition(".")[2] in FREE or path.startswith(".resources")} | {
        ".global"
    }
    assert set(closed(SCHEMA)) - allowed == set()


def names(values: dict[str, Any], schema: dict[str, Any], path: str = "") -> set[str]:
    """Return the names that only one of both has."""
    known = schema.get("properties")
    if known is None:
        return set()
    differing = {f"{path}.{name}" for name in values.keys() ^ known.keys()} - {".global"}  # helm's own
    for name in values.keys() & known.keys():
        if isinstance(values[name], dict):
            differing |= names(values[name], known[name], f"{path}.{name}")
    return differing


def test_schema_and_values_have_the_same_names() -> None:
    assert names(msgspec.yaml.decode(VALUES, type=dict[str, Any]), SCHEMA) == set()


def paths(values: dict[str, Any], path: str = "") -> set[str]:
    """Return the path of each value that is no table."""
    found = set()
    for name, value in values.items():
        found |= paths(value, f"{path}.{name}") if isinstance(value, dict) and value else {f"{path}.{name}"}
    return found


def test_every_value_is_used_by_a_template() -> None:
    text = "\n".join(file.read_text() for file in (CHART / "templates").rglob("*.*"))
    secrets = {path for path in paths(msgspec.yaml.decode(VALUES, type=dict[str, Any])) if path.startswith(".secrets.")}
    whole = (".resources.", ".rollingUpdate.", ".labels.", ".dashboard.labels", ".persistence.", ".flag.")
    for path in paths(msgspec.yaml.decode(VALUES, type=dict[str, Any])) - secrets:
        parent = path.rpartition(".")[0]
        assert f"Values{path}" in text or (parent and f"Values{parent}" in text and path.startswith(whole)), path
    for path in secrets:
        assert re.search(rf'"{path.split(".")[2]}"|secrets\.{path.split(".")[2]}', text), path


def test_every_example_says_what_it_is_for() -> None:
    for example in EXAMPLES:
        first = (CHART / f"ci/{example}-values.yaml").read_text().splitlines()[0]
        assert first.startswith("# ")
        assert template(example).returncode == 0


def test_the_nightly_command_is_one_that_there_is() -> None:
    command = msgspec.yaml.decode(VALUES, type=dict[str, Any])["nightly"]["command"]
    assert command[0] == "rerank-canary"
    context = main.make_context("rerank-canary", command[1:], resilient_parsing=False)
    assert command[1] in main.list_commands(context)
