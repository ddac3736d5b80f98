"""Drives a client in its own environment, over a pipe."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec

from tests.running import ROOT

if TYPE_CHECKING:
    from tests.clients.ways import Way

ENVIRONMENTS = ROOT / "tests/parts/.cache/clients"
_DRIVERS = Path(__file__).parent / "drivers"
_STAY_HERE = {  # none of them may look beyond this machine
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LANGSMITH_TRACING": "false",
    "NO_PROXY": "*",
}


class Rank(msgspec.Struct, frozen=True):
    """One document in its place, as the client returned it."""

    index: int
    score: float
    document: Any = None


class ClientError(msgspec.Struct, frozen=True):
    """The exception that the client raised."""

    kinds: list[str]
    """Names of its class and of all that it derives from."""
    message: str
    body: Any = None


class Answer(msgspec.Struct, frozen=True):
    """What came of one call: one of the two."""

    ranks: list[Rank] | None = None
    error: ClientError | None = None


class Driver:
    """One client's process; it answers one call after the other."""

    def __init__(self, client: str, driver: str, home: Path) -> None:
        self._log = (home / f"{client}.log").open("wb")
        self._process = subprocess.Popen(
            [str(ENVIRONMENTS / client / "bin/python"), str(_DRIVERS / "run.py"), driver],
            env={"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONUTF8": "1", **_STAY_HERE},
            cwd=home,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # the driver's sign to end
        self._process.stdout.close()
        self._process.wait(30)
        self._log.close()

    def ask(self, way: Way, **asked: Any) -> Answer:
        """Make one call and return what came of it; raise with the client's log if its process ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"call": way.call, **asked}).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the driver ended:\n{Path(self._log.name).read_text(encoding='utf-8')[-3000:]}"
        return msgspec.json.decode(line, type=Answer)
