"""``rerank-canary models``: what the registry has.

Exit code 2: it cannot be read, or a model in it is not what its card says.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
import msgspec
from rich.console import Console
from rich.table import Table

from proxy.benchmark_cli import fail
from proxy.errors import InvalidModel, InvalidSettings
from proxy.extras import require_extra

if TYPE_CHECKING:
    from proxy.learning.registry import Registry

_out = Console()


@click.group("models", invoke_without_command=True)
@click.option("--registry", required=True, envvar="RERANK_CANARY_REGISTRY", help="A folder, or a URL of fsspec.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.pass_context
def models(context: click.Context, registry: str, *, as_json: bool) -> None:
    """List the models that passed the gate, the newest first."""
    try:
        require_extra("models", "events", ["fsspec"])
        from proxy.learning.registry import Registry, as_rows  # noqa: PLC0415 - comes with the extra

        context.obj = Registry(registry)
        if context.invoked_subcommand is not None:
            return
        cards = context.obj.cards()
    except (InvalidModel, InvalidSettings) as exc:
        _end(exc)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(cards), indent=2).decode())
        return
    table = Table("model", "kind", "made, UTC", "from", "against the one before")
    for name, kind, made_at, parent, figures in as_rows(cards):
        table.add_row(name, kind, f"{dt.datetime.fromtimestamp(made_at, dt.UTC):%Y-%m-%d %H:%M}", parent, figures)
    _out.print(table if cards else "no model yet")


@models.command("fetch")
@click.argument("name")
@click.argument("into", type=click.Path(file_okay=False, path_type=Path))
@click.pass_obj
def fetch(registry: Registry, name: str, into: Path) -> None:
    """Copy a model into a folder, every file checked against its card."""
    try:
        click.echo(registry.fetch(name, into))
    except InvalidModel as exc:
        _end(exc)


def _end(exc: Exception) -> NoReturn:
    fail(str(exc))
    raise SystemExit(2) from exc
