"""What a benchmark found, as tables for the terminal: rows of words, which the page shows as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from proxy.offline.measures import MEASURES

if TYPE_CHECKING:
    from proxy.offline.benchmark import Comparison, Report, Summary


class Table(msgspec.Struct, frozen=True):
    """A title, a heading for each column, and rows; the first column is words, the rest are figures."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    captions: list[str] = []


def quality_table(report: Report) -> Table:
    """Return the measures of each reranker, with their 95 % intervals."""
    rows = [
        [f"{one.name}{'*' if one.stand_in else ''}", *(_value(one, measure) for measure in MEASURES)]
        for one in report.summaries
    ]
    title = f"{report.collection}: {report.queries} queries, {report.candidates:.3g} candidates each"
    captions = [f"relevant for recall and RR: grade {report.min_grade} and above; ± half of the 95 % interval"]
    if report.candidates <= 25:
        captions.append("recall@25 of 25 candidates is the retriever's: no reranker can change it")
    return Table(title, ["reranker", *MEASURES], rows, captions)


def speed_table(report: Report) -> Table:
    """Return latency, throughput and cost of each reranker."""
    rows = [
        [
            f"{one.name}{'*' if one.stand_in else ''}",
            *(f"{ms:,.3g}" if ms < 1000 else f"{ms:,.0f}" for ms in (one.mean_ms, one.p50_ms, one.p95_ms)),
            f"{one.queries_per_second:,.3g}" if one.queries_per_second < 1000 else f"{one.queries_per_second:,.0f}",
            str(one.concurrency),
            f"{one.tokens / one.queries:,.0f}",
            "-" if one.dollars_per_thousand is None else f"{one.dollars_per_thousand:,.4f}",
            str(one.failed),
        ]
        for one in report.summaries
    ]
    columns = ["reranker", "mean ms", "p50 ms", "p95 ms", "queries/s", "at once", "tokens", "$/1000 queries", "failed"]
    captions = [f"{one.name}: {one.model}; cost: {one.cost_basis}" for one in report.summaries]
    captions += [f"* {one.stand_in}" for one in report.summaries if one.stand_in]
    captions += [f"{one.name}: {n}x {why}" for one in report.summaries for why, n in one.failures.items()]
    return Table("speed and cost", columns, rows, captions)


def comparison_table(report: Report) -> Table:
    """Return the paired differences that a reranker can make."""
    rows = [
        [
            f"{each.a} - {each.b}",
            each.measure,
            f"{each.difference:+.4f}",
            f"{each.low:+.4f} to {each.high:+.4f}",
            _p(each.p),
            _p(each.p_holm),
            _verdict(each),
        ]
        for each in report.comparisons
        if not (each.measure == "recall@25" and each.difference == each.low == each.high == 0)
    ]
    captions = [
        (
            f"intervals: paired bootstrap; p: two-sided randomisation test over queries; "
            f"{report.resamples:,} resamples, seed {report.seed}; Holm: corrected for the pairs of one measure"
        )
    ]
    columns = ["difference", "measure", "mean", "95 % interval", "p", "p (Holm)", "better"]
    return Table("paired differences", columns, rows, captions)


def closing_table(report: Report) -> Table | None:
    """Return the plan's closing table, both arms and their ratio; None: not both of them ran."""
    by_name = {one.name: one for one in report.summaries}
    if not {"legacy", "crossencoder"} <= by_name.keys():
        return None
    old, new = by_name["legacy"], by_name["crossencoder"]
    star = "*" if old.stand_in else ""
    rows = [
        [
            "tokens billed a query",
            f"{_billed(old):,.0f}{star}",
            f"{_billed(new):,.0f}",
            _ratio(_billed(old), _billed(new)),
        ],
        [
            "$ a thousand queries",
            f"{_dollars(old)}{star}",
            _dollars(new),
            _ratio(old.dollars_per_thousand, new.dollars_per_thousand),
        ],
        ["p95 latency, ms", f"{old.p95_ms:,.0f}{star}", f"{new.p95_ms:,.1f}", _ratio(old.p95_ms, new.p95_ms)],
        [
            "nDCG@10",
            f"{old.measures['nDCG@10'].mean:.3f}{star}",
            f"{new.measures['nDCG@10'].mean:.3f}",
            _ratio(old.measures["nDCG@10"].mean, new.measures["nDCG@10"].mean),
        ],
    ]
    captions = [
        f"{report.queries} queries of {report.collection}; legacy: {old.model}; cross-encoder: {new.model}",
        (
            f"legacy: {old.cost_basis}; cross-encoder: {new.cost_basis}; its own "
            f"{new.tokens / new.queries:,.0f} tokens a query are billed by nobody"
        ),
        *([f"* {old.stand_in}"] if old.stand_in else []),
        *(
            f"{one.name} failed on {one.failed} of {one.queries} queries: they have the order received, at no cost"
            for one in (old, new)
            if one.failed
        ),
    ]
    return Table("the swap in figures", ["", "legacy (GPT)", "cross-encoder", "ratio"], rows, captions)


def _billed(one: Summary) -> float:
    """Return the tokens that somebody asks money for, a query."""
    return 0.0 if one.name == "crossencoder" else (one.tokens + one.output_tokens) / one.queries


def _dollars(one: Summary) -> str:
    return "not known" if one.dollars_per_thousand is None else f"{one.dollars_per_thousand:.4f}"


def _ratio(old: float | None, new: float | None) -> str:
    if old is None or new is None:
        return "-"
    if new == 0:
        return "all saved" if old else "1"
    ratio = old / new
    return f"{ratio:,.3g}x less" if ratio >= 1.1 else f"{ratio:.3f}"


def _value(one: Summary, measure: str) -> str:
    value = one.measures[measure]
    return f"{value.mean:.3f} ± {(value.high - value.low) / 2:.3f}"


def _p(p: float) -> str:
    return f"{p:.4f}" if p >= 0.001 else f"{p:.1e}"


def _verdict(each: Comparison) -> str:
    if each.p_holm > 0.05:
        return "not told apart"
    return each.a if each.difference > 0 else each.b
