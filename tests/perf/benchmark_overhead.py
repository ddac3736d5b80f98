"""What the benchmark takes beside the model that it measures: ``python -m tests.perf.benchmark_overhead``.

The whole command on the shipped sample, from reading the files to the written page, is taken against the time that
tokenising and the model took inside it; loading the model and importing the libraries are no part of either.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import click

from proxy.offline.benchmark import report_of, run_one
from proxy.offline.benchmark_page import page_of
from proxy.offline.judged_collection import Sources, read_collection
from proxy.offline.rerankers import make_reranker
from proxy.settings import Settings
from tests.perf.machine import console, keep, table, this_machine


def measure() -> tuple[float, float]:
    """Return (seconds of the model, seconds beside it) of one whole benchmark."""
    began = time.perf_counter()
    judged = read_collection(Sources(), 25)
    prepared = time.perf_counter() - began
    run = asyncio.run(run_one(make_reranker("crossencoder", Settings(), judged), judged, 1, lambda: None))
    began = time.perf_counter()
    report = report_of(judged, [run])
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "page.html").write_text(page_of(report), encoding="utf-8")
    reported = time.perf_counter() - began
    model = sum(ranked.model_seconds for ranked in run.ranked.values())
    return model, prepared + (run.seconds - model) + reported


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Keep the figures.")
def main(rounds: int, file: Path | None) -> None:
    """Print the overhead; the limit is 5 %."""
    machine = this_machine()
    found = [measure() for _ in range(rounds)]
    share = statistics.median(beside / model for model, beside in found)
    rows = [
        [str(n), f"{model:.2f}", f"{1000 * beside:.0f}", f"{beside / model:.1%}"]
        for n, (model, beside) in enumerate(found, 1)
    ]
    console().print(
        table(
            f"benchmark beside the model: median {share:.1%}",
            ["round", "model s", "beside ms", "share"],
            rows,
            str(machine),
        )
    )
    keep(file, machine, rounds=found, median_share=share)


if __name__ == "__main__":
    main()
