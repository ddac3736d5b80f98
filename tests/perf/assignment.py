"""How long an assignment takes: ``python -m tests.perf.assignment``."""

from __future__ import annotations

import gc
import json
import logging
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
import structlog

from flags.file_gate import FileGate
from flags.unleash import UnleashGate
from flags.vocabulary import FlagContext
from tests.perf.load import quantile
from tests.perf.machine import console, keep, table, this_machine

if TYPE_CHECKING:
    from flags.gate import Gate

_FLAG = "rerank-canary"
_CALLS = 20_000
_WARM_UP = 2_000
_USERS = 1_000
_CLIENTS = ["search", "assistant", "batch"]
_PARAMETERS = {"rollout": "25", "stickiness": "userId", "groupId": _FLAG}
_ROLLOUT = {"name": "flexibleRollout", "constraints": [], "parameters": _PARAMETERS}
_CONSTRAINT = {"contextName": "client", "operator": "IN", "values": ["search", "assistant"]}
_STATES: dict[str, list[dict[str, Any]]] = {
    "rollout": [_ROLLOUT],
    "rollout with a constraint": [{**_ROLLOUT, "constraints": [_CONSTRAINT]}],
    "rollout with a constraint, and 100 named users": [
        {"name": "userWithId", "parameters": {"userIds": ",".join(f"tester-{i}" for i in range(100))}},
        {**_ROLLOUT, "constraints": [_CONSTRAINT]},
    ],
}


class Figure(msgspec.Struct, frozen=True):
    """Microseconds a call."""

    gate: str
    strategies: str
    candidate_share: float
    median_us: float
    p99_us: float
    most_us: float


def _gates(file: Path, strategies: list[dict[str, Any]]) -> dict[str, Gate]:
    """Return both gates over one state. Neither follows anything: no server, no thread."""
    feature = {"name": _FLAG, "type": "release", "enabled": True, "strategies": strategies}
    file.write_text(json.dumps({"version": 2, "features": [feature]}), encoding="utf-8")
    from_file = FileGate(file, _FLAG)
    from_file.reload()
    unleash = UnleashGate(
        url="http://127.0.0.1:9/api", token="", flag=_FLAG, cache_file=file.with_suffix(".cache"), bootstrap=file
    )
    return {"FileGate": from_file, "UnleashGate": unleash}


def _measure(name: str, gate: Gate, strategies: str) -> Figure:
    contexts = [
        FlagContext(f"user-{i}", None, "127.0.0.1", {"client": _CLIENTS[i % len(_CLIENTS)]}) for i in range(_USERS)
    ]
    times, candidates = [], 0
    for number in range(_WARM_UP + _CALLS):
        context = contexts[number % _USERS]
        began = time.perf_counter_ns()
        assignment = gate.assign(context)
        times.append((time.perf_counter_ns() - began) / 1000)
        candidates += assignment.arm == "candidate"
    share = candidates / len(times)
    times = sorted(times[_WARM_UP:])
    return Figure(name, strategies, share, quantile(times, 0.5), quantile(times, 0.99), times[-1])


@click.command()
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the figures there.")
def main(file: Path | None) -> None:
    """Print the time of one assignment, by gate and by what the flag holds."""
    machine = this_machine()
    figures = []
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    gc.disable()
    with tempfile.TemporaryDirectory() as folder:
        for number, (words, strategies) in enumerate(_STATES.items()):
            gates = _gates(Path(folder) / f"{number}.json", strategies)
            figures += [_measure(name, gate, words) for name, gate in gates.items()]
    rows = [
        (
            f"{f.gate}: {f.strategies}",
            *(f"{us:.1f}" for us in (f.median_us, f.p99_us, f.most_us)),
            f"{f.candidate_share:.0%}",
        )
        for f in figures
    ]
    columns = ["assignment", "median us", "p99 us", "most us", "candidate"]
    console().print(table(f"Assignment, {_CALLS} calls each. Target: 50 us", columns, rows, str(machine)))
    keep(file, machine, assignment=figures)


if __name__ == "__main__":
    main()
