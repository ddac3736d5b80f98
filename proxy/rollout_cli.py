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

from proxy.control_client import NOT_EVERYWHERE, ControlPlane, token_of
from proxy.status_view import PHASES, percent, replicas, summary

if TYPE_CHECKING:
    from collections.abc import Callable

_out = Console()
_errors = Console(stderr=True)


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
    table = Table.grid(padding=(0, 2))
    for name, value in summary(found):
        table.add_row(f"[dim]{name}[/]", value)
    _out.print(table)
    _out.print(replicas(found["rollout"]))


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
        shares = (percent(entry["from_share_percent"]), percent(entry["to_share_percent"]))
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
        phase = PHASES.get(outcome["phase"] or "", "no record")
        rollback_id = f"  {outcome['rollback_id']}" if outcome["rollback_id"] else ""
        _out.print(f"{phase} at {percent(outcome['share_percent'])}{rollback_id}")
    for warning in outcome["warnings"]:
        _errors.print(warning, style="yellow", highlight=False, markup=False)
    if outcome["warnings"]:
        sys.exit(NOT_EVERYWHERE)


def print_json(found: object) -> None:
    """Print what programs read."""
    click.echo(json.dumps(found, indent=2))
