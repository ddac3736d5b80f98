"""The guard's bars, ours beside the rules in use elsewhere: ``python -m tests.perf.guard_bars [--runs N]``.

Each scenario of tests/perf/scenarios, on the real signals, evidence, judge and ramp. The defaults (300
healthy runs of 24 h, 200 a fault) take about an hour on two cores.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import Any

from alerts.simulation.scenario import read_scenario
from alerts.simulation.summary import summary_of
from proxy.simulate_cli import with_progress
from tests.perf.machine import console, keep, table, this_machine

_FOLDER = Path(__file__).parent / "scenarios"
_BARS = {
    "healthy": ("false rollbacks <= 1 %", 300),
    "healthy-at-the-limit": ("false rollbacks <= 1 %", 300),
    "latency": ("median <= 15 s", 200),
    "errors": ("median <= 20 requests", 200),
    "slow": ("median <= 20 requests", 200),
    "recall": ("median <= 300 pairs", 200),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, help="of each scenario, instead of the defaults")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", type=Path, help="write the figures there, as JSON")
    parser.add_argument("scenarios", nargs="*", default=list(_BARS))
    arguments = parser.parse_args()
    machine, found = this_machine(), {}
    rows: list[list[str]] = []
    for name in arguments.scenarios:
        bar, runs = _BARS[name]
        scenario = read_scenario((_FOLDER / f"{name}.toml").read_text(encoding="utf-8"))
        began = time.perf_counter()
        summary = summary_of(with_progress(scenario, arguments.runs or runs, arguments.seed, arguments.jobs))
        summary["wall_seconds"] = time.perf_counter() - began
        found[name] = summary
        rows += _rows(name, bar, summary)
        console().print(table(name, _COLUMNS, rows[-len(summary["rules"]) :]))
    console().print(table("all", _COLUMNS, rows, caption=str(machine)))
    keep(arguments.keep, machine, scenarios=found)


_COLUMNS = ("scenario", "bar", "rule", "false rollbacks", "found", "s median", "s p99", "requests median", "p99")


def _rows(name: str, bar: str, summary: dict[str, Any]) -> list[list[str]]:
    rows = []
    for rule in summary["rules"]:
        times = [
            f"{each[q]:,.0f}" if (each := rule.get(key)) else "-"
            for key in ("seconds_to_verdict", "candidate_requests_to_verdict")
            for q in ("median", "p99")
        ]
        false = f"{rule['false_rollbacks']} of {summary['runs']}"
        rows.append([name, bar, rule["name"], false, str(rule.get("rollbacks", "-")), *times])
        name = bar = ""
    return rows


if __name__ == "__main__":
    main()
