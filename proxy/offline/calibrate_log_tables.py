"""What a calibration by the event log found, as tables and as a page."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from proxy.offline.benchmark_tables import Table
from proxy.offline.calibrate_tables import by_threshold, points_shown, target_words
from proxy.offline.page import html_table, page, section

if TYPE_CHECKING:
    from proxy.offline.calibrate_log import LogCalibration
    from proxy.offline.thresholds import Point


def tables_of(report: LogCalibration) -> list[Table]:
    """Return the threshold that was found, and the trade-off."""
    chosen = report.fit.chosen
    words = f"{report.fallback_calls:,} calls" if report.fallback_calls else "no call: what one costs is not known"
    captions = [
        f"target: {target_words(report.target)}; for {report.model}",
        f"{report.requests:,} rankings of users from {_day(report.since)} to {_day(report.until)}, {report.events}",
        f"a fallback is counted at the mean cost of the language model's {words}",
    ]
    rows = [_row(chosen)] if chosen else [["none keeps to it", "-", "-"]]
    columns = ["threshold", "falls back", "$/1000"]
    curve = [_row(point) for point in points_shown(report.fit)]
    return [
        Table(f"fallback threshold of `{report.statistic}`, by the event log", columns, rows, captions),
        Table("trade-off", columns, curve),
    ]


def page_of(report: LogCalibration) -> str:
    """Return the report as a page."""
    threshold, curve = tables_of(report)
    parts = [html_table(threshold), section("share that falls back, by threshold", by_threshold(report.fit))]
    return page(f"Calibration of {report.model} by its traffic", [], [*parts, html_table(curve)])


def _row(point: Point) -> list[str]:
    dollars = point.dollars_per_thousand
    return [f"{point.threshold:.4g}", f"{point.share:.1%}", "-" if dollars is None else f"{dollars:.4f}"]


def _day(at: float) -> str:
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%d %H:%M}"
