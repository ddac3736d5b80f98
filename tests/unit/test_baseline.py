"""What a baseline says of a log, and of orders of judged queries."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from alerts.histogram import bucket_of, upper_edge
from flags.vocabulary import Arm
from proxy.baseline_file import Baseline, Measure, Quality, read_baseline
from proxy.errors import InvalidFile
from proxy.events.reading import EventReader, Period
from proxy.exposure import Outcome, Role
from proxy.offline.baseline import NoTraffic, baseline_of, by_hour_of_day, words_of
from proxy.offline.baseline_page import page_of
from proxy.offline.judged_orders import Ordered, quality_of_orders
from proxy.offline.labelled_charts import bars, lines
from proxy.probes import Probe
from tests.events import ALWAYS, NOON, ranking, write
from tests.parts.event_days import days

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from proxy.events.records import ServedRanking

HOUR = 3600.0


def report(folder: Path, *rankings: ServedRanking, period: Period = ALWAYS) -> Baseline:
    write(folder, *rankings)
    return baseline_of(EventReader(folder), period, events="the log", now=NOON)


def test_latency_and_cost_are_those_of_controls_requests(tmp_path: Path) -> None:
    times = [0.5, 1.0, 1.5, 2.0, 10.0]
    control = [ranking(seconds=each, cost_dollars=each / 1000, user_hash=str(each)) for each in times]
    found = report(tmp_path, *control, ranking(arm=Arm.CANDIDATE, seconds=99.0, cost_dollars=9.0))
    assert (found.requests, found.all_requests, found.users) == (5, 6, 5)
    assert found.latency.mean == pytest.approx(3.0)
    assert found.latency.p50 == pytest.approx(1.5)
    assert found.latency.p95 == pytest.approx(np.quantile(times, 0.95))
    assert [found.cost.per_query, found.cost.per_thousand] == pytest.approx([0.003, 3.0])
    assert found.outcomes == {"ok": 5}
    assert found.models == {"gpt-test": 5}
    assert found.documents == 3


def test_a_request_that_control_failed_counts_with_all_that_its_caller_waited(tmp_path: Path) -> None:
    failed = ranking(seconds=15.0, outcome=Outcome.TIMEOUT, served_by=Role.CANDIDATE)
    found = report(tmp_path, ranking(seconds=1.0), failed)
    assert found.outcomes == {"ok": 1, "timeout": 1}
    assert found.latency.mean == pytest.approx(8.0)


@pytest.mark.parametrize(
    "left_out", [{"is_forced": True}, {"status": 400, "error_code": "invalid_request"}], ids=["forced", "a mistake"]
)
def test_what_is_nobodys_traffic_is_left_out(tmp_path: Path, left_out: dict[str, Any]) -> None:
    found = report(tmp_path, ranking(seconds=1.0), ranking(seconds=9.0, **left_out))
    assert (found.requests, found.all_requests, found.latency.mean) == (1, 1, 1.0)


def test_a_full_queue_is_controls_own(tmp_path: Path) -> None:
    full = ranking(status=429, outcome=Outcome.OVERLOADED, served_by=Role.NOBODY)
    assert report(tmp_path, ranking(), full).outcomes == {"ok": 1, "overloaded": 1}


def test_hours_without_traffic_are_hours_too(tmp_path: Path) -> None:
    found = report(
        tmp_path,
        ranking(started_at=NOON, seconds=1.0),
        ranking(started_at=NOON + 1, arm=Arm.CANDIDATE),
        ranking(started_at=NOON + 2 * HOUR, seconds=3.0),
        ranking(started_at=NOON + 2 * HOUR + 5, seconds=5.0),
    )
    assert [(hour.at, hour.requests, hour.control_requests, hour.p50) for hour in found.hours] == [
        (NOON, 2, 1, 1.0),
        (NOON + HOUR, 0, 0, None),
        (NOON + 2 * HOUR, 2, 2, 4.0),
    ]
    assert [hour.dollars for hour in found.hours] == pytest.approx([0.001, 0.0, 0.002])


def test_a_month_is_thirty_days_like_the_time_seen(tmp_path: Path) -> None:
    moments = [NOON + day * 86400 for day in range(4)]
    found = report(tmp_path, *(ranking(started_at=at, cost_dollars=0.002) for at in moments))
    assert found.cost.queries_per_month == pytest.approx(40.0)  # 4 in 3 days
    assert found.cost.per_month == pytest.approx(0.08)
    assert found.cost.assumption.startswith("30 days of traffic like that of the 3 days ")
    assert "less than a day" not in found.cost.assumption


def test_a_month_made_of_hours_says_so(tmp_path: Path) -> None:
    found = report(tmp_path, ranking(), ranking(started_at=NOON + 2 * HOUR))
    assert "the 2 hours from" in found.cost.assumption
    assert "less than a day" in found.cost.assumption


def test_of_minutes_no_month_is_made(tmp_path: Path) -> None:
    found = report(tmp_path, ranking(), ranking(started_at=NOON + 600))
    assert (found.cost.per_month, found.cost.queries_per_month) == (None, None)
    assert "there is none of 10 minutes" in found.cost.assumption
    assert found.cost.per_thousand == pytest.approx(1.0)


def test_the_guard_gets_a_p95_only_of_enough_requests(tmp_path: Path) -> None:
    few = report(tmp_path / "few", *(ranking(seconds=1.0) for _ in range(199)))
    assert few.latency.p95_upper is None
    many = report(tmp_path / "many", *(ranking(seconds=1.0 if n < 9800 else 4.0) for n in range(10_000)))
    assert many.latency.p95_upper == upper_edge(bucket_of(1.0))


def test_an_empty_period_says_what_there_was(tmp_path: Path) -> None:
    with pytest.raises(NoTraffic, match="there are no requests at all"):
        report(tmp_path)
    with pytest.raises(NoTraffic, match="there are 2 requests of the candidate"):
        report(tmp_path, *(ranking(arm=Arm.CANDIDATE) for _ in range(2)))


def test_days_of_traffic_come_to_what_numpy_makes_of_them(tmp_path: Path) -> None:
    traffic = list(days(1, candidate_share=0.2))
    found = report(tmp_path, *traffic)
    seconds = [each.exposure.seconds for each in traffic if each.exposure.assignment.arm is Arm.CONTROL]
    assert found.requests == len(seconds)
    assert found.latency.p95 == pytest.approx(np.quantile(seconds, 0.95))
    assert found.latency.p99 == pytest.approx(np.quantile(seconds, 0.99))
    assert sum(hour.control_requests for hour in found.hours) == sum(found.histogram.values()) == len(seconds)
    assert sum(hour.requests for hour in found.hours) == len(traffic)
    busiest = max(range(24), key=lambda hour: by_hour_of_day(found.hours)[hour] or 0)
    assert busiest == 15


@pytest.mark.parametrize(
    ("seconds", "words"), [(30, "30 s"), (600, "10 minutes"), (7200, "2 hours"), (86400 * 7, "7 days")]
)
def test_a_length_of_time_is_told_in_its_own_unit(seconds: float, words: str) -> None:
    assert words_of(seconds) == words


def ordered(order: Sequence[int], grades: dict[int, int]) -> Ordered:
    return Ordered(Probe("q", [f"d{n}" for n in range(len(order))], grades), order, "gpt")


def by_name(quality: Quality) -> dict[str, Measure]:
    return {measure.name: measure for measure in quality.measures}


def test_ndcg_is_that_of_the_order(tmp_path: Path) -> None:
    found = by_name(quality_of_orders(tmp_path, [ordered([2, 0, 1], {0: 1, 1: 3})]))
    dcg, ideal = 1 / math.log2(3) + 3 / math.log2(4), 3 + 1 / math.log2(3)
    assert found["nDCG@25"].value == pytest.approx(dcg / ideal)
    assert found["nDCG@10"].value == pytest.approx(dcg / ideal)


def test_recall_is_not_measured_where_every_order_has_the_same(tmp_path: Path) -> None:
    short, long = ordered(list(range(25)), {0: 1}), ordered(list(range(60)), {0: 1, 40: 1, 59: 1})
    found = by_name(quality_of_orders(tmp_path, [short, short]))
    assert (found["R@25"].value, found["R@50"].value) == (None, None)
    assert "no query has more" in found["R@25"].note
    assert found["R@5"].value == 1.0
    found = by_name(quality_of_orders(tmp_path, [short, long]))
    assert [found["R@25"].value, found["R@50"].value] == pytest.approx([1 / 3, 2 / 3])
    assert [found["R@25"].queries, found["R@50"].queries] == [1, 1]
    assert found["R@50"].note == ""


def test_a_query_without_an_order_is_counted(tmp_path: Path) -> None:
    quality = quality_of_orders(tmp_path, [None, ordered([0, 1], {0: 1})])
    assert (quality.queries, quality.not_ranked, quality.models) == (2, 1, ["gpt"])
    assert by_name(quality_of_orders(tmp_path, [None]))["nDCG@25"].value is None


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "is no baseline"),
        ("{}", "missing required field"),
        ('{"version": 2}', "missing required field"),
        (None, "cannot be read"),
    ],
    ids=["no JSON", "empty", "another shape", "not there"],
)
def test_a_file_that_is_no_baseline_is_named(tmp_path: Path, text: str | None, reason: str) -> None:
    file = tmp_path / "baseline.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InvalidFile, match=rf"baseline\.json: .*{reason}"):
        read_baseline(file)


def svgs(page: str) -> list[ET.Element]:
    return [ET.fromstring("<svg" + part.partition("</svg>")[0] + "</svg>") for part in page.split("<svg")[1:]]  # noqa: S314 - our own


def test_the_page_stands_alone_and_its_plots_are_well_formed(tmp_path: Path) -> None:
    page = page_of(report(tmp_path, *days(2)))
    assert len(svgs(page)) == 5
    assert "<script" not in page
    assert [word for word in page.split('"') if "://" in word] == ["http://www.w3.org/2000/svg"] * 5
    assert "nan" not in page.lower()


@pytest.mark.parametrize("count", [1, 2])
def test_a_page_of_next_to_nothing_is_a_page(tmp_path: Path, count: int) -> None:
    page = page_of(report(tmp_path, *(ranking(cost_dollars=0.0) for _ in range(count))))
    assert len(svgs(page)) == 3
    assert "nan" not in page.lower()


def test_what_others_named_is_escaped(tmp_path: Path) -> None:
    page = page_of(report(tmp_path, ranking(model="<b>gpt</b>")))
    assert "&lt;b&gt;gpt&lt;/b&gt;" in page
    assert "<b>gpt" not in page


def test_bars_are_as_high_as_their_values() -> None:
    (svg,) = svgs(bars("t", ["a", "b", "c"], [100.0, None, 50.0], "requests"))
    heights = [float(rect.get("height", "")) for rect in svg.iter("{http://www.w3.org/2000/svg}rect")]
    assert len(heights) == 2
    assert heights[0] == pytest.approx(2 * heights[1], rel=0.01)


def test_a_line_breaks_where_nothing_is_known() -> None:
    (svg,) = svgs(lines("t", list("abcde"), {"p95": [1.0, 2.0, None, 3.0, 4.0]}, "s"))
    assert len(list(svg.iter("{http://www.w3.org/2000/svg}polyline"))) == 2
