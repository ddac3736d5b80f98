"""The moving limit: what control's p95 allows the candidate."""

from __future__ import annotations

import numpy as np
import pytest

from alerts.guardrails import default_guardrails
from alerts.histogram import BUCKETS, bucket_of, upper_edge
from alerts.judge import Judge
from alerts.judging import Judging
from alerts.relative_limit import ControlLatency, Relative, as_counts
from alerts.signals import no_tick
from flags.ramp import DEFAULT_PLAN, Phase, Ramp
from flags.record import RampRecord

SECOND = bucket_of(1.0)


def requests(count: float, seconds: float = 1.0) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    counts = np.zeros((1, BUCKETS))
    counts[0, bucket_of(seconds)] = count
    return counts


def test_there_is_no_limit_before_enough_is_known() -> None:
    known = ControlLatency.none()
    assert np.isnan(known.limit(1.25)).all()
    known.add(requests(199), 1)
    assert np.isnan(known.limit(1.25)).all()
    known.add(requests(2), 1)
    assert known.limit(1.25)[0] == pytest.approx(1.25 * upper_edge(SECOND))


def test_the_limit_is_the_ratio_times_the_upper_limit_of_the_p95() -> None:
    known = ControlLatency.none()
    known.add(requests(9300) + requests(700, 3.0), 1)
    assert known.limit(1.0)[0] == upper_edge(bucket_of(3.0))
    assert known.limit(2.0)[0] == 2 * upper_edge(bucket_of(3.0))


@pytest.mark.parametrize(("fast", "slowest"), [(9566, 1.0), (9565, 3.0)])
def test_the_upper_limit_has_three_standard_errors_of_the_rank(fast: int, slowest: float) -> None:
    """Of 10,000 the rank is 0.95 + 3 sqrt(0.95 * 0.05 / 10,000) = 0.956538: the 9,566th."""
    known = ControlLatency.none()
    known.add(requests(fast) + requests(10_000 - fast, 3.0), 1)
    assert known.limit(1.0)[0] == upper_edge(bucket_of(slowest))


def test_half_an_hour_ago_weighs_half_however_the_time_is_cut() -> None:
    at_once, by_ticks = ControlLatency.none(), ControlLatency.none()
    for each in (at_once, by_ticks):
        each.add(requests(1000), 1)
    at_once.add(requests(0), 1800)
    for _ in range(1800):
        by_ticks.add(requests(0), 1)
    assert at_once.counts.sum() == pytest.approx(500)
    assert by_ticks.counts.sum() == pytest.approx(500)


def test_the_limit_follows_control_when_it_gets_slower_and_is_unknown_when_it_falls_silent() -> None:
    known = ControlLatency.none()
    known.add(requests(1000), 1)
    before = float(known.limit(1.25)[0])
    known.add(requests(200, 4.0), 60)
    assert known.limit(1.25)[0] > before
    known.add(requests(0), 4 * 1800)
    assert np.isnan(known.limit(1.25)).all()


def test_runs_are_known_apart() -> None:
    known = ControlLatency.none(2)
    known.add(np.concatenate([requests(300), requests(100)]), 1)
    assert np.isnan(known.limit(1.0)).tolist() == [False, True]


def test_a_histogram_is_told_by_bucket() -> None:
    counts = as_counts({3: 7, SECOND: 2})
    assert counts.shape == (1, BUCKETS)
    assert (counts[0, 3], counts[0, SECOND], counts.sum()) == (7, 2, 9)
    assert not as_counts({}).any()


def test_the_baseline_stands_for_control_until_enough_is_known() -> None:
    known = ControlLatency.none()
    known.add(requests(199), 1)
    assert known.limit(1.25, otherwise=2.0)[0] == 2.5
    known.add(requests(2), 1)
    assert known.limit(1.25, otherwise=2.0)[0] == pytest.approx(1.25 * upper_edge(SECOND))


def test_a_leader_tells_the_limit_of_the_baseline_while_control_has_no_traffic() -> None:
    judge = Judge(default_guardrails(0.6), 86400.0, 0.01)
    ramp = Ramp(rollout_id="r", group_id="g", phase=Phase.RAMPING, plan=DEFAULT_PLAN, stage=0, share_percent=5)
    work = Judging(judge, Relative(1.25, 2.0), None, None, None)
    for _ in range(60):
        work.judge_tick(no_tick(), RampRecord(ramp=ramp), 0.0)
    assert work.to_save(None)[-1] == "2.5"
    untold = Judging(judge, Relative(1.25), None, None, None)
    for _ in range(60):
        untold.judge_tick(no_tick(), RampRecord(ramp=ramp), 0.0)
    assert untold.to_save(None)[-1] == ""
