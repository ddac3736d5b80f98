"""The rollout's commands for people: they talk HTTP, so they work through a port-forward, from a laptop.

Exit codes: 0 done; 1 refused or not possible now; 2 wrong usage; 3 the control plane cannot be reached;
4 the token is unknown or its role may not do this; 5 done, but the store or the flag does not say it yet.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from flags.ramp import words
from proxy.control_client import NOT_EVERYWHERE, ControlPlane, token_of

if TYPE_CHECKING:
    from collections.abc import Callable

_out = Console()
_errors = Console(stderr=True)
_LATE_SECONDS = 10
_PHASES = {
    "ramping": "[cyan]ramping[/]",
    "held": "[yellow]held[/]",
    "rolled_back": "[bold red]rolled back[/]",
    "promoted": "[green]promoted[/]",
    "retired": "[green]old arm retired[/]",
}


def command(name: str, words: str, *options: Callable[[Any], Any]) -> Callable[[Callable[..., None]], click.Command]:
    """Return a decorator that makes a command with what all of them take."""

    def make(function: Callable[..., None]) -> click.Command:
        def run(url: str, data_dir: Path, **fields: Any) -> None:
            function(ControlPlane(url, token_of(data_dir)), **fields)

        run.__doc__ = words
        common = [
            click.option("--url", default="http://127.0.0.1:8081", envvar="RERANK_CANARY_URL", show_default=True),
            click.option(
                "--data-dir",
                type=click.Path(path_type=Path),
                default=Path("var"),
                envvar="RERANK_CANARY__DATA_DIR",
                help="Where a proxy on this machine keeps its token.",
            ),
            click.option("--json", "as_json", is_flag=True, help="Print JSON for programs."),
        ]
        for option in reversed([*options, *common]):
            run = option(run)
        return click.command(name, help=words)(run)

    return make


_reason = click.option("--reason", default="", help="Why; it goes into the audit trail.")
_yes = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
_request_id = click.option("--request-id", default="", help="The same one again does nothing twice.")
_force = click.option("--force", is_flag=True, help="Do it although the plan says otherwise.")


@command("status", "Show where the rollout is.")
def status(plane: ControlPlane, *, as_json: bool) -> None:
    """Show it."""
    found = plane.get("/status")
    if as_json:
        print_json(found)
        return
    rollout, flag = found["rollout"], found["flag"]
    table = Table.grid(padding=(0, 2))
    for name, value in _summary(rollout, flag, found):
        table.add_row(f"[dim]{name}[/]", value)
    _out.print(table)
    _out.print(_replicas(rollout))


def _summary(rollout: dict[str, Any], flag: dict[str, Any], found: dict[str, Any]) -> list[tuple[str, str]]:
    share = rollout["share_percent"]
    observed = "no requests" if share["observed"] is None else f"{share['observed']:.1f} %"
    rows = [
        ("rollout", f"{flag['key']}  {_PHASES.get(rollout['phase'] or '', 'no record yet')}"),
        (
            "share",
            (
                f"desired {_percent(share['desired'])}   effective {_percent(share['effective'])}   "
                f"observed {observed} of {share['observed_requests']} in the last minute"
            ),
        ),
    ]
    if stage := rollout["stage"]:
        left = "passed" if not stage["seconds_left"] else f"{words(stage['seconds_left'])} left"
        rows.append(("stage", f"{stage['number']} of {stage['of']}: {stage['share_percent']} %, {left}"))
    if rollout["is_ready_to_advance"]:
        rows.append(("", "[green]ready to advance: `rerank-canary advance`[/]"))
    rows.append(("flag", f"{flag['source']}, {_age(flag['age_seconds'])}{_red(flag['error'])}"))
    if rollout["flag_is_behind"]:
        rows.append(("", f"[yellow]the flag does not say it yet[/]{_red(rollout['flag_error'])}"))
    rows.append(("latch", _latch(rollout["latch"])))
    rows.append(("guard", _guard(found["guard"])))
    rows.append(("shadow", _shadow(found["shadow"])))
    wrong = found["store"]["error"] or rollout["record_error"]
    rows.append(("store", f"degraded{_red(wrong)}" if wrong else "[green]ok[/]"))
    rows += [("", f"[yellow]{escape(warning)}[/]") for warning in rollout["warnings"]]
    return rows


def _latch(latch: dict[str, Any]) -> str:
    if not latch["is_set"]:
        return "open" if latch["is_known"] else "[yellow]not known: the store was never reached; control for all[/]"
    rollback = latch["rollback"] or {}
    cools = latch["cool_down_seconds_left"]
    text = (
        f"[bold red]SET[/] {rollback.get('rollback_id', '')} by {escape(rollback.get('actor', '?'))}: "
        f"{escape(rollback.get('reason') or '')}"
    )
    if not latch["is_delivered"]:
        return f"{text}  [yellow](the store does not know it yet)[/]"
    return text + (f"  cools down for {words(cools)}" if cools else "  may be re-armed")


def _guard(guard: dict[str, Any] | None) -> str:
    if guard is None:
        return "[yellow]off, or nothing was judged yet[/]"
    age = guard["judged_seconds_ago"]
    late = f"  [red]judged {words(age)} ago[/]" if age > _LATE_SECONDS else ""
    nobody = "" if guard["receivers"] else "  [yellow](nobody would be told: no receivers)[/]"
    return f"{guard['verdict']}: {escape(guard['reason'])}{late}{nobody}"


def _shadow(shadow: dict[str, Any] | None) -> str:
    if shadow is None:
        return "off"
    dollars = f"${shadow['dollars_last_hour']:.4f} of ${shadow['max_dollars_per_hour']:g} this hour"
    text = f"{shadow['last_minute']} in the last minute, " + (
        f"[yellow]{dollars}: spent[/]" if shadow["is_budget_spent"] else dollars
    )
    if skipped := shadow["skipped"]:
        text += f"; skipped {', '.join(f'{reason} {count}' for reason, count in sorted(skipped.items()))}"
    overlap = shadow["overlap_at_5"]
    if overlap["mean"] is not None:
        error = "" if overlap["standard_error"] is None else f" ± {overlap['standard_error']:.3f}"
        text += f"; overlap@5 {overlap['mean']:.3f}{error} of {overlap['pairs']} pairs"
    return text


def _replicas(rollout: dict[str, Any]) -> Table:
    table = Table(title="replicas", title_justify="left")
    for name in ("replica", "host", "heartbeat", "ready", "latched", "share", "flag age", "requests a minute"):
        table.add_column(name)
    for each in rollout["replicas"]:
        leads = " [dim]leads[/]" if each["instance_id"] == rollout["leader"] else ""
        beat = f"{each['heartbeat_seconds_ago']:.0f} s ago"
        table.add_row(
            each["instance_id"] + leads,
            each["host"],
            f"[red]{beat}, gone[/]" if each["is_gone"] else beat,
            "[green]yes[/]" if each["is_ready"] else "[red]no[/]",
            "[red]yes[/]" if each["is_latched"] else "no",
            _percent(each["share_percent"]),
            _age(each["flag_age_seconds"]),
            str(each["requests_last_minute"]),
        )
    return table


@command(
    "ramp",
    "Move the share to a stage of the plan.",
    click.argument("share_percent", type=click.IntRange(0, 100)),
    _reason,
    _request_id,
    _force,
    _yes,
)
def ramp(plane: ControlPlane, *, share_percent: int, yes: bool, as_json: bool, **order: Any) -> None:
    """Move it."""
    _ask(f"Give {share_percent} % of the users to the candidate?", yes=yes)
    _show(plane.order("/ramp", share_percent=share_percent, **order), as_json=as_json)


@command("advance", "Move the share to the next stage.", _reason, _request_id, _force, _yes)
def advance(plane: ControlPlane, *, yes: bool, as_json: bool, **order: Any) -> None:
    """Move it."""
    _ask("Move to the next stage?", yes=yes)
    _show(plane.order("/advance", **order), as_json=as_json)


@command("hold", "Stay where it is; a rollback still works.", _reason, _request_id)
def hold(plane: ControlPlane, *, as_json: bool, **order: Any) -> None:
    """Stay."""
    _show(plane.order("/hold", **order), as_json=as_json)


@command("rollback", "Take the candidate out, everywhere, now.", _reason, _request_id, _yes)
def rollback(plane: ControlPlane, *, yes: bool, as_json: bool, **order: Any) -> None:
    """Take it out."""
    _ask("Take the candidate out for all users?", yes=yes)
    _show(plane.order("/rollback", **order), as_json=as_json)


@command(
    "rearm",
    "End a rollback; the share stays 0 until it is ramped.",
    click.option("--reason", required=True, help="Why it is safe now."),
    click.option("--fresh-users", is_flag=True, help="Draw other users than those who had it before."),
    _request_id,
    _force,
    _yes,
)
def rearm(plane: ControlPlane, *, yes: bool, as_json: bool, **order: Any) -> None:
    """End it."""
    _ask("Let the candidate be ramped again?", yes=yes)
    _show(plane.order("/rearm", **order), as_json=as_json)


@command("retire", "Make the old arm a fallback only.", _reason, _request_id, _force, _yes)
def retire(plane: ControlPlane, *, yes: bool, as_json: bool, **order: Any) -> None:
    """Retire it."""
    _ask("Give every user to the candidate for good?", yes=yes)
    found = plane.order("/retire", **order)
    if not as_json:
        _out.print(_CAN_GO, highlight=False, markup=False)
    _show(found, as_json=as_json)


_CAN_GO = """The old arm is a fallback only now. What can go:
  in applications   the old reranking call, its prompt and its retries
  in settings       USE_CROSS_ENCODER, the flag's other strategies, [ramp], [deadline] reserve_seconds
  in the account    the rate limit and budget of the language model, down to what the fallback uses (`status`)
What stays: [fallback], its budget, and `rerank-canary rollback`, which brings the old arm back at once."""


@command("history", "Show who changed what, when and why.", click.option("--count", default=20, show_default=True))
def history(plane: ControlPlane, *, count: int, as_json: bool) -> None:
    """Show it."""
    found = plane.get("/history", count=count)
    if as_json:
        print_json(found)
        return
    table = Table()
    for name in ("when", "who", "through", "what", "from", "to", "why"):
        table.add_column(name, overflow="fold")
    for entry in found:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(entry["at"]))
        colour = "red" if entry["rollback_id"] else "default"
        shares = (_percent(entry["from_share_percent"]), _percent(entry["to_share_percent"]))
        why = " ".join(part for part in (entry["reason"], entry["rollback_id"], _event(entry)) if part)
        table.add_row(
            when, escape(entry["actor"]), entry["through"], f"[{colour}]{entry['action']}[/]", *shares, escape(why)
        )
    _out.print(table)


def _event(entry: dict[str, Any]) -> str:
    return f"(event {entry['flag_event_id']} of Unleash)" if entry.get("flag_event_id") else ""


COMMANDS = (status, ramp, advance, hold, rollback, rearm, retire, history)


def _ask(question: str, *, yes: bool) -> None:
    if not yes:
        click.confirm(question, abort=True, err=True)


def _show(outcome: dict[str, Any], *, as_json: bool) -> None:
    """Print what came of an order; the exit code says if it is not everywhere yet."""
    if as_json:
        print_json(outcome)
    else:
        phase = _PHASES.get(outcome["phase"] or "", "no record")
        rollback_id = f"  {outcome['rollback_id']}" if outcome["rollback_id"] else ""
        _out.print(f"{phase} at {_percent(outcome['share_percent'])}{rollback_id}")
    for warning in outcome["warnings"]:
        _errors.print(warning, style="yellow", highlight=False, markup=False)
    if outcome["warnings"]:
        sys.exit(NOT_EVERYWHERE)


def print_json(found: object) -> None:
    """Print what programs read."""
    click.echo(json.dumps(found, indent=2))


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{share} %"


def _age(seconds: float | None) -> str:
    return "never read" if seconds is None else f"confirmed {seconds:.0f} s ago"


def _red(error: str | None) -> str:
    return f"  [red]{escape(error)}[/]" if error else ""
