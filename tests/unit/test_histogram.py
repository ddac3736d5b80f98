"""The latency histogram: widths, edges, quantiles."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.histogram import BUCKETS, bucket_of, buckets_of, quantile, quantile_limit, upper_edge

SMALLEST = 2.0**-13
LARGEST = 2.0**11
HISTOGRAMS = st.dictionaries(st.integers(0, BUCKETS - 1), st.integers(1, 1000), min_size=1, max_size=20)


def as_array(counts: dict[int, int]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    array = np.zeros(BUCKETS)
    for bucket, count in counts.items():
        array[bucket] = count
    return array


def test_no_bucket_is_wider_than_five_percent() -> None:
    edges = [SMALLEST, *(upper_edge(bucket) for bucket in range(BUCKETS))]
    ratios = [after / before for before, after in pairwise(edges)]
    assert min(ratios) > 1
    assert max(ratios) <= 1.05
    assert edges[-1] == LARGEST


@given(seconds=st.floats(SMALLEST, LARGEST, exclude_max=True))
def test_a_latency_lies_within_its_bucket(seconds: float) -> None:
    bucket = bucket_of(seconds)
    below = upper_edge(bucket - 1) if bucket else SMALLEST
    assert below <= seconds < upper_edge(bucket)


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [  # by hand: octave 13 begins at 1 s, and each of its 32 parts is 1/32 s wide
        (0.0, 0),
        (-1.0, 0),
        (1e-9, 0),
        (math.nan, 0),
        (SMALLEST, 0),
        (1.0, 13 * 32),
        (1.5, 13 * 32 + 16),
        (1.999, 13 * 32 + 31),
        (2.0, 14 * 32),
        (2047.0, BUCKETS - 1),
        (1e9, BUCKETS - 1),
    ],
)
def test_buckets_by_hand(seconds: float, bucket: int) -> None:
    assert bucket_of(seconds) == bucket


@given(seconds=st.lists(st.floats(-1, 1e6), min_size=1))
def test_an_array_is_put_into_the_same_buckets(seconds: list[float]) -> None:
    assert buckets_of(np.array(seconds)).tolist() == [bucket_of(each) for each in seconds]


@given(one=st.floats(0, 1e4), other=st.floats(0, 1e4))
def test_a_slower_request_is_in_no_lower_bucket(one: float, other: float) -> None:
    assert bucket_of(min(one, other)) <= bucket_of(max(one, other))


def test_there_is_no_quantile_without_counts() -> None:
    assert quantile({}, 0.95) is None
    assert quantile({3: 0}, 0.95) is None
    assert np.isnan(quantile_limit(np.zeros((2, BUCKETS)), 0.95, 3.0)).all()


@given(counts=HISTOGRAMS, q=st.sampled_from([0.5, 0.9, 0.95, 0.99, 1.0]))
def test_a_quantile_is_that_of_the_sorted_latencies(counts: dict[int, int], q: float) -> None:
    ordered = sorted(Counter(counts).elements())
    rank = max(1, math.ceil(q * len(ordered) - 1e-9))
    expected = upper_edge(ordered[rank - 1])
    assert quantile(counts, q) == expected
    assert quantile_limit(as_array(counts), q, 0.0) == expected


def test_a_rank_that_falls_on_the_last_of_a_bucket_is_in_it() -> None:
    assert quantile({0: 19, 500: 1}, 0.95) == upper_edge(0)
    assert quantile({0: 18, 500: 2}, 0.95) == upper_edge(500)
    assert quantile_limit(as_array({0: 19, 500: 1}), 0.95, 0.0) == upper_edge(0)


def test_what_rounding_leaves_of_a_rank_lies_in_the_last_bucket() -> None:
    assert quantile({1: 0.1, 2: 0.2, 3: 0.3}, 1.0 + 1e-15) == upper_edge(3)


@given(counts=HISTOGRAMS, q=st.floats(0.05, 0.99))
def test_a_limit_rises_with_the_confidence_asked_for(counts: dict[int, int], q: float) -> None:
    limits = [float(quantile_limit(as_array(counts), q, z)) for z in (0.0, 1.0, 3.0, 1e9)]
    assert limits == sorted(limits)
    assert limits[-1] == upper_edge(max(counts))


def test_a_limit_comes_down_to_the_quantile_with_more_data() -> None:
    once = np.zeros(BUCKETS)
    once[300:500] = 1.0
    limits = quantile_limit(np.stack([once, 10 * once, 10_000 * once]), 0.95, 3.0)
    assert limits[0] > limits[1] > limits[2]
    assert limits[2] == upper_edge(300 + 190)


def test_the_true_p95_is_below_its_limit_as_often_as_is_asked_for() -> None:
    """At z = 3, one in 741 may be above; 2,000 samples of 400 exponential latencies."""
    rng = np.random.default_rng(3)
    places = buckets_of(rng.exponential(1.0, (2000, 400)))
    counts = np.stack([np.bincount(each, minlength=BUCKETS) for each in places]).astype(float)
    missed = (quantile_limit(counts, 0.95, 3.0) < -math.log(0.05)).mean()
    assert missed <= 0.004
