"""A real Prometheus on loopback, which scrapes proxies and alerts by the rules of the chart."""

from __future__ import annotations

import contextlib
import json
import shutil
from typing import TYPE_CHECKING, Any, Self

import httpx

from tests.parts.programs import Program
from tests.running import ROOT, free_port

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

RULES = ROOT / "helm/rerank-canary/files/prometheus-rules.yaml"


def is_prometheus_here() -> bool:
    return shutil.which("prometheus") is not None


class Prometheus:
    """Scrapes once a second and tells an Alertmanager."""

    def __init__(self, folder: Path, targets: Sequence[str], alertmanager_url: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "prometheus.yml"
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        config.write_text(
            json.dumps(  # which is YAML too
                {
                    "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
                    "rule_files": [str(RULES)],
                    "scrape_configs": [{"job_name": "rerank-canary", "static_configs": [{"targets": list(targets)}]}],
                    "alerting": {
                        "alertmanagers": [{"static_configs": [{"targets": [alertmanager_url.removeprefix("http://")]}]}]
                    },
                }
            ),
            encoding="utf-8",
        )
        arguments = {
            "config.file": str(config),
            "storage.tsdb.path": str(folder / "data"),
            "web.listen-address": f"127.0.0.1:{port}",
        }
        command = [f"--{name}={value}" for name, value in arguments.items()]
        self.program = Program(["prometheus", *command], log=folder / "prometheus.log")

    def __enter__(self) -> Self:
        self.program.start()
        self.program.wait_until(self._is_ready)
        return self

    def __exit__(self, *_: object) -> None:
        self.program.stop()

    def ask(self, query: str) -> list[dict[str, Any]]:
        """Return the series of an instant query."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": query}).raise_for_status().json()
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        return {each["metric"]["alertname"] for each in self.ask('ALERTS{alertstate="firing"}')}

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/-/ready").is_success
        return False
