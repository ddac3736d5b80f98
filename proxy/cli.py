"""The ``rerank-canary`` command."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click
import uvloop
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flags.store import StoreNotStarted
from proxy.baseline_cli import baseline
from proxy.benchmark_cli import benchmark
from proxy.calibrate_cli import calibrate
from proxy.cluster_cli import create_flag, smoke
from proxy.configuration import load
from proxy.demo_cli import demo
from proxy.errors import InvalidModel, InvalidSettings
from proxy.guard_cli import GUARD_COMMANDS
from proxy.logs import configure_logs
from proxy.mine_cli import mine
from proxy.models_cli import models
from proxy.quantize_cli import quantize
from proxy.retrieve_cli import retrieve
from proxy.rollout_cli import COMMANDS
from proxy.secrets import hash_key, new_key
from proxy.simulate_cli import simulate
from proxy.train_cli import train

if TYPE_CHECKING:
    from proxy.listeners import Listener
    from proxy.parts import Parts
    from proxy.settings import Settings

_errors = Console(stderr=True)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rerank-canary")
def main() -> None:
    """Canary rollout proxy for rerankers."""


@main.command()
@click.option("--config", "file", type=click.Path(path_type=Path), help="TOML file; else $RERANK_CANARY_CONFIG.")
def serve(file: Path | None) -> None:
    """Serve data plane and control plane until SIGTERM."""
    from proxy.server import serve as run  # noqa: PLC0415 - seconds to import, which other commands need not wait for

    _hold_standard_files()
    settings = _settings(file)
    lines = configure_logs(settings.telemetry)
    try:
        uvloop.run(run(settings, os.environ, _banner, lines))
    except (InvalidSettings, InvalidModel, StoreNotStarted) as exc:
        _fail(str(exc))


@main.command("check-config")
@click.option("--config", "file", type=click.Path(path_type=Path), help="TOML file; else $RERANK_CANARY_CONFIG.")
def check_config(file: Path | None) -> None:
    """Read the configuration as `serve` does, and say what is wrong with it; no model is loaded, no server asked."""
    _settings(file)
    click.echo("the configuration is valid")


@main.command("new-key")
def make_key() -> None:
    """Make a key: the first line for the caller, the second for the configuration."""
    key = new_key()
    click.echo(key)
    click.echo(hash_key(key))


_OTHERS = (
    baseline,
    benchmark,
    calibrate,
    create_flag,
    demo,
    mine,
    models,
    quantize,
    retrieve,
    simulate,
    smoke,
    train,
)
for _command in (*COMMANDS, *GUARD_COMMANDS, *_OTHERS):
    main.add_command(_command)


def _hold_standard_files() -> None:
    """Put nothing where a standard file is closed: a socket would get its number, and libuv aborts on such a one."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def _settings(file: Path | None) -> Settings:
    """Return settings that this machine can serve, as far as that shows before anything is started."""
    from proxy.preflight import check_machine  # noqa: PLC0415 - half a second, which other commands need not wait for

    try:
        settings = load(os.environ, file)
        check_machine(settings, os.environ)
    except (InvalidSettings, InvalidModel) as exc:
        _fail(str(exc))
    return settings


def _fail(reason: str) -> NoReturn:
    """Say why, in one line as it is: a `[torch]` is no markup, and logs are no 80 columns wide."""
    _errors.print(Text.assemble(("rerank-canary: ", "bold red"), reason), highlight=False, soft_wrap=True)
    sys.exit(2)


def _banner(parts: Parts, data: Listener, control: Listener) -> None:
    """Say to people where it listens and what is real; programs read it in the log."""
    if not _errors.is_terminal:
        return
    state = parts.gate.state
    share = "unknown" if state.rollout is None else f"{state.rollout.share_percent} %"
    table = Table.grid(padding=(0, 2))
    table.add_row("data plane", data.url, "POST /v1/rerank, docs at /docs")
    table.add_row("control plane", control.url, "/status /metrics")
    table.add_row("candidate", share, Text(parts.model_names()[0]))
    table.add_row("flag", state.source, Text(state.flag))
    if parts.stand_in is not None:
        table.add_row("[yellow]stand-in[/]", "", "[yellow]no OPENAI_API_KEY: control answers come from a stand-in[/]")
    _errors.print(Panel(table, title=f"rerank-canary {parts.version}", expand=False))


if __name__ == "__main__":
    main()
