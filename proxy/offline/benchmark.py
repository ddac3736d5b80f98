"""Runs rerankers over a judged collection, and sums up what each is worth and how sure that is."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from proxy.offline.measures import MEASURES, values_of
from proxy.offline.rerankers import Ranked
from proxy.offline.significance import RESAMPLES, holm, intervals, randomisation_p

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.offline.judged import Judged
    from proxy.offline.rerankers import Reranker


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What one reranker made of every query."""

    name: str
    model: str
    ranked: dict[str, Ranked]
    """By query."""
    seconds: float
    """From the first query to the last answer."""
    concurrency: int
    stand_in: str | None = None
    machine_dollars_per_hour: float | None = None


class Value(msgspec.Struct, frozen=True):
    """A mean over the queries, and where the mean of all such queries lies with 95 % confidence."""

    mean: float
    low: float
    high: float


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One reranker in figures."""

    name: str
    model: str
    queries: int
    failed: int
    """Queries that it did not rank: they count in the order received."""
    failures: dict[str, int]
    measures: dict[str, Value]
    mean_ms: float
    p50_ms: float
    p95_ms: float
    queries_per_second: float
    concurrency: int
    tokens: int
    """Read by the model in all queries together."""
    output_tokens: int
    dollars_per_thousand: float | None
    """None: nobody said what the machine, or a token, costs."""
    cost_basis: str
    stand_in: str | None
    model_share: float
    """Of the run's time, what the model took: the rest is the benchmark's own. Above 1 where queries overlap."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Reranker *a* minus reranker *b*, query by query."""

    a: str
    b: str
    measure: str
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    """Corrected for the pairs that are compared by this measure."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """All that a benchmark says."""

    collection: str
    queries: int
    documents: int
    candidates: float
    """Mean a query."""
    min_grade: int
    seed: int
    resamples: int
    notes: tuple[str, ...]
    summaries: list[Summary]
    comparisons: list[Comparison]
    values: dict[str, dict[str, list[float]]]
    """Reranker → measure → one value for each of `query_ids`."""
    latencies_ms: dict[str, list[float]]
    query_ids: list[str]


async def run_one(reranker: Reranker, judged: Judged, concurrency: int, on_query: Callable[[], None]) -> Run:
    """Rank every query, *concurrency* at once; a query that fails is one of the answers.

    Raises:
        InvalidModel: the reranker can never rank as configured.

    """
    try:
        await reranker.start()
        queries = iter(judged.candidates)
        ranked: dict[str, Ranked] = {}

        async def work() -> None:
            for query in queries:
                ranked[query] = await reranker.rank(query)
                on_query()

        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
        return Run(
            name=reranker.name,
            model=reranker.model,
            ranked={query: ranked[query] for query in judged.candidates},
            seconds=time.perf_counter() - began,
            concurrency=concurrency,
            stand_in=reranker.stand_in,
            machine_dollars_per_hour=reranker.machine_dollars_per_hour,
        )
    finally:
        await reranker.close()


def report_of(judged: Judged, runs: Sequence[Run], *, min_grade: int = 1, seed: int = 1) -> Report:
    """Return the figures of *runs*, and each pair of them compared query by query."""
    values = {run.name: _values(judged, run, min_grade) for run in runs}
    between = intervals(np.hstack(list(values.values())), seed=seed)
    columns = len(MEASURES)
    summaries = [
        summary_of(run, values[run.name], between[i * columns : (i + 1) * columns]) for i, run in enumerate(runs)
    ]
    return Report(
        collection=judged.name,
        queries=len(judged.candidates),
        documents=len(judged.documents),
        candidates=sum(map(len, judged.candidates.values())) / len(judged.candidates),
        min_grade=min_grade,
        seed=seed,
        resamples=RESAMPLES,
        notes=judged.notes,
        summaries=summaries,
        comparisons=compare([(run.name, values[run.name]) for run in runs], seed=seed),
        values={name: {m: found[:, i].tolist() for i, m in enumerate(MEASURES)} for name, found in values.items()},
        latencies_ms={run.name: [1000 * ranked.seconds for ranked in run.ranked.values()] for run in runs},
        query_ids=list(judged.candidates),
    )


def _values(judged: Judged, run: Run, min_grade: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return (queries, measures)."""
    rows = []
    for query, ids in judged.candidates.items():
        found = values_of([ids[place] for place in run.ranked[query].order], judged.grades[query], min_grade)
        rows.append([found[measure] for measure in MEASURES])
    return np.array(rows)


def summary_of(
    run: Run, values: np.ndarray[tuple[int, int], np.dtype[np.float64]], between: Sequence[tuple[float, float]]
) -> Summary:
    """Return one reranker's figures; *between* are the intervals of its measures."""
    found = list(run.ranked.values())
    milliseconds = np.array([1000 * ranked.seconds for ranked in found])
    failures: dict[str, int] = {}
    for ranked in found:
        if ranked.error is not None:
            failures[ranked.error] = failures.get(ranked.error, 0) + 1
    dollars, basis = _cost(run)
    p50, p95 = np.quantile(milliseconds, [0.5, 0.95])
    means = values.mean(axis=0)
    return Summary(
        name=run.name,
        model=run.model,
        queries=len(found),
        failed=sum(failures.values()),
        failures=failures,
        measures={m: Value(float(mean), *limits) for m, mean, limits in zip(MEASURES, means, between, strict=True)},
        mean_ms=float(milliseconds.mean()),
        p50_ms=float(p50),
        p95_ms=float(p95),
        queries_per_second=len(found) / max(run.seconds, 1e-9),
        concurrency=run.concurrency,
        tokens=sum(ranked.tokens for ranked in found),
        output_tokens=sum(ranked.output_tokens for ranked in found),
        dollars_per_thousand=dollars,
        cost_basis=basis,
        stand_in=run.stand_in,
        model_share=sum(ranked.model_seconds for ranked in found) / max(run.seconds, 1e-9),
    )


def _cost(run: Run) -> tuple[float | None, str]:
    """Return dollars for a thousand queries, and what they are counted by."""
    found = list(run.ranked.values())
    billed = [ranked.dollars for ranked in found if ranked.dollars is not None]
    if len(billed) < len(found):
        return None, "no price of this model is configured (backends.*.prices)"
    if run.machine_dollars_per_hour is not None:
        hours = run.seconds / 3600 / len(found)
        return 1000 * run.machine_dollars_per_hour * hours, (
            f"${run.machine_dollars_per_hour:g} an hour of the machine, kept busy at {run.concurrency} at once"
        )
    if any(billed):
        return 1000 * sum(billed) / len(found), "the tokens of each call, by the price table"
    if run.name in {"bm25", "none"}:
        return 0.0, "nothing to pay"
    return None, "nobody said what its machine costs (machine_dollars_per_hour)"


def compare(
    runs: Sequence[tuple[str, np.ndarray[tuple[int, int], np.dtype[np.float64]]]], *, seed: int
) -> list[Comparison]:
    """Return each pair of *runs* (name, (queries, measures)) by each measure."""
    pairs = list(itertools.combinations(runs, 2))
    if not pairs:
        return []
    differences = np.hstack([a - b for (_, a), (_, b) in pairs])
    limits = intervals(differences, seed=seed)
    p_values = randomisation_p(differences, seed=seed)
    found = []
    for column, measure in enumerate(MEASURES):
        places = [column + i * len(MEASURES) for i in range(len(pairs))]
        corrected = holm([p_values[place] for place in places])
        for ((a, _), (b, _)), place, p_holm in zip(pairs, places, corrected, strict=True):
            found.append(
                Comparison(
                    a=a,
                    b=b,
                    measure=measure,
                    difference=float(differences[:, place].mean()),
                    low=limits[place][0],
                    high=limits[place][1],
                    p=p_values[place],
                    p_holm=p_holm,
                )
            )
    return found
