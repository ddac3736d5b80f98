"""How much feedback one process takes: ``python -m tests.perf.feedback``.

A proxy with arms that answer at once, held to one core; its store, and who calls, are on the others. First single
events over connections that are kept alive, the next one sent when the one before is answered, then batches. Each event
says something new: no other has the same ranking and document.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import httpx

from tests.perf.load import Connection
from tests.perf.machine import console, keep, table, this_machine
from tests.perf.servers import ours_in_process
from tests.perf.workload import DOCUMENTS, bodies

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.perf.servers import Server

_RANKINGS = 2000
_WARM_SECONDS = 2.0


def _requests(port: int, batch: int) -> Iterator[bytes]:
    """Yield requests that each say something new of *batch* rankings."""
    with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        answers = (client.post("/v2/rerank", content=body) for body in bodies(_RANKINGS))
        tokens = [answer.raise_for_status().headers["x-rerank-feedback"] for answer in answers]
    events = (
        {"request_id": token, kind: [place]}
        for kind in ("clicked", "cited", "voted", "voted_down")
        for place in range(DOCUMENTS)
        for token in tokens
    )
    while part := list(itertools.islice(events, batch)):
        body = json.dumps(part[0] if batch == 1 else {"events": part}).encode()
        head = f"POST /v1/feedback HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        yield head.encode() + b"\r\n\r\n" + body


def _measure(server: Server, batch: int, connections: int, seconds: float) -> tuple[float, float, float, int]:
    """Return events a second, events a second of the proxy's own CPU, the median ms of a call, and failures."""
    requests = _requests(server.port, batch)
    open_ones = [Connection(server.port) for _ in range(connections)]
    times: list[float] = []
    failed = 0
    began, cpu = 0.0, 0.0
    for each in open_ones:
        each.send(next(requests), time.perf_counter())
    started = time.perf_counter()
    while (now := time.perf_counter()) < started + _WARM_SECONDS + seconds:
        if not began and now > started + _WARM_SECONDS:
            began, cpu, failed = now, _own_cpu(server), 0
            times.clear()
        for each in select.select(open_ones, [], [], 1)[0]:
            if (status := each.receive()) is not None:
                times.append(time.perf_counter() - each.due)
                failed += status != 200
                each.send(next(requests), time.perf_counter())
    took, used = time.perf_counter() - began, _own_cpu(server) - cpu
    events = batch * len(times)
    return events / took, events / used, statistics.median(times) * 1000, failed


def _own_cpu(server: Server) -> float:
    return sum(map(float, Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()[11:13])) / os.sysconf(
        "SC_CLK_TCK"
    )


def _hold_apart(server: Server) -> None:
    """Give the proxy one core, and the others to its store and to this process."""
    first, *others = sorted(os.sched_getaffinity(0))
    for thread in Path(f"/proc/{server.pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {first})
    for pid in [*server.family()[1:], 0]:
        os.sched_setaffinity(pid, set(others) or {first})


@click.command()
@click.option("--seconds", default=8.0, show_default=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--connections", default=32, show_default=True)
@click.option("--batch", "batches", type=int, multiple=True, default=[1, 50], show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the figures there.")
def main(*, seconds: float, rounds: int, connections: int, batches: Sequence[int], file: Path | None) -> None:
    """Print events a second."""
    machine = this_machine()
    rows, figures = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for batch in batches:
            found = []
            for number in range(rounds):
                with ours_in_process(Path(folder) / f"{batch}-{number}") as server:
                    _hold_apart(server)
                    found.append(_measure(server, batch, connections if batch == 1 else 4, seconds))
            per_second, per_cpu, ms, _ = (statistics.median(column) for column in zip(*found, strict=True))
            failed = sum(each[3] for each in found)
            words = "single events" if batch == 1 else f"batches of {batch}"
            rows.append((words, f"{per_second:,.0f}", f"{per_cpu:,.0f}", f"{ms:.2f}", str(failed)))
            figures[words] = {"per_second": per_second, "per_cpu_second": per_cpu, "median_ms": ms, "failed": failed}
    columns = ("", "events/s on one core", "events a CPU second", "median ms a call", "failed")
    caption = f"{machine}\nmedians of {rounds} rounds of {seconds:g} s, {connections} connections for single events"
    console().print(table("Feedback", columns, rows, caption))
    keep(file, machine, figures=figures)


if __name__ == "__main__":
    main()
