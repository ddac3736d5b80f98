"""What the dashboard costs: ``python -m tests.perf.dashboard [--seconds 30] [--watchers 20]``.

First paint in Chromium after signing in, the size of the page, 31 days of history, and what open dashboards cost the
proxy: its CPU time, and the latency of the requests that it serves meanwhile, in turns with and without them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import msgspec

from alerts.trend import ArmPoint, Mean, Point
from proxy.dashboard.tiers import TIERS, keys_of
from tests.parts.browser import DESKTOP, Browser
from tests.parts.callers import QUICK
from tests.parts.dashboard import Visitor
from tests.parts.redis_server import RedisServer
from tests.perf.machine import console, keep, table, this_machine
from tests.running import Proxy

_PAINTS = 7
_PAINT = "performance.getEntriesByName('first-contentful-paint')"
_TURNS = 3
_RATE = 50.0
_THREADS = 4


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each turn")
    parser.add_argument("--watchers", type=int, default=20)
    parser.add_argument("--keep", type=Path, help="write the figures there, as JSON")
    arguments = parser.parse_args()
    machine = this_machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with RedisServer(folder / "redis") as redis:
            env = QUICK | {"REDIS_URL": redis.url, "RERANK_CANARY__GUARD__IS_ON": "true"}
            env["RERANK_CANARY__GUARD__GUARDRAILS"] = json.dumps([{"name": "p95_relative", "is_on": False}])
            _fill(redis)
            with Proxy(folder / "proxy", env) as proxy:
                token = (folder / "proxy/var/control.token").read_text().strip()
                pages = _pages(proxy, token)
                turns = _turns(proxy, token, arguments.watchers, arguments.seconds)
    console().print(table("pages", ("page", "first paint, ms", "server, ms", "kB"), pages, caption=str(machine)))
    columns = ("open dashboards", "CPU of a core, %", "p50, ms", "p95, ms", "requests")
    caption = f"medians of {_TURNS} turns of {arguments.seconds:g} s at {_RATE:g} requests/s; {machine}"
    console().print(table("what they cost the proxy", columns, turns, caption=caption))
    keep(arguments.keep, machine, pages=pages, turns=turns)


def _fill(redis: RedisServer) -> None:
    """Write every series full of points."""
    series, _ = keys_of("rerank-canary:rerank-canary")
    dice = random.Random(1)  # noqa: S311 - a simulation
    now = time.time()
    with redis.client() as client, client.pipeline(transaction=False) as pipe:
        for tier in TIERS:
            for n in range(tier.points, 0, -1):
                at = now - n * tier.seconds
                text = msgspec.json.encode(_point(at, tier.seconds, dice)).decode()
                pipe.xadd(f"{series}:{tier.name}", {"point": text}, id=f"{round(at * 1000)}-0")
        pipe.execute()


def _point(at: float, seconds: float, dice: random.Random) -> Point:
    def arm(p50: float, share: float) -> ArmPoint:
        requests = round(20 * share * seconds * (1 + 0.5 * math.sin(at / 13750)))
        return ArmPoint(
            requests=requests,
            trials=requests,
            errors=round(requests * 0.002 * dice.random()),
            fallbacks=round(requests * 0.03 * dice.random()),
            p50_seconds=p50 * dice.lognormvariate(0, 0.05),
            p95_seconds=p50 * dice.lognormvariate(0.7, 0.1),
            dollars=requests * 2e-4 * (p50 > 0.5),
            told=requests // 3,
            misses=requests // 12,
        )

    values = {"overlap": Mean(dice.gauss(0.7, 0.02), 50), "probe": Mean(dice.gauss(0.51, 0.02), 50)}
    evidence = {name: max(0.0, dice.gauss(1, 1)) for name in ("p95", "errors", "fallbacks", "cost")}
    arms = (arm(1.0, 0.75), arm(0.06, 0.25))
    return Point(at=at, seconds=seconds, share_percent=25, arms=arms, values=values, evidence=evidence)


def _pages(proxy: Proxy, token: str) -> list[tuple[str, ...]]:
    paths = [(f"rollout, {tier.words}", f"/ui?window={tier.name}") for tier in TIERS] + [("history", "/ui/history")]
    rows = []
    with Visitor(proxy) as visitor, Browser(proxy.control_url) as browser:
        visitor.sign_in(token)
        page = browser.page(DESKTOP, token)
        for words, path in paths:
            paints, answers = [], []
            for _ in range(_PAINTS):
                time.sleep(2.1)  # what is kept for those who look at the same time is forgotten by then
                began = time.perf_counter()
                size = len(visitor.client.get(path).content)
                answers.append(1000 * (time.perf_counter() - began))
                time.sleep(2.1)
                page.goto(proxy.control_url + path)
                while not page.evaluate(f"{_PAINT}.length"):
                    page.wait_for_timeout(10)
                paints.append(page.evaluate(f"{_PAINT}[0].startTime"))
            rows.append(
                (words, *(f"{statistics.median(each):.0f}" for each in (paints, answers)), f"{size / 1000:.0f}")
            )
    return rows


def _turns(proxy: Proxy, token: str, watchers: int, seconds: float) -> list[tuple[str, ...]]:
    found: dict[int, list[dict[str, float]]] = {0: [], watchers: []}
    for _ in range(_TURNS):
        for count, turns in found.items():
            turns.append(_turn(proxy, token, count, seconds))
    return [
        (
            str(count),
            *(f"{statistics.median(each[name] for each in turns):.2f}" for name in ("cpu", "p50", "p95")),
            f"{statistics.median(each['requests'] for each in turns):.0f}",
        )
        for count, turns in found.items()
    ]


def _turn(proxy: Proxy, token: str, watchers: int, seconds: float) -> dict[str, float]:
    stop = threading.Event()
    latencies: list[float] = []
    threads = [threading.Thread(target=_watch, args=(proxy, token, stop)) for _ in range(watchers)]
    threads += [threading.Thread(target=_ask, args=(proxy, stop, latencies)) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    time.sleep(5)  # until all are there
    latencies.clear()
    began, spent = time.monotonic(), _cpu_seconds(proxy)
    time.sleep(seconds)
    cpu = (_cpu_seconds(proxy) - spent) / (time.monotonic() - began)
    stop.set()
    for thread in threads:
        thread.join()
    cuts = statistics.quantiles(latencies, n=20)
    return {"cpu": 100 * cpu, "p50": 1000 * cuts[9], "p95": 1000 * cuts[18], "requests": float(len(latencies))}


def _watch(proxy: Proxy, token: str, stop: threading.Event) -> None:
    with Visitor(proxy) as visitor:
        visitor.sign_in(token)
        visitor.client.get("/ui")
        with visitor.client.stream("GET", "/ui/live") as answer:
            for _ in answer.iter_raw():
                if stop.is_set():
                    return


def _ask(proxy: Proxy, stop: threading.Event, latencies: list[float]) -> None:
    body: dict[str, Any] = {"query": "cats", "documents": ["cats", "dogs"]}
    dice = random.Random()  # noqa: S311 - a simulation
    with httpx.Client(base_url=proxy.url, timeout=30) as client:
        while not stop.wait(dice.expovariate(_RATE / _THREADS)):
            began = time.perf_counter()
            client.post("/v1/rerank", json=body, headers={"x-user-id": f"u{dice.randrange(500)}"}).raise_for_status()
            latencies.append(time.perf_counter() - began)


def _cpu_seconds(proxy: Proxy) -> float:
    assert proxy.process is not None
    fields = Path(f"/proc/{proxy.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
