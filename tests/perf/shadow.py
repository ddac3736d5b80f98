"""What shadows add to a call: ``python -m tests.perf.shadow``.

Every round asks the same proxy without and with shadows, in the same minutes. With arms that answer at once what is
seen is the work of the shadows in the event loop; with ``--shipped`` the candidate is the model that comes with the
project and a shadow is real work on the same cores, asked for while users with control are served.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
import httpx

from tests.perf.machine import console, keep, table, this_machine
from tests.perf.overhead import Target, Window, figures, measure, quiet_window
from tests.perf.servers import Server, ours, ours_in_process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.perf.overhead import Figure

_PATH = "/v2/rerank"


def _env(percent: float) -> dict[str, str]:
    return {
        "RERANK_CANARY__BACKENDS__GPT__KIND": "llm",
        "RERANK_CANARY__BACKENDS__GPT__STAND_IN_DELAY_SECONDS": "0",
        "RERANK_CANARY__FLAG__INITIAL_SHARE_PERCENT": "50",
        "RERANK_CANARY__GUARD__IS_ON": "false",
        "RERANK_CANARY__SHADOW__IS_ON": "true" if percent else "false",
        "RERANK_CANARY__SHADOW__CONTROL_PERCENT": str(percent),
        "RERANK_CANARY__SHADOW__CANDIDATE_PERCENT": str(percent),
    }


def _server(folder: Path, percent: float, *, is_shipped: bool) -> Server:
    env = _env(percent)
    if is_shipped:
        return ours(folder, env=env | {"RERANK_CANARY__FLAG__INITIAL_SHARE_PERCENT": "0"})
    return ours_in_process(folder, env=env)


def _shadowed(server: Server) -> str:
    """Return what became of the shadows, in words."""
    token = (server.folder / "var/control.token").read_text().strip()
    url = f"http://127.0.0.1:{server.control_port}/status"
    found = httpx.get(url, headers={"Authorization": f"Bearer {token}"}).raise_for_status().json()["shadow"]
    skipped = json.dumps(found["skipped"]) if found["skipped"] else "none"
    return f"{found['overlap_at_5']['pairs']} pairs, skipped: {skipped}"


def added_rows(found: Sequence[Figure]) -> list[tuple[str, ...]]:
    """Return a row for each target, with what it adds to the first."""
    base = found[0]
    return [
        (
            row.target,
            f"{row.p50_ms:.3f}",
            f"{row.p99_ms:.3f}",
            f"{row.p50_ms - base.p50_ms:+.3f}",
            f"{row.p99_ms - base.p99_ms:+.3f}",
            f"{row.cpu_ms:.3f}",
            f"{row.per_second:.0f}" + ("" if row.keeps_up else " (!)"),
            f"{row.failed_share:.1%}",
        )
        for row in found
    ]


@click.command()
@click.option("--percent", "percents", type=float, multiple=True, default=[10.0], show_default=True)
@click.option("--rate", default=200.0, show_default=True, help="Calls a second.")
@click.option("--seconds", default=5.0, show_default=True, help="Length of one target's part of a round.")
@click.option("--rounds", default=7, show_default=True)
@click.option("--shipped", "is_shipped", is_flag=True, help="The shipped model as candidate, at 0 %, GPT's stand-in.")
@click.option("--others", default=0.05, show_default=True, help="Share of the machine that others may take.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the figures there.")
def main(
    *,
    percents: Sequence[float],
    rate: float,
    seconds: float,
    rounds: int,
    is_shipped: bool,
    others: float,
    file: Path | None,
) -> None:
    """Print milliseconds a call without shadows and with, and what they add."""
    machine, windows = this_machine(), list[Window]()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        targets = []
        for percent in (0.0, *percents):
            server = stack.enter_context(_server(Path(folder) / f"{percent:g}", percent, is_shipped=is_shipped))
            name = f"{percent:g} % shadowed" if percent else "no shadows"
            targets.append(Target(name, server, _PATH, passes_on=False))
        for target in targets:
            measure(targets, target, rate, seconds)
        for number in range(rounds):  # who is first in a round changes
            order = targets if number % 2 else targets[::-1]
            windows += [quiet_window(targets, target, rate, seconds, others) for target in order]
        told = [f"{target.name}: {_shadowed(target.server)}" for target in targets[1:]]
    found = figures(targets, windows, rate)
    taken = statistics.median(window.others_share for window in windows)
    words = f"{machine}\nmedians of {rounds} rounds of {seconds:g} s; other processes took {taken:.0%} of the machine"
    if not all(row.keeps_up for row in found):
        words += "\n(!) did not keep up: its times grow with the length of the round"
    columns = ["ms", "p50", "p99", "adds p50", "adds p99", "CPU a call", "answered/s", "failed"]
    arms = "the shipped model as candidate" if is_shipped else "arms that answer at once"
    title = f"Shadows at {rate:g} calls/s, 25 documents of 1 kB, {arms}"
    console().print(table(title, columns, added_rows(found), "\n".join([words, *told])))
    keep(file, machine, figures=found, windows=windows)


if __name__ == "__main__":
    main()
