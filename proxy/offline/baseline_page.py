"""The baseline as a page: one file, no script, nothing loaded from anywhere."""

from __future__ import annotations

import datetime as dt
import math
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from alerts.histogram import upper_edge
from proxy.offline.baseline import HOUR_SECONDS, by_hour_of_day
from proxy.offline.labelled_charts import CHART_STYLE, bars, lines
from proxy.offline.page import page, section

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from proxy.baseline_file import Baseline, Hour, Quality

_STYLE = (
    "h1{margin-bottom:0}p.dim{opacity:.65;margin-top:.2rem}.tiles{display:grid;gap:.75rem;margin:1.5rem 0;"
    "grid-template-columns:repeat(auto-fit,minmax(9rem,1fr))}"
    ".tiles div{border:1px solid #8884;border-radius:8px;padding:.6rem .8rem}"
    ".tiles b{display:block;font-size:1.35rem;font-variant-numeric:tabular-nums}.tiles span{opacity:.65}"
    "table{width:100%}td.note{text-align:left;opacity:.65}summary{cursor:pointer}"
)
_BARS = 48


def page_of(found: Baseline) -> str:
    """Return HTML."""
    hours = found.hours
    labels = [_hour_label(hour.at, hours) for hour in hours]
    sections = [
        _drawing("Requests by hour", bars("Requests by hour", labels, [h.requests for h in hours], "requests")),
        _drawing(
            "Latency by hour, control (s)",
            lines("Latency by hour", labels, {"p95": [h.p95 for h in hours], "p50": [h.p50 for h in hours]}, "s"),
        ),
        _drawing("How latency is distributed, control", _distribution(found)),
    ]
    if any(hour.dollars for hour in hours):
        sections.append(
            _drawing("Cost by hour, control ($)", bars("Cost by hour", labels, [h.dollars for h in hours], "$"))
        )
    if len(hours) > 24:
        names = [f"{hour:02d}" for hour in range(24)]
        drawn = bars("Requests by hour of the day", names, by_hour_of_day(hours), "requests an hour")
        sections.append(_drawing("Requests by hour of the day (UTC), mean", drawn))
    parts = [
        f'<p class="dim">{_moment(found.since)} to {_moment(found.until)}, read from {escape(found.events)}</p>',
        _tiles(found),
        f'<p class="dim">A month: {escape(found.cost.assumption)}.</p>',
        *([_quality(found.quality)] if found.quality else []),
        *sections,
        _table_of_hours(hours),
        _shares("Outcomes of control", found.outcomes, found.requests),
        _shares("Models that answered", found.models, found.requests),
        f'<p class="dim">Made {_moment(found.made_at)}. Times are UTC.</p>',
    ]
    return page("Baseline of control", [], parts, style=_STYLE + CHART_STYLE)


def _tiles(found: Baseline) -> str:
    latency, cost = found.latency, found.cost
    tiles = [
        ("requests of control", f"{found.requests:,}"),
        ("users", f"{found.users:,}"),
        ("documents a request", f"{found.documents:.3g}"),
        ("mean latency", _seconds(latency.mean)),
        ("p50", _seconds(latency.p50)),
        ("p95", _seconds(latency.p95)),
        ("a query", f"${cost.per_query:.3g}"),
        ("a thousand queries", f"${cost.per_thousand:,.2f}"),
    ]
    if cost.per_month is not None:
        tiles.append((f"a month of {cost.queries_per_month:,.0f} queries", f"${cost.per_month:,.2f}"))
    return '<div class="tiles">' + "".join(f"<div><b>{b}</b><span>{a}</span></div>" for a, b in tiles) + "</div>"


def _quality(quality: Quality) -> str:
    rows = [
        (each.name, "not measurable" if each.value is None else f"{each.value:.4f}", str(each.queries), each.note)
        for each in quality.measures
    ]
    words = f"{quality.queries} judged queries of {quality.file}, ranked by {', '.join(quality.models) or 'nobody'}"
    if quality.not_ranked:
        words += f"; control gave no order for {quality.not_ranked} of them"
    body = "".join(
        f'<tr><td>{name}</td><td>{value}</td><td>{count}</td><td class="note">{escape(note)}</td></tr>'
        for name, value, count, note in rows
    )
    head = "<tr><th>measure</th><th>mean</th><th>queries</th><th></th></tr>"
    return f'<h2>Quality, control</h2><p class="dim">{escape(words)}</p><table>{head}{body}</table>'


def _distribution(found: Baseline) -> str:
    """Draw the histogram in bins of one ratio; a bucket is spread over the bins that it lies in."""
    buckets = sorted(found.histogram)
    edges = np.array([upper_edge(each) for each in buckets])
    begins = np.array([upper_edge(each - 1) for each in buckets])
    bins = np.geomspace(begins[0], edges[-1], _BARS + 1)
    counts = np.array([found.histogram[each] for each in buckets], dtype=float)
    below = np.clip((np.log(bins)[:, None] - np.log(begins)) / np.log(edges / begins), 0, 1) @ counts
    labels = [f"≤ {_seconds(edge)}" for edge in bins[1:]]
    latency = found.latency
    marks = [
        (_BARS * math.log(value / bins[0]) / math.log(bins[-1] / bins[0]), f"{name} {_seconds(value)}")
        for name, value in (("p50", latency.p50), ("mean", latency.mean), ("p95", latency.p95))
    ]
    return bars("How latency is distributed", labels, [float(each) for each in np.diff(below)], "requests", marks)


def _drawing(title: str, drawn: str) -> str:
    return section(title, f'<div class="wide">{drawn}</div>')


def _table_of_hours(hours: Sequence[Hour]) -> str:
    rows = (
        (
            _moment(hour.at),
            f"{hour.requests:,}",
            f"{hour.control_requests:,}",
            "" if hour.p50 is None else _seconds(hour.p50),
            "" if hour.p95 is None else _seconds(hour.p95),
            f"${hour.dollars:,.4g}",
        )
        for hour in hours
    )
    names = ("hour", "requests", "of control", "p50", "p95", "cost")
    return (
        f'<h2>By hour</h2><details><summary>as a table</summary><div class="wide">{_table(names, rows)}</div></details>'
    )


def _shares(title: str, counts: dict[str, int], total: int) -> str:
    rows = ((name, f"{count:,}", f"{count / total:.2%}") for name, count in counts.items())
    return f"<h2>{escape(title)}</h2>{_table(('', 'requests', 'share'), rows)}"


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _hour_label(at: float, hours: Sequence[Hour]) -> str:
    moment = dt.datetime.fromtimestamp(at, dt.UTC)
    return f"{moment:%H}h" if len(hours) * HOUR_SECONDS <= 86400 else f"{moment:%m-%d %H}h"


def _moment(at: float) -> str:
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%d %H:%M}"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"
