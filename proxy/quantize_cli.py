"""``rerank-canary quantize``: a smaller and faster version of a cross-encoder, and what that loses."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from proxy.benchmark_cli import console, fail, show
from proxy.errors import InvalidFile, InvalidModel, InvalidSettings
from proxy.extras import TRAIN, require_extra

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.offline.judged import Judged
    from proxy.offline.quantize import Progress, Quantized

_errors = Console(stderr=True)
_FILE = click.Path(path_type=Path)


@click.command("quantize")
@click.argument("model", type=_FILE)
@click.option("--out", type=_FILE, help="The folder to write. None: MODEL with `-int8` after it.")
@click.option(
    "--max-loss",
    type=click.FloatRange(-1, 1),
    default=0.01,
    show_default=True,
    help="Nothing is written where a larger share of nDCG@10 is lost.",
)
@click.option(
    "--queries",
    type=_FILE,
    default=Path("sample_queries.jsonl"),
    show_default=True,
    help="JSONL, a TSV of id and text, or a BEIR folder. A file of the shipped sample is found by name.",
)
@click.option("--truth", type=_FILE, help="JSONL or qrels. None: judgements.jsonl beside the queries.")
@click.option("--passages", type=_FILE, help="JSONL or TSV. None: passages.jsonl beside the queries.")
@click.option("--candidates", type=_FILE, help="TREC run, MS MARCO top-k, or JSON of lists. None: of the queries.")
@click.option(
    "--ranges-from",
    type=_FILE,
    help="Queries whose candidates give the activation ranges. None: every fourth of --queries, not measured then.",
)
@click.option("--split", default="test", show_default=True, help="Of a BEIR folder.")
@click.option("--depth", type=click.IntRange(2, 1000), default=25, show_default=True, help="Candidates.")
@click.option("--limit", type=click.IntRange(1), help="Only the first queries.")
@click.option("--skip-unknown", is_flag=True, help="Leave out judgements of unknown queries and passages.")
@click.option("--threads", type=click.IntRange(0), default=0, help="Of the model. [default: one a core]")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def quantize(model: Path, out: Path | None, max_loss: float, threads: int, *, as_json: bool, **options: Any) -> None:
    """Write MODEL, the folder of a sentence-transformers cross-encoder, as calibrated int8 for the OpenVINO engine.

    Shows size, time and what is lost against float32 on a judged collection, and fits there what the scores mean. Exit
    code 1: it loses more than allowed, and is not written. Exit code 2: a file or the model cannot be used.
    """
    try:
        require_extra("quantize", "train", TRAIN)
        found = _quantized(model, out, max_loss, threads, options)
    except (InvalidFile, InvalidSettings, InvalidModel) as exc:
        fail(str(exc))
        raise SystemExit(2) from exc
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
    else:
        _print(found)
    if not found.is_written:
        fail(f"{found.folder} is not written: of nDCG@10 {found.loss:.2%} is lost, at most {max_loss:.2%} is allowed")
        sys.exit(1)


def _quantized(model: Path, out: Path | None, max_loss: float, threads: int, options: dict[str, Any]) -> Quantized:
    from proxy.offline.quantize import Plan, quantize_model  # noqa: PLC0415 - seconds, which others need not wait for

    judged = _collection(options)
    given = options["ranges_from"]
    named = {"truth": None, "passages": None, "candidates": None, "limit": None}
    ranges = _collection({**options, **named, "queries": given}) if given else None
    plan = Plan(
        model=model,
        out=out or model.absolute().with_name(f"{model.absolute().name}-int8"),
        judged=judged,
        ranges=ranges,
        max_loss=max_loss,
        threads=threads or len(os.sched_getaffinity(0)),
    )
    with _progress() as progress, contextlib.redirect_stdout(sys.stderr):  # nncf draws bars of its own, on stdout
        return quantize_model(plan, progress)


def _collection(options: dict[str, Any]) -> Judged:
    from proxy.offline.judged_collection import Sources, read_collection  # noqa: PLC0415 - numpy

    named = {name: options[name] for name in ("queries", "truth", "passages", "candidates", "split")}
    sources = Sources(**named, skips_unknown=options["skip_unknown"])
    return read_collection(sources, options["depth"]).first(options["limit"] or sys.maxsize, options["depth"])


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """Show on stderr what is done, and how far it is."""
    from proxy.offline.quantize import Progress  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=_errors, transient=True, refresh_per_second=4) as bar:
        task = bar.add_task("")
        yield Progress(lambda what, total: bar.reset(task, description=what, total=total), lambda: bar.advance(task))


def _print(found: Quantized) -> None:
    from proxy.offline.quantize_tables import table_of  # noqa: PLC0415

    out = console()
    show(table_of(found), out)
    if found.is_written:
        out.print(f"written to {found.folder}: RERANK_MODEL={found.folder} serves it", markup=False)
