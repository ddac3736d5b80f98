"""What one replica ranks by its own model, and what it asks of Redis: ``python -m tests.perf.capacity``.

A closed loop of callers who ask again as soon as they are answered; every user has the candidate, and no score is
remembered, so that the model ranks every document of every call. The figures behind the chart's sizing page.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import click
import httpx
import msgspec

from tests.parts.redis_server import RedisServer
from tests.perf.load import quantile
from tests.perf.machine import console, keep, table, this_machine
from tests.perf.servers import ours
from tests.perf.workload import bodies
from tests.running import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

    from tests.perf.servers import Server

_SAMPLE = ROOT / "proxy/offline/sample/passages.jsonl"
_DOCUMENTS = 25


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one window."""

    documents: str
    callers: int
    per_second: float
    p50_ms: float
    p95_ms: float
    cpu_seconds_a_query: float
    """Of all processes of the proxy."""
    resident_mb: float
    redis_calls_a_second: float
    redis_kb_a_second: float
    redis_used_mb: float


def passages(count: int) -> list[bytes]:
    """Return calls of 25 passages of the sample collection each, about 330 bytes a passage."""
    texts = [json.loads(line)["text"] for line in _SAMPLE.read_text(encoding="utf-8").splitlines()]
    turn = itertools.cycle(texts)
    return [
        json.dumps({"query": next(turn)[:60], "documents": list(itertools.islice(turn, _DOCUMENTS))}).encode()
        for _ in range(count)
    ]


def measure(
    server: Server, store: redis.Redis, name: str, calls: list[bytes], callers: int, seconds: float
) -> Capacity:
    """Ask for *seconds*, by so many callers."""
    turn: Iterator[bytes] = itertools.cycle(calls)
    lock, times = threading.Lock(), []
    end = time.perf_counter() + seconds

    def call(number: int) -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=120) as client:
            while time.perf_counter() < end:
                with lock:
                    body = next(turn)
                began = time.perf_counter()
                client.post("/v1/rerank", content=body, headers={"x-user-id": f"user-{number}"}).raise_for_status()
                times.append(time.perf_counter() - began)

    before, cpu, began = store.info(), server.cpu_seconds(), time.perf_counter()
    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(call, range(callers)))
    took, after = time.perf_counter() - began, store.info()

    def grown(field: str) -> float:
        return float(after[field] - before[field]) / took

    return Capacity(
        documents=name,
        callers=callers,
        per_second=len(times) / took,
        p50_ms=statistics.median(times) * 1000,
        p95_ms=quantile(sorted(times), 0.95) * 1000,
        cpu_seconds_a_query=(server.cpu_seconds() - cpu) / len(times),
        resident_mb=server.memory_mb(),
        redis_calls_a_second=grown("total_reads_processed"),
        redis_kb_a_second=(grown("total_net_input_bytes") + grown("total_net_output_bytes")) / 1000,
        redis_used_mb=after["used_memory"] / 1e6,
    )


@click.command()
@click.option("--seconds", default=15.0, show_default=True, help="Of each window.")
@click.option("--callers", default=[1, 8], multiple=True, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the figures there.")
def main(seconds: float, callers: tuple[int, ...], file: Path | None) -> None:
    """Print a table."""
    machine, found = this_machine(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with RedisServer(folder / "redis") as redis, redis.client() as store:
            env = {
                "REDIS_URL": redis.url,
                "RERANK_CANARY__FLAG__INITIAL_SHARE_PERCENT": "100",
                "RERANK_CANARY__GUARD__IS_ON": "false",
                "RERANK_CANARY__BACKENDS__CROSS_ENCODER__KIND": "cross-encoder",
                "RERANK_CANARY__BACKENDS__CROSS_ENCODER__CACHE_ENTRIES": "0",
                "LLM_FALLBACK_THRESHOLD": "0.0006",
                "RERANK_CANARY__DEADLINE__TOTAL_SECONDS": "120",
                "RERANK_CANARY__DEADLINE__CANDIDATE_SECONDS": "100",
            }
            with ours(folder / "proxy", env=env) as server:
                for kind, calls in (("of 330 bytes", passages(200)), ("of 1 kB", bodies(200))):
                    measure(server, store, kind, calls, 1, 2.0)  # warm
                    found += [measure(server, store, kind, calls, count, seconds) for count in callers]
    names = ("25 documents", "callers", "queries/s", "p50 ms", "p95 ms", "CPU s a query", "resident MB")
    rows = [
        (
            each.documents,
            str(each.callers),
            f"{each.per_second:.1f}",
            f"{each.p50_ms:.0f}",
            f"{each.p95_ms:.0f}",
            f"{each.cpu_seconds_a_query:.3f}",
            f"{math.ceil(each.resident_mb)}",
            f"{each.redis_calls_a_second:.1f}",
            f"{each.redis_kb_a_second:.1f}",
            f"{each.redis_used_mb:.1f}",
        )
        for each in found
    ]
    columns = (*names, "Redis reads/s", "Redis kB/s", "Redis MB")
    console().print(table("one replica, the shipped model", columns, rows, str(machine)))
    keep(file, machine, capacity=found)


if __name__ == "__main__":
    main()
