"""Drawings: every text escaped, lines broken where nothing is known, and the same numbers for those who cannot see."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree as ET

import pytest

from alerts.trend import ArmPoint, Mean, Point
from proxy.dashboard.charts import Chart, Mark, Series, draw, spark, times
from proxy.dashboard.plots import charts_around, charts_of
from proxy.dashboard.tiers import FINEST
from proxy.dashboard.words import clock, count, dollars, latency, percent, short_time, stamp


def chart(*points: tuple[float, float | None], **fields: object) -> Chart:
    given = {
        "title": "Latency",
        "series": [Series("control", "control", list(points))],
        "since": 0.0,
        "until": 100.0,
        "words": latency,
    }
    return Chart(**given | fields)  # type: ignore[arg-type]  # a test's own


def svg(found: str) -> ET.Element:
    """Return the plot: parsed, so it is well-formed."""
    return next(iter(ET.fromstring(str(found)).iter("svg")))  # noqa: S314 - our own


def lines(found: str) -> list[str]:
    return [each.attrib["d"] for each in svg(found).iter("path") if "line" in each.attrib["class"].split()]


def test_a_line_goes_through_its_points_and_is_broken_where_none_is() -> None:
    (path,) = lines(draw(chart((0, 0.0), (50, 1.0), (60, None), (100, 0.5))))
    assert re.fullmatch(r"M[\d. ]+L[\d. ]+M[\d. ]+", path)


def test_one_point_is_seen_too() -> None:
    (path,) = lines(draw(chart((50, 1.0))))
    assert path.endswith("h0.1")


def test_the_last_value_stands_in_the_caption_and_the_range_in_the_label() -> None:
    found = draw(chart((0, 0.25), (50, 1.5), (100, None)))
    assert "control <b>1.50 s</b>" in found
    assert "control from 250 ms to 1.50 s" in svg(found).attrib["aria-label"]


def test_without_data_it_says_so() -> None:
    found = draw(chart())
    assert "no data" in found
    assert "control without data" in svg(found).attrib["aria-label"]


def test_texts_are_escaped() -> None:
    bad = "<script>alert(1)</script>"
    series = [Series(bad, "control", [(1.0, 1.0)])]
    found = draw(chart(title=bad, series=series, marks=[Mark(5, bad, "action")]))
    assert "<script" not in found
    assert svg(found) is not None


def test_a_mark_outside_the_span_is_not_drawn() -> None:
    found = draw(chart((1, 1.0), marks=[Mark(-1, "before", "action"), Mark(50, "rolled back", "rollback")]))
    marks = [each for each in svg(found).iter("path") if "mark" in each.attrib["class"].split()]
    assert [each.attrib["class"] for each in marks] == ["mark rollback"]


def test_values_above_a_ceiling_stay_in_the_plot() -> None:
    (path,) = lines(draw(chart((0, 5.0), (100, 0.5), ceiling=1.0)))
    assert min(float(y) for y in re.findall(r" ([\d.]+)", path)) >= 10


def test_a_limit_far_above_the_values_does_not_flatten_them() -> None:
    near, far = draw(chart((1, 0.5), limit=0.6)), draw(chart((1, 0.5), limit=600.0))
    assert 'class="limit"' in near
    assert 'class="limit"' not in far


@pytest.mark.parametrize("span", [30, 700, 7200, 200_000, 31 * 86400])
def test_a_time_axis_has_a_few_round_times(span: float) -> None:
    found = times(1000.0, 1000.0 + span, 5)
    assert 1 <= len(found) <= 7
    assert len({b - a for a, b in pairwise(found)}) <= 1


def test_a_spark_says_how_near_the_threshold_is() -> None:
    assert "evidence now 50% of the threshold" in spark([(0, 0.0), (10, 5.0)], 10.0, 0, 10)
    assert 'class="line over"' in spark([(0, 0.0), (10, 12.0)], 10.0, 0, 10)


def points(count: int, **fields: object) -> list[Point]:
    arms = (ArmPoint(requests=10, p95_seconds=1.0, trials=10, dollars=1.0), ArmPoint(requests=5, p95_seconds=0.1))
    given: dict[str, object] = {"arms": arms, "seconds": 5.0, "share_percent": 25} | fields
    return [Point(at=1000.0 + 5 * n, **given) for n in range(count)]  # type: ignore[arg-type]  # a test's own


def series_of(charts: list[Chart], title: str) -> dict[str, list[float | None]]:
    found = next(each for each in charts if each.title == title)
    return {line.name: [value for _, value in line.points] for line in found.series}


def test_the_plots_show_both_arms() -> None:
    found = charts_around(points(3), [])
    assert series_of(found, "Latency, p95") == {"control": [1.0] * 3, "candidate": [0.1] * 3}
    assert series_of(found, "Requests a second") == {"control": [2.0] * 3, "candidate": [1.0] * 3}
    assert series_of(found, "Dollars per 1,000 requests") == {"control": [100.0] * 3, "candidate": [0.0] * 3}
    assert series_of(found, "Share of the candidate")["observed"] == [pytest.approx(100 / 3)] * 3


def test_paired_values_are_shown_as_differences() -> None:
    found = charts_around(points(1, values={"probe": Mean(0.4, 7)}), [])
    assert series_of(found, "nDCG@10 of the probes") == {"candidate less control": [pytest.approx(-0.1)]}


def test_a_pause_breaks_the_line_and_a_period_without_a_value_does_not() -> None:
    first, second, third = points(3)
    quiet = Point(at=second.at, seconds=5.0)
    later = Point(at=third.at + 100, seconds=5.0, arms=third.arms)
    found = series_of(charts_around([first, quiet, third, later], []), "Latency, p95")
    assert found["control"] == [1.0, 1.0, None, 1.0]


def test_what_is_young_fills_the_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.dashboard.plots.time.time", lambda: 1300.0)
    assert charts_of(points(60), [], FINEST)[0].since == 995.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (latency(0.0021), "2.1 ms"),
        (latency(0.075), "75 ms"),
        (latency(1.234), "1.23 s"),
        (latency(0), "0 ms"),
        (percent(0.0123), "1.23 %"),
        (percent(1.0), "100 %"),
        (dollars(0), "$0.00"),
        (dollars(1234.5), "$1,234.50"),
        (dollars(0.0123), "$0.012"),
        (dollars(-0.5), "-$0.5"),
        (dollars(0.00001), "$1.0e-05"),
        (count(1234.4), "1,234"),
        (count(0.1234), "0.123"),
        (stamp(0), "1970-01-01 00:00:00"),
        (clock(0.96), "00:00:01.0"),
        (short_time(0, 300), "00:00:00"),
        (short_time(0, 7200), "00:00"),
        (short_time(0, 2 * 86400), "Thu 00:00"),
        (short_time(0, 30 * 86400), "1 Jan"),
    ],
)
def test_numbers_read_as_people_write_them(text: str, expected: str) -> None:
    assert text == expected
