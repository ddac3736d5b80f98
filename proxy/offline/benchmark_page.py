"""A benchmark's report as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.offline.benchmark_tables import closing_table, comparison_table, quality_table, speed_table
from proxy.offline.charts import Axis, Line, bar_chart, line_chart
from proxy.offline.page import html_table, page, section

if TYPE_CHECKING:
    from proxy.offline.benchmark import Report

_PLOTTED = "nDCG@10"


def page_of(report: Report) -> str:
    """Return the whole file."""
    closing = closing_table(report)
    stand_ins = [f"* {one.name}: {one.stand_in}" for one in report.summaries if one.stand_in]
    parts = [
        *([html_table(closing)] if closing else []),
        html_table(quality_table(report)),
        section(f"{_PLOTTED} of the queries", _quality_plot(report)),
        *_difference_plots(report),
        html_table(speed_table(report)),
        section("latency", _latency_plot(report)),
        *([html_table(comparison_table(report))] if report.comparisons else []),
    ]
    return page(f"Rerankers on {report.collection}", [*stand_ins, *report.notes], parts)


def _quality_plot(report: Report) -> str:
    """Draw which share of the queries each reranker ranks at most so well: the lower the line, the better."""
    lines = [Line(name, _shares(found[_PLOTTED], 0.0, 1.0), is_stepped=True) for name, found in report.values.items()]
    x, y = Axis(f"{_PLOTTED} of a query", 0, 1), Axis("share of queries at most so good", 0, 1)
    return line_chart(f"{_PLOTTED} over the queries; lower lines are better", x, y, lines)


def _latency_plot(report: Report) -> str:
    found = {name: values for name, values in report.latencies_ms.items() if max(values) > 0.001}
    if not found:
        return ""
    low = min(min(values) for values in found.values()) * 0.8
    high = max(max(values) for values in found.values()) * 1.25
    lines = [Line(name, _shares(values, low, high), is_stepped=True) for name, values in found.items()]
    x, y = Axis("milliseconds", max(low, 1e-3), high, is_log=True), Axis("share of queries answered", 0, 1)
    return line_chart("share of the queries answered within a time", x, y, lines)


def _shares(values: list[float], low: float, high: float) -> list[tuple[float, float]]:
    """Return the empirical distribution function of *values* from *low* to *high*."""
    ordered = sorted(values)
    points = [(value, (rank + 1) / len(ordered)) for rank, value in enumerate(ordered)]
    return [(low, 0.0), *points, (high, 1.0)]


def _difference_plots(report: Report) -> list[str]:
    """Draw the cross-encoder minus each other reranker, query by query, the worst first."""
    if "crossencoder" not in report.values:
        return []
    new = report.values["crossencoder"][_PLOTTED]
    parts = []
    for name, found in report.values.items():
        if name == "crossencoder":
            continue
        differences = sorted(a - b for a, b in zip(new, found[_PLOTTED], strict=True))
        better, worse = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
        title = f"crossencoder minus {name}: {_PLOTTED} by query"
        words = (f"better: {better}", f"worse: {worse}")
        x = Axis("queries, sorted", 0, len(differences))
        parts.append(section(title, bar_chart(title, x, Axis("difference", -1, 1), differences, words)))
    return parts
