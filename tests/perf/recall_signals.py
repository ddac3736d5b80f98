"""What the recall signals add to a call: ``python -m tests.perf.recall_signals``.

Every round asks proxies without any of them, with each, and with all: shadows of a tenth of the requests, a token for
feedback in every answer, the event log. The arms answer at once, so that what is seen is the signals' own work.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

from tests.perf.machine import console, keep, table, this_machine
from tests.perf.overhead import Target, Window, figures, measure, quiet_window
from tests.perf.servers import ours_in_process
from tests.perf.shadow import added_rows

_PATH = "/v2/rerank"
_NONE = {
    "BACKENDS__GPT__KIND": "llm",
    "BACKENDS__GPT__STAND_IN_DELAY_SECONDS": "0",
    "FLAG__INITIAL_SHARE_PERCENT": "50",
    "GUARD__IS_ON": "false",
    "FEEDBACK__IS_ON": "false",
}
_SHADOWS = {"SHADOW__IS_ON": "true", "SHADOW__CONTROL_PERCENT": "10", "SHADOW__CANDIDATE_PERCENT": "10"}
_FEEDBACK = {"FEEDBACK__IS_ON": "true"}
_EVENTS = {"EVENTS__IS_ON": "true", "EVENTS__FLUSH_SECONDS": "1"}
_TARGETS = {
    "none": {},
    "shadows, 10 %": _SHADOWS,
    "feedback": _FEEDBACK,
    "event log": _EVENTS,
    "all": _SHADOWS | _FEEDBACK | _EVENTS,
}


@click.command()
@click.option("--rate", default=200.0, show_default=True, help="Calls a second.")
@click.option("--seconds", default=5.0, show_default=True, help="Length of one target's part of a round.")
@click.option("--rounds", default=7, show_default=True)
@click.option("--others", default=0.05, show_default=True, help="Share of the machine that others may take.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the figures there.")
def main(*, rate: float, seconds: float, rounds: int, others: float, file: Path | None) -> None:
    """Print milliseconds a call without the signals and with them, and what they add."""
    machine, windows = this_machine(), list[Window]()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        targets: list[Target] = []
        for name, settings in _TARGETS.items():
            env = {f"RERANK_CANARY__{key}": value for key, value in (_NONE | settings).items()}
            server = ours_in_process(Path(folder) / str(len(targets)), env=env, venv=Path(sys.prefix))
            targets.append(Target(name, stack.enter_context(server), _PATH, passes_on=False))
        for target in targets:
            measure(targets, target, rate, seconds)
        for number in range(rounds):  # who is first in a round changes
            order = targets if number % 2 else targets[::-1]
            windows += [quiet_window(targets, target, rate, seconds, others) for target in order]
    found = figures(targets, windows, rate)
    taken = statistics.median(window.others_share for window in windows)
    words = f"{machine}\nmedians of {rounds} rounds of {seconds:g} s; other processes took {taken:.0%} of the machine"
    columns = ["ms", "p50", "p99", "adds p50", "adds p99", "CPU a call", "answered/s", "failed"]
    title = f"Recall signals at {rate:g} calls/s, 25 documents of 1 kB, arms that answer at once"
    console().print(table(title, columns, added_rows(found), words))
    keep(file, machine, figures=found, windows=windows)


if __name__ == "__main__":
    main()
