"""Install, upgrade, rollback and uninstall by helm 3 and 4, against an API server.

It is an emulated one (kmock): it checks nothing, and merges patches as plain JSON, so that of a list only the part that
changed is there afterwards. Hooks are left out, for nobody runs their pods; releases are kept in a PostgreSQL.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.conftest import require_part
from tests.helm.charts import HELMS, Manifest, helm, tool
from tests.parts.programs import Program
from tests.parts.unleash import Postgres, is_postgres_here
from tests.running import ROOT, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.helm.charts import Done

NAME = "rc-rerank-canary"
MANY = ("--values", "ci/cpu-values.yaml")


class Cluster:
    """What helm talks to, and what it left there."""

    def __init__(self, url: str, which: str, env: dict[str, str]) -> None:
        self._url = url
        self._which = which
        self._env = env

    def run(self, *arguments: str) -> Done:
        return helm(self._which, *arguments, "--namespace", "search", env=self._env)

    def change(self, *arguments: str) -> None:
        """Install, upgrade or roll back."""
        only_client = ("--server-side=false",) if self._which == "helm4" else ()
        unchecked = () if arguments[0] == "rollback" else ("--disable-openapi-validation",)
        done = self.run(*arguments, "--no-hooks", *unchecked, *only_client)
        assert done.returncode == 0, done.stderr

    def kept(self) -> dict[tuple[str, str], Manifest]:
        """Return what there is, by kind and name."""
        found = httpx.get(f"{self._url}/kept").raise_for_status().json()
        return {(each["kind"], each["metadata"]["name"]): each for each in found}

    def pod(self) -> tuple[str, str]:
        """Return the image of the pods that serve, and the checksum of their settings."""
        found: dict[str, Any] = self.kept()["Deployment", NAME]["spec"]["template"]
        return found["spec"]["containers"][0]["image"], found["metadata"]["annotations"]["checksum/config"]

    def toml(self) -> str:
        found: str = self.kept()["ConfigMap", NAME]["data"]["rerank-canary.toml"]
        return found

    def revisions(self) -> list[str]:
        done = self.run("history", "rc", "--max", "20")
        assert done.returncode == 0, done.stderr
        return [line.split("\t")[2].strip() for line in done.stdout.splitlines()[1:]]


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    require_part("PostgreSQL", found=is_postgres_here())
    with Postgres() as started:
        yield f"{started.url}?sslmode=disable"


@pytest.fixture(params=HELMS)
def cluster(request: pytest.FixtureRequest, database: str, tmp_path: Path) -> Iterator[Cluster]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    tool("kmock")
    api = Program([tool("python"), str(ROOT / "tests/helm/kubernetes_api.py"), str(port)], log=tmp_path / "api.log")
    env = {"HELM_KUBEAPISERVER": url, "HELM_DRIVER": "sql", "HELM_DRIVER_SQL_CONNECTION_STRING": database}

    def is_up() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{url}/kept").is_success
        return False

    with api:
        api.wait_until(is_up)
        made = Cluster(url, request.param, env)
        yield made
        made.run("uninstall", "rc", "--no-hooks", "--ignore-not-found")


def test_a_release_is_installed_upgraded_rolled_back_and_uninstalled(cluster: Cluster) -> None:
    cluster.change("install", "rc", ".", *MANY)
    first, first_toml = cluster.pod(), cluster.toml()

    config = "[ramp]\nauto_advance = true"
    cluster.change("upgrade", "rc", ".", *MANY, "--set", "image.tag=0.2.0", "--set-string", f"config={config}")
    image, checksum = cluster.pod()
    assert image.endswith(":0.2.0")
    assert checksum != first[1]
    assert cluster.toml().strip() == config

    cluster.change("rollback", "rc", "1")
    assert (cluster.pod(), cluster.toml()) == (first, first_toml)
    assert cluster.revisions() == ["superseded", "superseded", "deployed"]

    done = cluster.run("uninstall", "rc", "--no-hooks")
    assert done.returncode == 0, done.stderr
    assert cluster.kept() == {}


def test_an_upgrade_that_is_refused_changes_nothing(cluster: Cluster) -> None:
    cluster.change("install", "rc", ".")
    before = cluster.kept()
    done = cluster.run("upgrade", "rc", ".", "--set", "replicas=2")
    assert done.returncode != 0
    assert "without Redis" in done.stderr
    assert cluster.kept() == before
    assert cluster.revisions() == ["deployed"]


def test_what_a_pod_kept_outlives_its_release(cluster: Cluster) -> None:
    cluster.change("install", "rc", ".")
    cluster.run("uninstall", "rc", "--no-hooks")
    assert list(cluster.kept()) == [("PersistentVolumeClaim", NAME)]
    cluster.change("install", "rc", ".")  # and is taken again
    assert ("Deployment", NAME) in cluster.kept()


def test_a_new_version_says_nothing_of_the_share(cluster: Cluster) -> None:
    """No manifest says the split; the Job that makes a flag leaves one that is there (test_cluster_commands.py)."""
    cluster.change("install", "rc", ".", "--values", "ci/full-values.yaml")
    before = cluster.kept()
    cluster.change("upgrade", "rc", ".", "--values", "ci/full-values.yaml", "--set", "image.tag=0.2.0")
    after = cluster.kept()
    changed = {key for key in after if after[key] != before[key]}
    assert {kind for kind, _ in changed} == {"Deployment", "CronJob"}
    assert not any(word in str(each) for each in after.values() for word in ("SHARE_PERCENT", "initial_share_percent"))
