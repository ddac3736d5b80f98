"""A real Alertmanager on loopback, which passes what it is told on to a webhook."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from typing import TYPE_CHECKING, Any, Self

import httpx

from tests.parts.programs import Program
from tests.running import free_port

if TYPE_CHECKING:
    from pathlib import Path

_QUICK = {"group_wait": "100ms", "group_interval": "200ms", "repeat_interval": "1h"}
"""So that a page comes out at once, and what comes out again is a fault."""


def is_alertmanager_here() -> bool:
    return all(shutil.which(name) for name in ("prometheus-alertmanager", "amtool"))


class Alertmanager:
    """One that groups by all labels, so that each identity comes out on its own."""

    def __init__(self, folder: Path, webhook_url: str, *, resolve_timeout: str = "5m", host: str = "127.0.0.1") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "alertmanager.yml"
        self.config.write_text(
            json.dumps(  # which is YAML too
                {
                    "global": {"resolve_timeout": resolve_timeout},
                    "route": {"receiver": "on-call", "group_by": ["..."], **_QUICK},
                    "receivers": [
                        {"name": "on-call", "webhook_configs": [{"url": webhook_url, "send_resolved": True}]}
                    ],
                }
            ),
            encoding="utf-8",
        )
        port = free_port()
        self.url = f"http://{host}:{port}"
        arguments = {
            "config.file": str(self.config),
            "storage.path": str(folder / "data"),
            "web.listen-address": f"{host}:{port}",
            "cluster.listen-address": "",
        }
        command = [f"--{name}={value}" for name, value in arguments.items()]
        self.program = Program(["prometheus-alertmanager", *command], log=folder / "alertmanager.log")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.program.stop()

    def start(self) -> None:
        self.program.start()
        self.program.wait_until(self._is_ready)

    def alerts(self) -> list[dict[str, Any]]:
        """Return the alerts that last, as it sees them."""
        found: list[dict[str, Any]] = httpx.get(f"{self.url}/api/v2/alerts").raise_for_status().json()
        return found

    def check_config(self) -> str:
        """Return what amtool says of the configuration; raise where it is wrong."""
        command = ["amtool", "check-config", str(self.config)]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def _is_ready(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/-/ready").is_success
        return False
