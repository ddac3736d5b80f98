"""Where the time of a call goes: ``python -m tests.perf.hot_path``. The ASGI application alone, no socket."""

from __future__ import annotations

import asyncio
import contextlib
import cProfile
import gc
import os
import pstats
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from proxy.app import create_data_app
from proxy.configuration import load
from proxy.logs import configure_logs
from tests.perf.instant import instant_parts
from tests.perf.load import quantile
from tests.perf.machine import console, keep, table, this_machine
from tests.perf.workload import bodies

if TYPE_CHECKING:
    from litestar import Litestar

_CALLS = 2_000
_DIFFERENT = 50
_PACKAGES = 25


async def _call(app: Litestar, path: str, body: bytes, user: str) -> None:
    headers = [(b"content-type", b"application/json"), (b"x-user-id", user.encode())]
    headers.append((b"content-length", str(len(body)).encode()))
    scope: Any = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", 8080),
        "state": {},
    }
    statuses: list[int] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app(scope, receive, send)
    assert statuses == [200], statuses


async def _run(folder: Path, path: str, profiler: cProfile.Profile) -> list[float]:
    """Return the seconds of each call without the profiler, then let that see as many."""
    settings = load({"RERANK_CANARY__DATA_DIR": str(folder)})
    configure_logs(settings.telemetry)
    parts = instant_parts(settings)
    await parts.gate.start()
    app = create_data_app(parts)
    different = bodies(_DIFFERENT)
    times = []
    for number in range(2 * _CALLS):
        began = time.perf_counter()
        await _call(app, path, different[number % _DIFFERENT], f"user-{number}")
        times.append(time.perf_counter() - began)
        if number == _CALLS - 1:
            profiler.enable()
    profiler.disable()
    await parts.gate.close()
    await parts.store.aclose()
    return times[_CALLS // 10 : _CALLS]


def _part(file: str) -> str:
    """Return the package that a function is of."""
    if "site-packages" in file:
        return Path(file.split("site-packages/", 1)[1]).parts[0]
    here = file.startswith(str(Path(__file__).parents[2]))
    return "/".join(Path(file).parts[-3:]) if here else "python"


@click.command()
@click.option("--path", default="/v2/rerank", show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the figures there.")
def main(path: str, file: Path | None) -> None:
    """Print microseconds a call, and the profile's share of each package and function."""
    machine, profiler, out = this_machine(), cProfile.Profile(), console()
    gc.disable()
    # the log costs what it costs, but is not shown
    with (
        tempfile.TemporaryDirectory() as folder,
        Path(os.devnull).open("w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
    ):
        times = sorted(asyncio.run(_run(Path(folder), path, profiler)))
    stats: dict[tuple[str, int, str], tuple[int, int, float, float, Any]] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    total = sum(own for _, _, own, _, _ in stats.values())
    parts: Counter[str] = Counter()
    for (where, _, _), (_, _, own, _, _) in stats.items():
        parts[_part(where)] += round(own / total * 1e6)
    functions = sorted(stats.items(), key=lambda item: -item[1][3])
    shown = [
        (f"{_part(where)} {name}", f"{calls / _CALLS:.1f}", f"{own / total:.1%}", f"{below / total:.1%}")
        for (where, _, name), (_, calls, own, below, _) in functions
        if below / total > 0.015
    ]
    p50, p99 = (quantile(times, share) * 1e6 for share in (0.5, 0.99))
    words = f"{machine}\nwithout the profiler: p50 {p50:.0f} us, p99 {p99:.0f} us a call"
    packages = [(name, f"{share / 1e4:.1f}%") for name, share in parts.most_common(_PACKAGES)]
    out.print(table("Own time by package", ["", "share"], packages))
    out.print(table(f"Functions, {path}", ["", "calls", "own", "with below"], shown, words))
    keep(file, machine, p50_us=p50, p99_us=p99, parts=parts)


if __name__ == "__main__":
    main()
