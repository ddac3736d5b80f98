"""``rerank-canary simulate``: what the guard would do with traffic and faults that a file describes."""

from __future__ import annotations

import json
import os
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from alerts.simulation.run import Result
    from alerts.simulation.scenario import Scenario

_out = Console()
_errors = Console(stderr=True)


@click.command("simulate")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--runs", type=click.IntRange(1, 100_000), default=100, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="The same seed, the same traffic.")
@click.option("--jobs", type=click.IntRange(1), default=os.cpu_count() or 1, help="Processes; by default one a core.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the first run's evidence as SVG.")
@click.option("--html", type=click.Path(dir_okay=False, path_type=Path), help="Write table and plot as one page.")
def simulate(
    file: Path, runs: int, seed: int, jobs: int, plot: Path | None, html: Path | None, *, as_json: bool
) -> None:
    """Run the guard on simulated traffic, beside the rules in use elsewhere.

    FILE is TOML: hours; [traffic]; [control]; [candidate]; [[fault]]; [[guardrail]].
    """
    from alerts.simulation.plot import draw  # noqa: PLC0415 - numpy, which other commands need not wait for
    from alerts.simulation.scenario import InvalidScenario, read_scenario  # noqa: PLC0415
    from alerts.simulation.summary import summary_of  # noqa: PLC0415

    try:
        scenario = read_scenario(file.read_text(encoding="utf-8"))
        result = with_progress(scenario, runs, seed, jobs)
    except (InvalidScenario, OSError, UnicodeError) as exc:
        _errors.print(f"{file}: {exc}", style="red", markup=False, highlight=False)
        raise SystemExit(2) from exc
    if plot is not None:
        plot.write_text(draw(result), encoding="utf-8")
    found = summary_of(result)
    if html is not None:
        html.write_text(page_of(file.stem, found, draw(result)), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        _out.print(table_of(found))
        for words, counts in (
            ("rolled back by", found["rules"][0]["verdicts_by_guardrail"]),
            ("held for a while:", found["held_runs"]),
            ("ended at a share of (0: rolled back)", found["final_share_percent"]),
        ):
            _out.print(f"{words} {', '.join(f'{n} {count}x' for n, count in counts.items()) or '-'}", style="dim")


def with_progress(scenario: Scenario, runs: int, seed: int, jobs: int) -> Result:
    """Simulate, and show how far it is."""
    from alerts.simulation.run import simulate as run  # noqa: PLC0415

    columns = (TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TextColumn("ticks"), TimeRemainingColumn())
    with Progress(*columns, console=_errors, transient=True) as progress:
        task = progress.add_task("", total=runs * scenario.seconds)
        return run(scenario, runs, seed, jobs=jobs, on_progress=lambda ticks: progress.advance(task, ticks))


def page_of(name: str, found: dict[str, Any], drawing: str) -> str:
    """Return the summary and the first run's evidence as one page."""
    from proxy.offline.page import page, section  # noqa: PLC0415 - which other commands need not wait for

    shown = table_of(found)
    cells = zip(*(column.cells for column in shown.columns), strict=True)
    head = "".join(f'<th scope="col">{escape(str(column.header))}</th>' for column in shown.columns)
    rows = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in cells)
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    title = f"{name}: {shown.title}"
    return page(title, [], [section("Rules side by side", table), section("Evidence of the first run", drawing)])


def table_of(found: dict[str, Any]) -> Table:
    """Return the summary as a table."""
    has_fault = found["fault_at_hour"] is not None
    title = f"{found['runs']} runs of {found['hours']:g} h"
    title += f", a fault at {found['fault_at_hour']:g} h" if has_fault else ", nothing is wrong"
    table = Table(title=title, title_justify="left")
    table.add_column("rule")
    for name in ("false rollbacks", *(_FAULT_COLUMNS if has_fault else ())):
        table.add_column(name, justify="right")
    for place, rule in enumerate(found["rules"]):
        cells = [f"{rule['false_rollbacks']} ({rule['false_rollbacks'] / found['runs']:.1%})"]
        if has_fault:
            cells += [str(rule["rollbacks"]), str(rule["missed"])]
            cells += _quantiles(rule["seconds_to_verdict"]) + _quantiles(rule["candidate_requests_to_verdict"])
        table.add_row(rule["name"], *cells, style="bold" if place == 0 else "")
    return table


_FAULT_COLUMNS = ("found", "missed", "seconds", "p99", "requests", "p99")
"""From the fault to the verdict, medians first; requests are the candidate's."""


def _quantiles(found: dict[str, float] | None) -> list[str]:
    return ["-", "-"] if found is None else [f"{found['median']:,.0f}", f"{found['p99']:,.0f}"]
