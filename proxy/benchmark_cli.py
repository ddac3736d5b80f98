"""``rerank-canary benchmark``: rerankers side by side on a judged collection."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table as RichTable

from proxy.configuration import load
from proxy.errors import InvalidFile, InvalidModel, InvalidSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from proxy.offline.benchmark import Report, Run
    from proxy.offline.benchmark_tables import Table
    from proxy.offline.judged import Judged
    from proxy.offline.judged_collection import Sources
    from proxy.offline.rerankers import Reranker
    from proxy.settings import Settings

_F = TypeVar("_F", bound="Callable[..., Any]")
_RERANKERS = ("crossencoder", "legacy", "bm25", "none")
_errors = Console(stderr=True)
_FILE = click.Path(path_type=Path)


def collection_options(command: _F) -> _F:
    """Give a command the options that say which judged collection, and which configuration."""
    for option in reversed(
        [
            click.option(
                "--queries",
                type=_FILE,
                default=Path("sample_queries.jsonl"),
                show_default=True,
                help="JSONL, a TSV of id and text, or a BEIR folder. A file of the shipped sample is found by name.",
            ),
            click.option("--truth", type=_FILE, help="JSONL or qrels. None: judgements.jsonl beside the queries."),
            click.option("--passages", type=_FILE, help="JSONL or TSV. None: passages.jsonl beside the queries."),
            click.option(
                "--candidates",
                type=_FILE,
                help="TREC run, MS MARCO top-k, or JSON of lists. None: those of the queries, else BM25's best.",
            ),
            click.option("--split", default="test", show_default=True, help="Of a BEIR folder."),
            click.option("--depth", type=click.IntRange(1, 1000), default=25, show_default=True, help="Candidates."),
            click.option("--limit", type=click.IntRange(1), help="Only the first queries."),
            click.option("--skip-unknown", is_flag=True, help="Leave out judgements of unknown queries and passages."),
            click.option(
                "--min-grade",
                type=click.IntRange(1, 100),
                default=1,
                show_default=True,
                help="From which on recall and RR take a passage for relevant.",
            ),
            click.option("--config", type=_FILE, help="TOML file; else $RERANK_CANARY_CONFIG."),
            click.option("--concurrency", type=click.IntRange(1, 1000), default=1, show_default=True),
            click.option(
                "--llm-concurrency",
                type=click.IntRange(1, 1000),
                default=4,
                show_default=True,
                help="Calls to a language model under way at once: they do not slow each other down.",
            ),
            click.option("--seed", type=click.IntRange(0), default=1, show_default=True, help="Of the resamples."),
            click.option("--json", "as_json", is_flag=True, help="Print JSON for programs."),
            click.option("--html", type=_FILE, help="Write a page with plots, in one file."),
        ]
    ):
        command = option(command)
    return command


@click.command("benchmark")
@click.option(
    "--reranker",
    "rerankers",
    type=click.Choice([*_RERANKERS, "all"]),
    multiple=True,
    default=["all"],
    show_default=True,
    help="May be given several times.",
)
@click.option("--table", is_flag=True, help="Print the closing table of the swap: both arms, and the ratios.")
@collection_options
def benchmark(rerankers: Sequence[str], html: Path | None, *, table: bool, as_json: bool, **options: Any) -> None:
    """Rank a judged collection, and print quality, latency and cost.

    crossencoder is the candidate of the configuration, in this process as the proxy runs it; legacy its control: the
    language model, or its stand-in, marked, without a key. Exit code 2: a file or a setting cannot be used.
    """
    closing = ("legacy", "crossencoder") if table else ()
    names = _RERANKERS if "all" in rerankers else tuple(dict.fromkeys((*rerankers, *closing)))
    report = benchmark_of(names, **options)
    if html is not None:
        from proxy.offline.benchmark_page import page_of  # noqa: PLC0415 - numpy, which other commands need not wait for

        write_page(page_of(report), html)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        _print(report, is_closing=table)
    if any(one.failed == one.queries for one in report.summaries):
        sys.exit(1)


def benchmark_of(names: Sequence[str], **options: Any) -> Report:
    """Run rerankers as the options of the command say; ends the command where they cannot be used."""
    from proxy.offline.benchmark import report_of  # noqa: PLC0415 - numpy and models, which other commands need not wait for

    try:
        settings, judged = read(**options)
        runs = asyncio.run(run_all(names, settings, judged, options["concurrency"], options["llm_concurrency"]))
        return report_of(judged, runs, min_grade=options["min_grade"], seed=options["seed"])
    except (InvalidFile, InvalidSettings, InvalidModel) as exc:
        fail(str(exc))
        raise SystemExit(2) from exc


def read(config: Path | None, depth: int, limit: int | None, min_grade: int, **options: Any) -> tuple[Settings, Judged]:
    """Return the configuration and the collection that the options name.

    Raises:
        InvalidFile, InvalidSettings: one of them cannot be used.

    """
    from proxy.offline.judged_collection import read_collection  # noqa: PLC0415

    settings = load(os.environ, config)
    return settings, read_collection(_sources(options), depth, min_grade).first(limit or sys.maxsize, depth)


def _sources(options: dict[str, Any]) -> Sources:
    from proxy.offline.judged_collection import Sources  # noqa: PLC0415

    named = {name: options[name] for name in ("queries", "truth", "passages", "candidates", "split")}
    return Sources(**named, skips_unknown=options["skip_unknown"])


async def run_all(
    names: Iterable[str],
    settings: Settings,
    judged: Judged,
    concurrency: int,
    llm_concurrency: int,
    on_ran: Callable[[Reranker], None] = lambda _: None,
) -> list[Run]:
    """Run one reranker after the other, so that none waits for another's work; shows how far it is."""
    from proxy.offline.benchmark import run_one  # noqa: PLC0415
    from proxy.offline.rerankers import concurrency_of, make_reranker  # noqa: PLC0415

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    runs = []
    with Progress(*columns, console=_errors, transient=True, refresh_per_second=4) as progress:
        for name in names:
            task = progress.add_task(name, total=len(judged.candidates))
            at_once = concurrency_of(name, settings, concurrency, llm_concurrency)
            reranker = make_reranker(name, settings, judged)
            runs.append(await run_one(reranker, judged, at_once, lambda task=task: progress.advance(task)))  # type: ignore[misc]
            on_ran(reranker)
    return runs


def fail(reason: str) -> None:
    """Say why, in one line as it is."""
    _errors.print(f"rerank-canary: {reason}", style="red", markup=False, highlight=False, soft_wrap=True)


def show(table: Table, out: Console) -> None:
    """Print a table and what is to be said of it."""
    made = RichTable(title=escape(table.title), title_justify="left")
    for number, column in enumerate(table.columns):
        made.add_column(column, justify="right" if number else "left")
    for row in table.rows:
        made.add_row(*map(escape, row))
    out.print(made)
    for caption in table.captions:
        out.print(caption, style="dim", markup=False, highlight=False)


def console() -> Console:
    """Return where tables go: as wide as they are when it is no terminal."""
    return Console(highlight=False, width=None if Console().is_terminal else 150)


def _print(report: Report, *, is_closing: bool) -> None:
    from proxy.offline.benchmark_tables import (  # noqa: PLC0415
        closing_table,
        comparison_table,
        quality_table,
        speed_table,
    )

    out = console()
    closing = closing_table(report) if is_closing else None
    if closing is not None:
        show(closing, out)
        return
    for note in report.notes:
        out.print(note, style="yellow", markup=False)
    show(quality_table(report), out)
    show(speed_table(report), out)
    if report.comparisons:
        show(comparison_table(report), out)


def write_page(page: str, file: Path) -> None:
    """Write a page; ends the command where that is not possible."""
    try:
        file.write_text(page, encoding="utf-8")
    except OSError as exc:
        fail(f"{file}: cannot be written: {exc.strerror}")
        raise SystemExit(2) from exc
