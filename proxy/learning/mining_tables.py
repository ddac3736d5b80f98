"""The report of a mined set, for people."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

from proxy.offline.benchmark_tables import Table

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.learning.mining_plan import MiningReport

_OUTLIERS = 10


def tables(report: MiningReport) -> list[Table]:
    """Return what was read, kept and left out, and how long it took."""
    made = [_read(report), _counts("kept", report.kept), _counts("left out", report.dropped)]
    if report.outliers:
        rows = [[each.user_hash, each.why, f"{each.opinions:,}"] for each in report.outliers[:_OUTLIERS]]
        more = len(report.outliers) - len(rows)
        captions = [f"and {more} more in report.json"] if more else []
        made.append(Table("users that are left out", ["user hash", "why", "opinions"], rows, captions))
    return made


def _read(report: MiningReport) -> Table:
    rows = [
        ["exposures", f"{report.exposures:,}"],
        ["feedback", f"{report.feedback:,}"],
        ["parts", f"{report.parts:,}"],
        ["broken parts, passed over", f"{len(report.broken_parts):,}"],
        ["users", f"{report.users:,}"],
        ["users capped", f"{report.capped_users:,}"],
        ["lists to train on", f"{report.train_lists:,}"],
        ["lists held out", f"{report.held_out_lists:,}"],
        ["seconds", f"{sum(report.seconds.values()):,.1f}"],
        ["peak memory, MB", f"{report.peak_mb:,.0f}"],
    ]
    captions = [
        f"held out: queries first asked since {_moment(report.held_out_since)}"
        if report.held_out_since is not None
        else "nothing is held out",
        f"false negatives by {report.model}" if report.model else "no model has told false negatives",
        *(f"passed over: {path}" for path in report.broken_parts),
    ]
    title = f"{report.events}: {_moment(report.since)} to {_moment(report.until)}"
    return Table(title, ["", "count"], rows, captions)


def _counts(title: str, counts: Mapping[str, int]) -> Table:
    return Table(title, ["what", "count"], [[what, f"{count:,}"] for what, count in counts.items()])


def _moment(at: float) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).isoformat(sep=" ", timespec="minutes").replace("+00:00", "Z")
