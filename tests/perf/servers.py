"""The servers that are measured: how each is started, and what it uses of the machine. Linux only."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

import httpx

from tests.running import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CACHE = Path(__file__).parent / ".cache"
_TICKS = os.sysconf("SC_CLK_TCK")


def _free_ports() -> Iterator[int]:
    """Give ports that nobody listens on, none twice, and none that a client of others may be given meanwhile."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        try:
            socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        yield port


PORTS = _free_ports()


class Server:
    """One process with a port, and what it starts itself. It logs into a file."""

    def __init__(
        self, folder: Path, command: Sequence[str], port: int, *, env: Mapping[str, str] | None = None, ready: str = "/"
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port
        self.log = folder / "log"
        self._command = command
        self._ready = f"http://127.0.0.1:{port}{ready}"
        self._env = {"PATH": os.environ["PATH"], "HOME": str(folder), **(env or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def control_port(self) -> int:
        """The port of its control plane, where it is one of ours."""
        return int(self._env["RERANK_CANARY__SERVER__CONTROL_PORT"])

    @property
    def pid(self) -> int:
        """The process that was started."""
        assert self._process is not None
        return self._process.pid

    def start(self, *, timeout_seconds: float = 120, look_seconds: float = 0.02) -> float:
        """Start it, and return the seconds until it said that it is ready."""
        began = time.perf_counter()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        try:
            self._wait(began + timeout_seconds, look_seconds)
        except BaseException:
            self.stop()
            raise
        return time.perf_counter() - began

    def _wait(self, end: float, look_seconds: float) -> None:
        with httpx.Client(timeout=5) as client:
            while time.perf_counter() < end and self._process is not None and self._process.poll() is None:
                try:
                    if client.get(self._ready).is_success:
                        return
                except httpx.TransportError:
                    pass
                time.sleep(look_seconds)
        raise RuntimeError(f"{self._command[0]} did not come up:\n{self.log.read_text()[-3000:]}")

    def stop(self) -> None:
        """Tell it to end, and make it after a while."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def family(self) -> list[int]:
        """Return the pids of the process and all below it."""
        found = [self.pid]
        for pid in found:
            for thread in Path(f"/proc/{pid}/task").iterdir():
                found += map(int, (thread / "children").read_text().split())
        return found

    def cpu_seconds(self) -> float:
        """Return the CPU time that all of them took so far."""
        return sum(_cpu_ticks(pid) for pid in self.family()) / _TICKS

    def memory_mb(self, field: str = "VmRSS", pid: int | None = None) -> float:
        """Return *field* of /proc/PID/status, in MB of 10^6 bytes."""
        lines = Path(f"/proc/{pid or self.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) * 1024 / 1e6


def busy_seconds() -> float:
    """Return the CPU time that anything took so far, the time stolen from this machine included."""
    user, nice, system, _, _, irq, soft, steal = map(int, Path("/proc/stat").read_text(encoding="ascii").split()[1:9])
    return (user + nice + system + irq + soft + steal) / _TICKS


def _cpu_ticks(pid: int) -> int:
    after_name = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return int(after_name[11]) + int(after_name[12])


def stub(folder: Path) -> Server:
    """Return the reranking server that answers at once."""
    port = next(PORTS)
    return Server(folder, [sys.executable, "-m", "tests.perf.stub", "--port", str(port)], port)


def ours_in_process(folder: Path, *, env: Mapping[str, str] | None = None, venv: Path = ROOT / ".venv") -> Server:
    """Return our proxy with arms that answer at once."""
    env = _settings(folder) | dict(env or {})
    python = str(venv / "bin/python")
    return Server(
        folder, [python, "-m", "tests.perf.instant"], int(env["RERANK_CANARY__SERVER__PORT"]), env=env, ready="/readyz"
    )


def ours_remote(folder: Path, stub_port: int) -> Server:
    """Return our proxy as installed, both of its arms being the server on *stub_port*."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "rerank-canary.toml"
    file.write_text(
        f"""[backends.stub]
kind = "remote"
api = "cohere"
base_url = "http://127.0.0.1:{stub_port}"

[arms]
control = "stub"
candidate = "stub"
fallback = "stub"
""",
        encoding="utf-8",
    )
    return ours(folder, ["--config", str(file)])


def ours(
    folder: Path, options: Sequence[str] = (), *, env: Mapping[str, str] | None = None, venv: Path = ROOT / ".venv"
) -> Server:
    """Return our proxy as installed."""
    settings = _settings(folder) | dict(env or {})
    return Server(
        folder,
        [str(venv / "bin/rerank-canary"), "serve", *options],
        int(settings["RERANK_CANARY__SERVER__PORT"]),
        env=settings,
        ready="/readyz",
    )


def _settings(folder: Path) -> dict[str, str]:
    return {
        "RERANK_CANARY__SERVER__PORT": str(next(PORTS)),
        "RERANK_CANARY__SERVER__CONTROL_PORT": str(next(PORTS)),
        "RERANK_CANARY__SERVER__DRAIN_SECONDS": "0",
        "RERANK_CANARY__DATA_DIR": str(folder / "var"),
    }
