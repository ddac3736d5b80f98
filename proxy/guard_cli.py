"""``rerank-canary guard`` and ``alert``: what the guard finds, and who would hear of it."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flags.ramp import words
from proxy.rollout_cli import command, print_json

if TYPE_CHECKING:
    from proxy.control_client import ControlPlane

_out = Console()
_VERDICTS = {
    "advance": "[green]advance[/]",
    "hold": "[yellow]hold[/]",
    "revert": "[yellow]revert[/]",
    "rollback": "[bold red]rollback[/]",
}
_BAR = 12
_WIDE = 120


@command("guard", "Show the verdict and the evidence of each guardrail.")
def guard(plane: ControlPlane, *, as_json: bool) -> None:
    """Show it."""
    found = plane.get("/guard")
    if as_json:
        print_json(found)
        return
    report = found["report"]
    if report is None:
        _out.print("nothing was judged yet" if found["is_on"] else "the guard is off ([guard] is_on)")
        return
    judgement = report["judgement"]
    age = found["now"] - report["at"]
    beat = f"[red]{words(age)} ago[/]" if age > 10 else f"{age:.0f} s ago"
    _out.print(f"{_VERDICTS[judgement['verdict']]}  {escape(judgement['reason'])}", highlight=False)
    _out.print(f"[dim]judged {beat} by {report['leader']} at {report['share_percent']} %[/]", highlight=False)
    _out.print(_guardrails(report))
    for reason, seconds in report["held_seconds"].items():
        _out.print(f"[yellow]{reason}[/] for {words(seconds)}", highlight=False)


def _guardrails(report: dict[str, Any]) -> Table:
    """Return a row a guardrail; on a narrow screen without what can be looked up in ``--json``."""
    is_wide = _out.width >= _WIDE
    table = Table()
    for name in ("guardrail", "", "seen", "estimate", "limit", "evidence", "is proved in"):
        table.add_column(name, no_wrap=name in {"guardrail", "estimate", "limit"} and not is_wide)
    if is_wide:
        table.add_column("would take")
        table.caption = "would take: until a fault that doubles the limit is found, at today's traffic"
    for each in report["findings"]:
        mark = "[bold red]breached[/]" if each["is_breached"] else "[green]holds[/]" if each["is_passed"] else "unsure"
        mark += "" if each["is_enforced"] else " [dim](report only)[/]"
        bounds = f"\n[dim]{each['lower']:.3g} to {each['upper']:.3g}[/]"
        row = (
            each["guardrail"] + (f"\n[dim]{escape(each['words'])}[/]" if is_wide else ""),
            mark,
            f"{each['bad']:,.4g} of {each['trials']:,.0f}",
            f"{each['estimate']:.3g}{bounds if is_wide else ''}",
            f"{each['limit']:.3g}",
            _evidence(each["evidence"], each["threshold"]),
            "" if each["is_passed"] else _time(each["seconds_to_pass"], "never, as it is"),
        )
        table.add_row(*row, *([_time(each["seconds_to_detect"], "no traffic")] if is_wide else []))
    return table


def _evidence(log: float, threshold: float) -> str:
    """Return evidence as a bar up to the threshold, in powers of ten."""
    full = min(_BAR, round(_BAR * max(0.0, log) / threshold))
    colour = "red" if full == _BAR else "yellow" if full > _BAR / 2 else "green"
    numbers = f"10^{log / math.log(10):.1f} of 10^{threshold / math.log(10):.1f}"
    return f"[{colour}]{'━' * full}[/][dim]{'━' * (_BAR - full)}[/]\n{numbers}"


def _time(seconds: float | None, otherwise: str) -> str:
    return otherwise if seconds is None else words(max(1.0, seconds))


@command(
    "alert",
    "Show what is told to whom; --test tells every receiver that this is a test.",
    click.option("--test", "is_test", is_flag=True, help="Send a test message to every receiver, now."),
)
def alert(plane: ControlPlane, *, is_test: bool, as_json: bool) -> None:
    """Show it, or test it."""
    found = plane.order("/alerts/test") if is_test else plane.get("/alerts")
    if as_json:
        print_json(found)
    elif is_test:
        _show_test(found)
    else:
        _show_alerts(found)
    if is_test and not (found and all(each["is_delivered"] for each in found)):
        raise SystemExit(1)


def _show_test(found: list[dict[str, Any]]) -> None:
    if not found:
        _out.print("[yellow]no receivers: nobody would hear of a rollback[/] ([alerts.receivers])")
    for each in found:
        result = (
            f"[green]told[/] in {each['seconds']:.2f} s" if each["is_delivered"] else f"[red]{escape(each['error'])}[/]"
        )
        _out.print(f"{escape(each['receiver'])} ({each['kind']}: {', '.join(each['severities'])})  {result}")


def _show_alerts(found: dict[str, Any]) -> None:
    table = Table()
    for name in ("since", "alert", "told"):
        table.add_column(name, overflow="fold")
    for each in found["alerts"]:
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each["starts_at"]))
        colour = "dim" if each["ends_at"] else "bold red" if each["severity"] == "page" else "yellow"
        told = [_told(d) for d in found["deliveries"] if d["alert_key"] == each["key"]]
        table.add_row(since, f"[{colour}]{escape(each['title'])}[/]", "\n".join(told) or "[dim]nobody[/]")
    _out.print(table if found["alerts"] else "nothing is being told")


def _told(delivery: dict[str, Any]) -> str:
    name = escape(delivery["receiver"])
    if delivery["is_dead"]:
        return f"[red]{name}: given up, {escape(delivery['last_error'] or '')}[/]"
    if delivery["attempts"]:
        return f"[yellow]{name}: try {delivery['attempts']}, {escape(delivery['last_error'] or 'under way')}[/]"
    seen = f", seen by {escape(delivery['acknowledged_by'] or '?')}" if delivery["acknowledged_at"] else ""
    return f"[green]{name}[/]{' over' if delivery['is_over_delivered'] else ''}{seen}"


GUARD_COMMANDS = (guard, alert)
