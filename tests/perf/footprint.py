"""What an installation takes: ``python -m tests.perf.footprint``. Disk, seconds to ready, memory."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click
import httpx
import msgspec

from tests.perf.machine import console, keep, table, this_machine
from tests.perf.servers import CACHE, ours
from tests.perf.workload import bodies
from tests.running import ROOT

if TYPE_CHECKING:
    from tests.perf.servers import Server

_STARTS = 5
_CALLS = 200
_PACKAGES = 12
_EVERYBODY = {"RERANK_CANARY__FLAG__INITIAL_SHARE_PERCENT": "100"}


class Disk(msgspec.Struct, frozen=True):
    """MB of 10^6 bytes."""

    installed_mb: float
    started_mb: float
    """With the bytecode that the first start writes."""
    packages_mb: dict[str, float]
    sources_mb: float
    """proxy, flags and alerts, the shipped model among them: beside the environment here, in it from a wheel."""


class Starts(msgspec.Struct, frozen=True):
    """Seconds from the start of the process to a 200 from /readyz."""

    first: float
    """The first after the installation, which writes bytecode."""
    fresh: list[float]
    """With a new data directory."""
    again: list[float]
    """With the data directory of an earlier start."""


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """MB of 10^6 bytes: the proxy's, and with the store that it starts."""

    ready_mb: float
    ready_all_mb: float
    after_mb: float
    after_all_mb: float
    most_mb: float
    """VmHWM of the proxy at the end."""
    by_candidate: int
    """How many of the calls the candidate answered."""
    seconds_a_call: float


def install() -> Path:
    """Run `make install` into an empty environment, as a user would, and return that."""
    venv = CACHE / "base"
    shutil.rmtree(venv, ignore_errors=True)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(["make", "--silent", "install", f"VENV={venv}"], cwd=ROOT, env=env, check=True)
    return venv


def used_mb(folder: Path) -> float:
    """Return what `du` says: whole blocks, each file once."""
    seen = {(found.st_dev, found.st_ino): found.st_blocks for found in map(os.lstat, _all(folder))}
    return sum(seen.values()) * 512 / 1e6


def _all(folder: Path) -> list[Path]:
    return [folder, *folder.rglob("*")]


def packages_mb(venv: Path) -> dict[str, float]:
    """Return the largest entries of site-packages, a package's separate libraries with it."""
    sizes: Counter[str] = Counter()
    for entry in next(venv.glob("lib/python*/site-packages")).iterdir():
        sizes[entry.name.removesuffix(".libs")] += round(used_mb(entry) * 1e6)
    return {name: size / 1e6 for name, size in sizes.most_common(_PACKAGES)}


def starts(venv: Path, folder: Path) -> Starts:
    """Start it again and again."""
    with_new = [_start(ours(folder / str(number), venv=venv)) for number in range(_STARTS + 1)]
    with_old = [_start(ours(folder / "0", venv=venv)) for _ in range(_STARTS)]
    return Starts(with_new[0], with_new[1:], with_old)


def _start(server: Server) -> float:
    seconds = server.start(look_seconds=0.01)
    server.stop()
    return seconds


def memory(venv: Path, folder: Path) -> Memory:
    """Return the memory when ready, and after calls that the shipped model answers."""
    with ours(folder, env=_EVERYBODY, venv=venv) as server, httpx.Client(timeout=60) as client:
        ready = server.memory_mb(), _family_mb(server)
        by_candidate = 0
        began = time.perf_counter()
        for body in bodies(_CALLS):
            answer = client.post(f"http://127.0.0.1:{server.port}/v2/rerank", content=body).raise_for_status()
            by_candidate += answer.headers["x-rerank-served-by"] == "candidate"
        return Memory(
            ready_mb=ready[0],
            ready_all_mb=ready[1],
            after_mb=server.memory_mb(),
            after_all_mb=_family_mb(server),
            most_mb=server.memory_mb("VmHWM"),
            by_candidate=by_candidate,
            seconds_a_call=(time.perf_counter() - began) / _CALLS,
        )


def _family_mb(server: Server) -> float:
    return sum(server.memory_mb(pid=pid) for pid in server.family())


@click.command()
@click.option("--venv", type=click.Path(path_type=Path), help="Measure this environment instead of a new one.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the figures there.")
def main(venv: Path | None, file: Path | None) -> None:
    """Print disk, seconds to ready and memory of a new installation."""
    machine = this_machine()
    venv = venv.absolute() if venv else install()
    installed = used_mb(venv)
    with tempfile.TemporaryDirectory() as name:
        started = starts(venv, Path(name) / "starts")
        remembered = memory(venv, Path(name) / "memory")
    sources = sum(used_mb(ROOT / part) for part in ("proxy", "flags", "alerts"))
    disk = Disk(installed, used_mb(venv), packages_mb(venv), sources)
    rows = [
        ("disk, MB: after make install", f"{disk.installed_mb:.0f}", ""),
        ("disk, MB: after the first start", f"{disk.started_mb:.0f}", "400"),
        *((f"    {package}", f"{size:.0f}", "") for package, size in disk.packages_mb.items()),
        ("  beside it: proxy, flags, alerts and the model", f"{disk.sources_mb:.0f}", ""),
        ("seconds to ready: first start ever", f"{started.first:.2f}", "5"),
        ("seconds to ready: new data directory", f"{statistics.median(started.fresh):.2f}", "5"),
        ("seconds to ready: existing data directory", f"{statistics.median(started.again):.2f}", "5"),
        ("memory, MB: when ready", f"{remembered.ready_mb:.0f}", "500"),
        ("memory, MB: with its store", f"{remembered.ready_all_mb:.0f}", "500"),
        (f"memory, MB: after {_CALLS} calls", f"{remembered.after_mb:.0f}", "500"),
        ("memory, MB: with its store", f"{remembered.after_all_mb:.0f}", "500"),
        ("memory, MB: at most", f"{remembered.most_mb:.0f}", "500"),
    ]
    words = (
        f"{machine}\nstarts: medians of {_STARTS}; calls: 25 documents of 1 kB, {remembered.by_candidate} of {_CALLS} "
        f"answered by the shipped model, {remembered.seconds_a_call:.2f} s each; MB of 10^6 bytes"
    )
    console().print(table("Footprint of the base install", ["", "is", "at most"], rows, words))
    keep(file, machine, disk=disk, starts=started, memory=remembered)


if __name__ == "__main__":
    main()
