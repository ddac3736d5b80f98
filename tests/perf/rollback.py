"""How fast a rollback and a change of the share reach three replicas: ``python -m tests.perf.rollback``.

A real Unleash, a real Redis, three proxies, users who ask without a pause. Times are taken from the request
logs: from the moment that the deciding replica's latch is set until the last request that any replica gave
to the candidate; and from the answer of Unleash's admin API until the last replica follows the new share.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.progress import track

from tests.integration.pages import status
from tests.parts.callers import Callers
from tests.parts.fleet import Fleet, unleash_env
from tests.parts.programs import eventually
from tests.parts.redis_server import RedisServer
from tests.parts.unleash import Postgres, Unleash
from tests.perf.load import quantile
from tests.perf.machine import console, keep, table, this_machine

if TYPE_CHECKING:
    from tests.running import Proxy

_FLAG = "measured"
_USERS = [f"user-{i}" for i in range(200)]
_STAGES = (5, 25, 50, 100)


def _events(proxy: Proxy, event: str, since: float) -> list[tuple[float, dict[str, Any]]]:
    found = ((datetime.fromisoformat(line["timestamp"]).timestamp(), line) for line in proxy.logged(event))
    return [(at, line) for at, line in found if at >= since]


def _roll_back(fleet: Fleet, number: int) -> tuple[float, int]:
    """Return the seconds until the last candidate request of any replica, and how many the decider served."""
    began = time.time()
    assert fleet.run("rollback", "--yes", number=number).code == 0
    time.sleep(1.5)
    [latched] = [at for at, _ in _events(fleet.proxies[number], "latch.set", began)]
    after: list[float] = []
    own = 0
    for other, proxy in enumerate(fleet.proxies):
        # by when it was given its arm: a request is logged when it is over
        given = [
            at - line["seconds"] for at, line in _events(proxy, "rerank.served", began) if line["arm"] == "candidate"
        ]
        late = [at - latched for at in given if at > latched]
        after += late
        own += len(late) if other == number else 0
    return max(after, default=0.0), own


def _change(fleet: Fleet, unleash: Unleash, strategy: str, was: int, percent: int) -> float:
    """Return the seconds from a change in Unleash until all replicas follow it."""
    unleash.admin.patch_percent(_FLAG, strategy, percent, was=was)
    began = time.monotonic()
    for proxy in fleet.proxies:
        eventually(lambda: status(proxy)["flag"]["rollout"]["share_percent"] == percent, every_seconds=0.01)  # noqa: B023
    return time.monotonic() - began


@click.command()
@click.option("--rollbacks", default=30, show_default=True)
@click.option("--changes", default=30, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the figures there.")
def main(rollbacks: int, changes: int, file: Path | None) -> None:
    """Print both times."""
    machine = this_machine()
    out = console()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        database = stack.enter_context(Postgres())
        unleash = stack.enter_context(Unleash(database.url, folder))
        strategy = unleash.admin.create_rollout(_FLAG, 100)
        redis = stack.enter_context(RedisServer(folder / "redis"))
        fleet = stack.enter_context(Fleet(folder, 3, unleash_env(unleash, _FLAG, redis.url), prefix=_FLAG))
        for proxy in fleet.proxies:
            stack.enter_context(Callers(proxy.url, _USERS, threads=2))
        found = []
        for turn in track(range(rollbacks), "rollbacks", console=out):
            fleet.run("ramp", "100", "--force", "--yes")
            fleet.wait_until_agreed()
            time.sleep(0.5)
            found.append(_roll_back(fleet, turn % 3))
            fleet.run("rearm", "--reason", "the next one", "--yes")
        fleet.run("ramp", "100", "--force", "--yes")
        fleet.wait_until_agreed()
        shares = [_STAGES[turn % len(_STAGES)] for turn in range(changes + 1)]
        moves = list(zip([100, *shares[:-1]], shares, strict=True))[:changes]
        times = [
            _change(fleet, unleash, strategy, was, to) for was, to in track(moves, "changes", console=out) if was != to
        ]
    lasts = [seconds for seconds, _ in found]
    rows = [
        _row("latch set to last candidate request", lasts, "0.100", "1.000"),
        ("  of them on the deciding replica", str(sum(own for _, own in found)), "", "", "0", ""),
        _row("change in Unleash to effective share", times, "", "2.500"),
    ]
    columns = ["seconds, 3 replicas", "median", "p99", "most", "median at most", "p99 at most"]
    words = f"{machine}\n{len(lasts)} rollbacks and {len(times)} changes; 6 users at a time without a pause"
    out.print(table("Rollback and change of the share", columns, rows, words))
    keep(file, machine, rollbacks=lasts, changes=times)


def _row(name: str, seconds: list[float], median_bar: str, p99_bar: str) -> tuple[str, ...]:
    p99 = quantile(sorted(seconds), 0.99)
    return (name, f"{statistics.median(seconds):.3f}", f"{p99:.3f}", f"{max(seconds):.3f}", median_bar, p99_bar)


if __name__ == "__main__":
    main()
