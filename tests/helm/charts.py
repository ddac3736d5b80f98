"""The chart, rendered by the helms that tests/parts/30-kubernetes.sh brings, and what else it brings."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from typing import TYPE_CHECKING, Any

import msgspec

from tests.conftest import require_part
from tests.running import ROOT

if TYPE_CHECKING:
    from collections.abc import Mapping

CHART = ROOT / "helm/rerank-canary"
EXAMPLES = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
HELMS = ("helm3", "helm4")
_KUBERNETES = ROOT / "tests/parts/.cache/kubernetes"

Manifest = dict[str, Any]
Done = subprocess.CompletedProcess[str]


def tool(name: str) -> str:
    """Return the path of a checker."""
    path = _KUBERNETES / "tools/bin" / name
    require_part(name, found=path.is_file())
    return str(path)


def helm(which: str, *arguments: str, env: Mapping[str, str] | None = None) -> Done:
    """Run helm 3 or 4, without anybody's own settings."""
    path = _KUBERNETES / which / "helm"
    require_part(which, found=path.is_file())
    with tempfile.TemporaryDirectory(prefix="rerank-canary-helm-") as home:
        return subprocess.run(
            [str(path), *arguments],
            cwd=CHART,
            env={"PATH": os.environ["PATH"], "HOME": home, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


def template(values: Mapping[str, object] | str, which: str = "helm4", *options: str) -> Done:
    """Render an example of ci/ by its name, or other values."""
    place = ("--namespace", "search")
    if isinstance(values, str):
        return helm(which, "template", "rc", ".", *place, "--values", f"ci/{values}-values.yaml", *options)
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(msgspec.json.encode(values))  # which is YAML too
        file.flush()
        return helm(which, "template", "rc", ".", *place, "--values", file.name, *options)


def rendered(values: Mapping[str, object] | str, which: str = "helm4", *options: str) -> list[Manifest]:
    """Return what would be installed."""
    done = template(values, which, *options)
    assert done.returncode == 0, done.stderr
    return manifests(done.stdout)


def manifests(text: str) -> list[Manifest]:
    """Return the documents of a YAML stream."""
    found = (msgspec.yaml.decode(part) for part in re.split(r"^---\n", text, flags=re.MULTILINE))
    return [each for each in found if each]


def one(found: list[Manifest], kind: str, end_of_name: str = "") -> Manifest:
    """Return the one manifest of a kind whose name ends so."""
    [only] = [each for each in found if each["kind"] == kind and each["metadata"]["name"].endswith(end_of_name)]
    return only


def kinds(found: list[Manifest]) -> list[str]:
    return sorted(each["kind"] for each in found)


def pods(found: list[Manifest]) -> dict[str, Manifest]:
    """Return the spec of every pod that there would be, by what makes it."""
    specs = {}
    for each in found:
        spec = each.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        spec = spec if each["kind"] == "Pod" else spec.get("template", {}).get("spec")
        if spec:
            specs[f"{each['kind']}/{each['metadata']['name']}"] = spec
    return specs


def refusal(values: Mapping[str, object], which: str = "helm4") -> str:
    """Return why the chart does not take *values*."""
    done = template(values, which)
    assert done.returncode != 0, done.stdout
    return done.stderr
