"""``rerank-canary train``: fine-tunes a reranker or a retriever on ranking lists, such as `mine` writes.

On several GPUs: ``torchrun --nproc-per-node 4 -m proxy.cli train reranker ...``; the first process writes.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
import msgspec
from rich.console import Console

from proxy.benchmark_cli import fail
from proxy.errors import InvalidFile, InvalidModel, InvalidSettings
from proxy.extras import TRAIN, require_extra

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from proxy.offline.train import Trained
    from proxy.offline.trainer import Schedule
    from proxy.offline.training_data import TrainingSet

_F = TypeVar("_F", bound="Callable[..., Any]")
_FILE = click.Path(path_type=Path)
_ABOVE_0 = click.FloatRange(0, min_open=True)
_MIN_HELD_OUT = 10
_out = Console()


def _shared(*, start: str, batch: int, learning_rate: float) -> Callable[[_F], _F]:
    """Give a command the options that both have."""
    options = [
        click.argument("data", type=_FILE),
        click.option("--out", type=_FILE, required=True, help="A folder; training goes on from a checkpoint in it."),
        click.option(
            "--from", "start", default=start or None, show_default=True, required=not start, help="The model."
        ),
        click.option("--held-out", type=_FILE, help="Lists that show what it gains. None: part of DATA."),
        click.option("--held-out-lists", type=click.IntRange(_MIN_HELD_OUT), default=150, show_default=True),
        click.option("--passages", type=_FILE, help="JSONL of strings, where the lists name passages by line."),
        click.option("--exclude-source", multiple=True, help="Leave out lists whose `src` is this."),
        click.option("--epochs", type=click.IntRange(1), default=1, show_default=True),
        click.option("--batch", type=click.IntRange(1), default=batch, show_default=True, help="Lists a step."),
        click.option("--learning-rate", type=_ABOVE_0, default=learning_rate, show_default=True),
        click.option("--max-minutes", type=_ABOVE_0, help="End then; the best so far is kept."),
        click.option("--max-lists", type=click.IntRange(1), help="No more than these, drawn at random."),
        click.option("--seed", type=int, default=20, show_default=True),
        click.option("--json", "as_json", is_flag=True, help="Print JSON for programs."),
    ]

    def give(command: _F) -> _F:
        for option in reversed(options):
            command = option(command)
        return command

    return give


@click.group("train")
def train() -> None:
    """Make a better model: ranking lists in, weights out. Ends with exit code 2 where a file or a model cannot be used.

    DATA is JSONL, gzipped or not: {"q": query, "pos": [passages], "neg": [passages]}, as `mine` writes it.
    """


@train.command("reranker")
@_shared(start="shipped", batch=16, learning_rate=5e-5)
@click.option("--list-size", type=click.IntRange(2, 64), default=8, show_default=True, help="Passages of a list.")
@click.option("--max-length", type=click.IntRange(32, 512), default=176, show_default=True, help="Tokens of a pair.")
@click.option("--layers", type=click.IntRange(1), help="Keep only so many layers of the model.")
@click.option("--teacher", type=_FILE, help="A bi-encoder whose similarities are learned as well.")
@click.option("--train-embeddings", is_flag=True, help="Embeddings, too: half of the weights of a small model.")
def reranker(**given: Any) -> None:
    """Fine-tune a cross-encoder. `rerank-canary quantize` makes of it what the CPU engine serves."""
    with _told():
        data, schedule = _data(given), _schedule(given)
        from proxy.offline.train import RerankerPlan, train_reranker  # noqa: PLC0415 - torch takes seconds

        own = {name: given[name] for name in ("start", "out", "list_size", "max_length", "layers", "teacher")}
        plan = RerankerPlan(schedule=schedule, train_embeddings=given["train_embeddings"], **own)
        with contextlib.redirect_stdout(sys.stderr):
            found = train_reranker(plan, data)
        _say(found, as_json=given["as_json"])


@train.command("retriever")
@_shared(start="", batch=32, learning_rate=2e-5)
@click.option("--max-length", type=click.IntRange(32, 512), default=160, show_default=True, help="Tokens of a passage.")
@click.option("--negatives", type=click.IntRange(0, 16), default=1, show_default=True, help="Hard ones a positive.")
def retriever(**given: Any) -> None:
    """Fine-tune a bi-encoder, the dense half of `rerank-canary retrieve`."""
    with _told():
        data, schedule = _data(given), _schedule(given)
        from proxy.offline.train_retriever import RetrieverPlan, train_retriever  # noqa: PLC0415 - torch

        own = {name: given[name] for name in ("start", "out", "max_length", "negatives")}
        with contextlib.redirect_stdout(sys.stderr):
            found = train_retriever(RetrieverPlan(schedule=schedule, **own), data)
        _say(found, as_json=given["as_json"])


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """End with the message of an error, not with its trace."""
    try:
        require_extra("train", "train", TRAIN)
        yield
    except (InvalidFile, InvalidSettings, InvalidModel) as exc:
        fail(str(exc))
        raise SystemExit(2) from exc


def _data(given: dict[str, Any]) -> TrainingSet:
    from proxy.offline.training_data import TrainingSet, read_lists, read_passages, split  # noqa: PLC0415

    exclude = frozenset(given["exclude_source"])
    lists = read_lists(given["data"], exclude=exclude)
    if given["held_out"]:
        training, held_out = lists, read_lists(given["held_out"], exclude=exclude)
    else:
        training, held_out = split(lists, given["held_out_lists"], given["seed"])
    if not training or len(held_out) < _MIN_HELD_OUT:
        raise InvalidFile(
            given["held_out"] or given["data"],
            f"{len(training)} lists to train on and {len(held_out)} held out; it takes 1 and {_MIN_HELD_OUT}",
        )
    passages = read_passages(given["passages"]) if given["passages"] else []
    return TrainingSet(training, held_out, passages).checked(given["data"])


def _schedule(given: dict[str, Any]) -> Schedule:
    from proxy.offline.trainer import Schedule  # noqa: PLC0415 - torch

    minutes = given["max_minutes"]
    return Schedule(
        epochs=given["epochs"],
        batch=given["batch"],
        learning_rate=given["learning_rate"],
        max_examples=given["max_lists"],
        max_seconds=minutes and minutes * 60,
        seed=given["seed"],
    )


def _say(found: Trained, *, as_json: bool) -> None:
    if os.environ.get("RANK", "0") != "0":
        return
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
        return
    _out.print(
        f"{found.metric} of held-out queries {found.before:.4f} → {found.after:.4f}, after {found.steps} steps"
        f" ({found.lists} lists, {found.seconds:.0f} s)",
        highlight=False,
    )
    _out.print(f"[dim]written to[/] {found.folder}", highlight=False, soft_wrap=True)
