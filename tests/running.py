"""Starts the proxy as its users do, as a process of its own, and asks it over real sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

from flags.bucketing import bucket

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

ROOT = Path(__file__).parents[1]
QUERY = "how do vaccines protect against a virus"
DOCUMENTS = [
    "The recipe takes two eggs, flour and a little milk.",
    "Vaccines protect against a virus by training the immune system to recognise it.",
    "Stock prices fell sharply on Tuesday.",
    "Antibodies made after vaccination bind to the virus and keep it out of cells.",
]


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def command_of(*, has_extras: bool) -> list[str]:
    """Return ``rerank-canary``, of the environment that `make install` made or of the tests' own."""
    if has_extras:  # by its module: the script there may be of another checkout
        return [str(ROOT / ".venv-test/bin/python"), "-m", "proxy.cli"]
    return [str(ROOT / ".venv/bin/rerank-canary")]


class Proxy:
    """One ``rerank-canary serve``, from the environment that `make install` made."""

    def __init__(
        self,
        folder: Path,
        env: Mapping[str, str] | None = None,
        *,
        config: str = "",
        host: str = "127.0.0.1",
        prefix: Sequence[str] = (),
        has_extras: bool = False,
    ) -> None:
        """Take *has_extras* to run it in the environment of the tests, which has the optional packages."""
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.port, self.control_port = free_port(), free_port()
        self.url = f"http://{host}:{self.port}"
        self.control_url = f"http://{host}:{self.control_port}"
        self.log = folder / "serve.log"
        (folder / "rerank-canary.toml").write_text(config, encoding="utf-8")
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "RERANK_CANARY__SERVER__HOST": host,
            "RERANK_CANARY__SERVER__CONTROL_HOST": host,
            "RERANK_CANARY__SERVER__PORT": str(self.port),
            "RERANK_CANARY__SERVER__CONTROL_PORT": str(self.control_port),
            "RERANK_CANARY__DATA_DIR": str(folder / "var"),
            "RERANK_CANARY__SERVER__DRAIN_SECONDS": "0",
            **({"PYTHONPATH": str(ROOT)} if has_extras else {}),
            **(env or {}),
        }
        self._command = command_of(has_extras=has_extras)
        self._prefix = prefix
        """Before the command: where it is to run."""
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, *, timeout_seconds: float = 60) -> None:
        """Start it and wait until it is ready; raise with its log if it ends before."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*self._prefix, *self._command, "serve"],
                cwd=self.folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        end = time.monotonic() + timeout_seconds
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise AssertionError(f"serve ended with {self.process.returncode}:\n{self.log.read_text()[-3000:]}")
            try:
                if all(httpx.get(f"{url}/readyz").is_success for url in (self.url, self.control_url)):
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        self.stop()
        raise AssertionError(f"serve was not ready in time:\n{self.log.read_text()[-3000:]}")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)

    def rerank(
        self,
        query: str = QUERY,
        documents: list[Any] | None = None,
        *,
        path: str = "/v1/rerank",
        headers: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> httpx.Response:
        """Ask for one ranking."""
        body = {"query": query, "documents": DOCUMENTS if documents is None else documents, **fields}
        return httpx.post(self.url + path, json=body, headers=dict(headers or {}), timeout=60)

    def control(self, path: str) -> httpx.Response:
        """Ask the control plane, with the token of the data directory."""
        file = self.folder / "var/control.token"
        token = file.read_text().strip() if file.exists() else "adam-key"  # of a fleet
        return httpx.get(self.control_url + path, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of one event."""
        lines = [line for line in self.log.read_text().splitlines() if line.startswith("{")]
        return [found for found in map(json.loads, lines) if found.get("event") == event]


def user_of(arm: str, share_percent: int = 5, group_id: str = "rerank-canary") -> str:
    """Return a user id that the split gives to *arm*."""
    return next(
        user
        for user in map("user-{}".format, range(10_000))
        if (bucket(group_id, user) <= share_percent) == (arm == "candidate")
    )
