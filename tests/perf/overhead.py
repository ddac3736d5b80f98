"""What a proxy adds to a call, ours and LiteLLM's side by side: ``python -m tests.perf.overhead``.

Every round asks each in turn, in the same minutes and by the same generator: the stub itself, our proxy
with arms in its process, our proxy in front of the stub, LiteLLM's proxy in front of the stub. The time of
the first is taken off those that pass calls on to it; with arms in the process the whole time is ours.
Figures are medians over the rounds. Generator, stub and proxies share the machine, as they do everywhere.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from tests.perf import litellm_proxy
from tests.perf.load import Timed
from tests.perf.machine import console, keep, table, this_machine
from tests.perf.servers import Server, busy_seconds, ours_in_process, ours_remote, stub

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.table import Table

_SETTLED = 0.02
"""Share of a core below which a server counts as idle again."""
_TAKES = 3
"""How often a window is taken at most until the rest of the machine keeps quiet."""


class Target(msgspec.Struct, frozen=True):
    """Something to call."""

    name: str
    server: Server
    path: str
    passes_on: bool = True
    """Whether the stub's own time is part of its answers."""


class Window(msgspec.Struct, frozen=True):
    """One target's part of a round."""

    target: str
    rate: float
    timed: Timed
    cpu_ms: float
    """CPU milliseconds a call, of the server and what it started."""
    others_share: float
    """Share of the machine that processes took which are no part of this."""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One row: medians over the rounds, milliseconds."""

    target: str
    rate: float
    p50_ms: float
    p99_ms: float
    own_p50_ms: float
    """The target's own part."""
    own_p99_ms: float
    per_second: float
    failed_share: float
    cpu_ms: float

    @property
    def keeps_up(self) -> bool:
        """Whether it answered as fast as it was asked; if not, its times only say how long it was asked."""
        return self.per_second > 0.95 * self.rate and self.failed_share < 0.01


def quiet_window(targets: Sequence[Target], target: Target, rate: float, seconds: float, others: float) -> Window:
    """Take a window again, a few times, while other processes take more than *others* of the machine."""
    taken: list[Window] = []
    while not taken or (taken[-1].others_share > others and len(taken) < _TAKES):
        taken.append(measure(targets, target, rate, seconds))
    return min(taken, key=lambda window: window.others_share)


def measure(targets: Sequence[Target], target: Target, rate: float, seconds: float) -> Window:
    """Load one target for a while, and leave it idle."""
    server = target.server
    command = [sys.executable, "-m", "tests.perf.load", "--port", str(server.port), "--path", target.path]
    servers = {each.server.pid: each.server for each in targets}.values()
    server_before, ours_before, all_before = server.cpu_seconds(), _ours(servers), busy_seconds()
    told = subprocess.run([*command, "--rate", str(rate), "--seconds", str(seconds)], check=True, capture_output=True)
    timed = msgspec.convert(json.loads(told.stdout), Timed)
    others = max(0.0, (busy_seconds() - all_before) - (_ours(servers) - ours_before))
    _settle(server)
    cpu_ms = (server.cpu_seconds() - server_before) / timed.sent * 1000
    return Window(target.name, rate, timed, cpu_ms, others / (timed.seconds * len(os.sched_getaffinity(0))))


def _ours(servers: Iterable[Server]) -> float:
    """Return the CPU seconds of all servers and of the generators that are over."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime + sum(server.cpu_seconds() for server in servers)


def _settle(server: Server, look_seconds: float = 0.5, most_seconds: float = 60) -> None:
    """Wait until a server has worked off what the load left behind."""
    end = time.monotonic() + most_seconds
    while time.monotonic() < end:
        before = server.cpu_seconds()
        time.sleep(look_seconds)
        if server.cpu_seconds() - before <= max(0.01, _SETTLED * look_seconds):
            return


def figures(targets: Sequence[Target], windows: Sequence[Window], rate: float) -> list[Figure]:
    """Return the medians; the first target is the one that the others pass calls on to."""
    found: list[Figure] = []
    for target in targets:
        mine = [window for window in windows if window.target == target.name and window.rate == rate]
        timed = [window.timed for window in mine]
        p50, p99 = (statistics.median(times) for times in ([t.p50_ms for t in timed], [t.p99_ms for t in timed]))
        base = (found[0].p50_ms, found[0].p99_ms) if found and target.passes_on else (0.0, 0.0)
        sent = sum(t.sent for t in timed)
        found.append(
            Figure(
                target=target.name,
                rate=rate,
                p50_ms=p50,
                p99_ms=p99,
                own_p50_ms=p50 - base[0],
                own_p99_ms=p99 - base[1],
                per_second=statistics.median(t.per_second for t in timed),
                failed_share=1 - sum(t.answered - t.failed for t in timed) / sent,
                cpu_ms=statistics.median(window.cpu_ms for window in mine),
            )
        )
    return found


def _table(found: Sequence[Figure], caption: str) -> Table:
    """Return one rate's table; the last row is LiteLLM, the measure of ours."""
    measure_of = found[-1]
    rows = []
    for row in found:
        ratios = (row.own_p50_ms / measure_of.own_p50_ms, row.own_p99_ms / measure_of.own_p99_ms)
        is_measured = row not in {found[0], measure_of}
        rows.append(
            (
                row.target,
                *(f"{ms:.2f}" for ms in (row.p50_ms, row.p99_ms, row.own_p50_ms, row.own_p99_ms)),
                *(f"{ratio:.3f}" if is_measured else "" for ratio in ratios),
                f"{row.cpu_ms:.2f}",
                f"{row.per_second:.0f}" + ("" if row.keeps_up else " (!)"),
                f"{row.failed_share:.1%}",
            )
        )
    columns = ["ms", "p50", "p99", "own p50", "own p99", "of LiteLLM p50", "p99", "CPU a call", "answered/s", "failed"]
    return table(f"Overhead at {found[0].rate:g} calls/s, 25 documents of 1 kB", columns, rows, caption)


def _targets(stack: ExitStack, folder: Path) -> list[Target]:
    """Start everything; what is first is called directly, what is last is what ours is compared with."""
    direct = stack.enter_context(stub(folder / "stub"))
    inside = stack.enter_context(ours_in_process(folder / "inside"))
    remote = stack.enter_context(ours_remote(folder / "remote", direct.port))
    other = stack.enter_context(litellm_proxy.litellm(folder / "litellm", direct.port))
    return [
        Target("stub, called directly", direct, "/v2/rerank", passes_on=False),
        Target("ours, arms in process", inside, "/v2/rerank", passes_on=False),
        Target("  sending documents back", inside, "/v1/rerank", passes_on=False),
        Target("ours, stub as both arms", remote, "/v2/rerank"),
        Target(f"LiteLLM {litellm_proxy.version()}, stub", other, "/v2/rerank"),
    ]


@click.command()
@click.option("--rate", "rates", type=float, multiple=True, default=[200.0, 50.0], show_default=True)
@click.option("--seconds", default=4.0, show_default=True, help="Length of one target's part of a round.")
@click.option("--rounds", default=5, show_default=True)
@click.option("--warm-up", default=5.0, show_default=True, help="Seconds of calls to each before the first round.")
@click.option(
    "--others", default=0.05, show_default=True, help="Share of the machine that other processes may take in a window."
)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the figures there.")
def main(rates: Sequence[float], seconds: float, rounds: int, warm_up: float, others: float, file: Path | None) -> None:
    """Print one table a rate: milliseconds from the moment that a call was due, and what is each proxy's own."""
    out = console()
    litellm_proxy.install(out)
    machine = this_machine()
    windows: list[Window] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        targets = _targets(stack, Path(folder))
        for target in targets:
            measure(targets, target, min(rates), warm_up)
        for rate in rates:
            for _ in range(rounds):
                windows += [quiet_window(targets, target, rate, seconds, others) for target in targets]
    found = {rate: figures(targets, windows, rate) for rate in rates}
    for rate in rates:
        taken = statistics.median(window.others_share for window in windows if window.rate == rate)
        words = (
            f"{machine}\nmedians of {rounds} rounds of {seconds:g} s; other processes took {taken:.0%} of the machine"
        )
        if not all(row.keeps_up for row in found[rate]):
            words += "\n(!) did not keep up: calls queued or failed, its times grow with the length of the round"
        out.print(_table(found[rate], words))
    keep(file, machine, figures=[row for rows in found.values() for row in rows], windows=windows)


if __name__ == "__main__":
    main()
