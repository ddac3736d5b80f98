"""``rerank-canary mine``: makes lists to train on of what users clicked."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from proxy.benchmark_cli import console, fail, show
from proxy.errors import BackendError, InvalidFile, InvalidModel, InvalidSettings
from proxy.moments import Moment

if TYPE_CHECKING:
    from proxy.learning.mining_plan import MiningPlan, MiningReport

_PATH = click.Path(path_type=Path)
_PACKAGES = ("duckdb", "fsspec", "pyarrow")
_errors = Console(stderr=True)


@click.command("mine")
@click.option("--events", required=True, help="The event log: a folder or a URL.")
@click.option("--since", type=Moment(), default="30d", show_default=True, help="ISO 8601 in UTC, or ago.")
@click.option("--until", type=Moment(), default="now", show_default=True)
@click.option("--out", type=_PATH, required=True, help="Folder to make, in place of the mined set there.")
@click.option("--passages", type=_PATH, help="Texts by id, JSONL or Parquet, where the log has ids only.")
@click.option("--index", type=_PATH, help="Of `retrieve index`: its best that nobody was shown are negatives too.")
@click.option("--index-model", help="Where the index's bi-encoder lies by now. None: where it lay then.")
@click.option(
    "--model", default="shipped", show_default=True, help="The reranker that false negatives are told by: a folder."
)
@click.option("--no-model", is_flag=True, help="Tell no false negatives: much faster.")
@click.option(
    "--held-out-share",
    type=click.FloatRange(0, 0.9),
    default=0.2,
    show_default=True,
    help="Of the lists: those of the queries that were asked last for the first time.",
)
@click.option(
    "--margin",
    type=click.FloatRange(0, 1),
    default=0.1,
    show_default=True,
    help="A negative is left out whose probability is above the positive's less this (or half of it).",
)
@click.option(
    "--max-per-user", type=click.IntRange(1), default=200, show_default=True, help="Opinions of one user at most."
)
@click.option("--max-lists", type=click.IntRange(1), help="To train on; a sample of them where there are more.")
@click.option(
    "--min-lists", type=click.IntRange(1), default=200, show_default=True, help="To train on; fewer: exit code 1."
)
@click.option("--eta", type=click.FloatRange(0, 3), default=1.0, show_default=True, help="As [feedback] eta.")
@click.option("--weight-clip", type=click.FloatRange(1), default=10.0, show_default=True, help="As [feedback].")
@click.option("--memory", default="4GB", show_default=True, help="That DuckDB may use before it writes to the disk.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True)
@click.option("--skip-broken", is_flag=True, help="Count parts that cannot be read, and go on without them.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def mine(*, as_json: bool, **options: Any) -> None:
    """Make ranking lists of the event log: what users chose, and what they saw and left.

    Writes train.jsonl, held_out.jsonl and report.json into --out, all or nothing; no query is in both parts.
    Exit code 1: there are too few clicks to train on. 2: a file, a setting or a model cannot be used.
    """
    if missing := [name for name in _PACKAGES if find_spec(name) is None]:
        _end(f"mine: needs {' and '.join(missing)}: pip install 'rerank-canary[train]'", 2)
    from proxy.events.reading import UnreadableEvents  # noqa: PLC0415 - an extra
    from proxy.learning.mining_plan import MiningPlan, TooFewClicks  # noqa: PLC0415
    from proxy.learning.mining_tables import tables  # noqa: PLC0415

    if options["until"] <= options["since"]:
        raise click.UsageError("--until must be after --since")
    if options.pop("no_model"):
        options["model"] = None
    try:
        report = _mine(MiningPlan(**options))
    except TooFewClicks as exc:
        _end(str(exc), 1)
    except (InvalidFile, InvalidSettings, InvalidModel, UnreadableEvents) as exc:
        _end(str(exc), 2)
    except BackendError as exc:
        _end(f"--model: {exc.message}", 2)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
        return
    for table in tables(report):
        show(table, console())


def _mine(plan: MiningPlan) -> MiningReport:
    from proxy.learning.mining import mine as run  # noqa: PLC0415 - duckdb and models, which others need not wait for

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_errors, transient=True, refresh_per_second=4) as progress:
        task = progress.add_task("", total=None)
        return run(plan, lambda step, done, of: progress.update(task, description=step, completed=done, total=of))


def _end(reason: str, code: int) -> NoReturn:
    fail(reason)
    sys.exit(code)
