"""`rerank-canary retrieve`: indexes a corpus, searches it, and measures what is found."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from proxy.benchmark_cli import console, fail, show
from proxy.errors import InvalidFile, InvalidModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.offline.retrieve import Found, Mode, Retriever

_T = TypeVar("_T")
_F = TypeVar("_F", bound="Callable[..., Any]")
_FILE = click.Path(path_type=Path)
_errors = Console(stderr=True)


def _model_options(command: _F) -> _F:
    """Give a command the options of the bi-encoder."""
    moved = "Where the bi-encoder lies by now. None: where it lay when the index was made."
    command = click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")(command)
    return click.option("--model", help=moved)(command)


@click.group("retrieve")
def retrieve() -> None:
    """Find passages by BM25 and by vectors, fused: the retriever before the reranker.

    Exit code 2: a file, an index or a model cannot be used.
    """


@retrieve.command("index")
@click.argument("corpus", type=_FILE)
@click.argument("index", type=_FILE)
@click.option("--model", help="A sentence-transformers bi-encoder: a folder or a name. None: BM25 only.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16"]),
    default="float32",
    show_default=True,
    help="Of the vectors on disk; float16 takes half of the room, and is slower to search.",
)
@click.option(
    "--precision",
    type=click.Choice(["float32", "bfloat16"]),
    default="float32",
    show_default=True,
    help="What passages are encoded in; bfloat16 is faster where the processor has it.",
)
@click.option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, ...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def index(corpus: Path, index: Path, model: str | None, *, as_json: bool, **how: Any) -> None:
    """Index CORPUS into the folder INDEX, in place of the index there once the new one is complete.

    CORPUS is JSONL, plain or gzipped, or Parquet, of id, text and maybe title. Vectors that the index there has of the
    same texts by the same model are taken over.
    """
    from proxy.offline.bi_encoder import BiEncoder  # noqa: PLC0415 - numpy and models, which others need not wait for
    from proxy.offline.index_corpus import write_index  # noqa: PLC0415

    def work() -> Any:
        encoder = BiEncoder(model, how["device"], how["precision"]) if model else None
        with _progress() as progress:
            task = progress.add_task("passages with a vector", total=None, visible=encoder is not None)
            return write_index(
                corpus,
                index,
                encoder,
                dtype=how["dtype"],
                on_encoded=lambda done, of: progress.update(task, completed=done, total=of),
            )

    made = _or_end(work)
    if as_json:
        _print_json(made)
        return
    what = f"BM25 and vectors of {made.dense.model}, revision {made.dense.revision}" if made.dense else "BM25 only"
    console().print(f"{index}: {made.passages:,} passages, {what}", markup=False)


@retrieve.command("search")
@click.argument("index", type=_FILE)
@click.argument("query")
@click.option("--top", type=click.IntRange(1, 10_000), default=10, show_default=True, help="Passages.")
@click.option("--mode", type=click.Choice(["hybrid", "bm25", "dense"]), help="None: the best that the index can do.")
@_model_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON lines for programs.")
def search(
    index: Path, query: str, top: int, mode: Mode | None, model: str | None, device: str, *, as_json: bool
) -> None:
    """Print what INDEX has for QUERY, the best first."""
    if not query.strip():
        _end("QUERY: must not be empty")
    found: list[Found] = _or_end(lambda: _load(index, model, device).search(query, top, mode))
    if as_json:
        for each in found:
            click.echo(msgspec.json.encode(_row(each)))
        return
    out = console()
    for rank, each in enumerate(found, start=1):
        places = f"bm25 {each.bm25_rank or '-'}, dense {each.dense_rank or '-'}"
        out.print(Text.assemble((f"{rank:>3} {each.passage.id}", "bold"), f"  ({places})"))
        out.print(Text("    " + " ".join(each.passage.whole.split())), overflow="ellipsis", no_wrap=True)
    if not found:
        out.print("nothing: no passage has a word of the query")


@retrieve.command("evaluate")
@click.argument("index", type=_FILE)
@click.option(
    "--queries",
    type=_FILE,
    default=Path("sample_queries.jsonl"),
    show_default=True,
    help="JSONL, a TSV of id and text, or a BEIR folder. A file of the shipped sample is found by name.",
)
@click.option("--truth", type=_FILE, help="JSONL or qrels. None: judgements.jsonl beside the queries.")
@click.option("--split", default="test", show_default=True, help="Of a BEIR folder.")
@click.option(
    "--rare-share",
    type=click.FloatRange(0, 1),
    default=0.001,
    show_default=True,
    help="A word is rare that this share of the passages has at most, or one passage.",
)
@_model_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def evaluate(
    index: Path, queries: Path, truth: Path | None, split: str, rare_share: float, *, as_json: bool, **model: Any
) -> None:
    """Measure BM25, vectors and both side by side; queries with a rare word apart."""
    from proxy.offline import retrieval_quality as quality  # noqa: PLC0415 - numpy, which others need not wait for

    def work() -> quality.Evaluation:
        asked = quality.read_asked(queries, truth, split)
        retriever = _load(index, **model)
        with _progress() as progress:
            task = progress.add_task("queries", total=len(asked))
            name = queries.name.partition(".")[0]
            on_done = lambda more: progress.advance(task, more)  # noqa: E731
            return quality.evaluate(retriever, asked, name=name, rare_share=rare_share, on_done=on_done)

    found = _or_end(work)
    if as_json:
        _print_json(found)
        return
    for table in quality.tables(found):
        show(table, console())


def _load(index: Path, model: str | None, device: str) -> Retriever:
    from proxy.offline.retrieve import Retriever  # noqa: PLC0415 - numpy and models, which others need not wait for

    return Retriever.load(index, model=model, device=device)


def _row(found: Found) -> dict[str, Any]:
    passage = found.passage
    title = {"title": passage.title} if passage.title else {}
    ranks = {"bm25_rank": found.bm25_rank, "dense_rank": found.dense_rank}
    return {"id": passage.id, **title, "text": passage.text, **ranks}


def _or_end(work: Callable[[], _T]) -> _T:
    """Return what *work* does; ends the command where its files cannot be used."""
    try:
        return work()
    except (InvalidFile, InvalidModel) as exc:
        _end(str(exc))


def _end(reason: str) -> NoReturn:
    fail(reason)
    sys.exit(2)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=_errors, transient=True, refresh_per_second=4)


def _print_json(found: object) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
