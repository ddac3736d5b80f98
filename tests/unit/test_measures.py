"""Measures of an order against ir-measures, and what a sample of queries says of a difference."""

from __future__ import annotations

import itertools
import math
import random

import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.offline.measures import MEASURES, values_of
from proxy.offline.significance import RESAMPLES, holm, intervals, randomisation_p

_NAMES = {"recall@25": "R@25", "nDCG@25": "nDCG@25", "nDCG@10": "nDCG@10", "RR@10": "RR@10", "recall@5": "R@5"}


@pytest.mark.parametrize("min_grade", [1, 2])
@pytest.mark.parametrize("seed", range(12))
def test_measures_are_those_of_ir_measures(seed: int, min_grade: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - examples, no secret
    ids = [f"d{i}" for i in range(40)]
    judged = dice.sample(ids, dice.randint(2, 35))
    grades = {name: dice.randint(0, 3) for name in judged} | {judged[0]: 3}
    ranked = dice.sample(ids, dice.randint(1, 40))
    run = {"q": {name: -float(rank) for rank, name in enumerate(ranked)}}
    rel = "" if min_grade == 1 else f"(rel={min_grade})"
    for ours, theirs in _NAMES.items():
        name, _, cut = theirs.partition("@")
        measure = ir_measures.parse_measure(f"{name}{'' if name == 'nDCG' else rel}@{cut}")
        expected = ir_measures.calc_aggregate([measure], {"q": grades}, run)[measure]
        assert values_of(ranked, grades, min_grade)[ours] == pytest.approx(expected, abs=1e-9), theirs


def test_measures_are_what_is_counted_by_hand() -> None:
    found = values_of(["x", "b", "a"], {"a": 3, "b": 1, "c": 1, "x": 0})
    ideal = 3 + 1 / math.log2(3) + 1 / 2
    assert found["nDCG@10"] == pytest.approx((1 / math.log2(3) + 3 / 2) / ideal)
    assert found["RR@10"] == 0.5
    assert found["recall@25"] == pytest.approx(2 / 3)
    assert values_of(["x", "b", "a"], {"a": 3, "b": 1}, min_grade=2)["RR@10"] == pytest.approx(1 / 3)
    assert set(found) == set(MEASURES)


@given(st.permutations([f"d{i}" for i in range(25)]))
def test_no_order_of_25_candidates_changes_recall_at_25(ranked: list[str]) -> None:
    assert values_of(ranked, {"d1": 2, "d7": 1, "elsewhere": 3})["recall@25"] == pytest.approx(2 / 3)


def test_the_randomisation_test_of_few_queries_is_the_exact_enumeration() -> None:
    differences = [0.3, -0.1, 0.25, 0.4, 0.05]
    seen = abs(sum(differences))
    as_far = [
        abs(sum(sign * d for sign, d in zip(signs, differences, strict=True))) >= seen - 1e-12
        for signs in itertools.product((-1, 1), repeat=5)
    ]
    [p] = randomisation_p(np.array(differences)[:, None], seed=1)
    assert p == sum(as_far) / 32


def test_the_randomisation_test_of_many_queries_comes_near_the_exact_enumeration() -> None:
    dice = np.random.default_rng(5)
    differences = dice.normal(0.15, 0.4, 16)
    signs = 2.0 * ((np.arange(2**16)[:, None] >> np.arange(16)) & 1) - 1
    exact = float((np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12).mean())
    [p] = randomisation_p(differences[:, None], seed=1)
    assert 0.01 < exact < 0.99
    assert p == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / RESAMPLES))


def test_without_a_difference_nothing_is_found() -> None:
    assert randomisation_p(np.zeros((30, 1)), seed=1) == [1.0]
    assert intervals(np.zeros((30, 1)), seed=1) == [(0.0, 0.0)]


def test_the_interval_of_many_values_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(3).normal(0.5, 0.2, (900, 1))
    [(low, high)] = intervals(values, seed=1)
    mean, half = values.mean(), 1.96 * values.std() / 30
    assert low == pytest.approx(mean - half, abs=0.001)
    assert high == pytest.approx(mean + half, abs=0.001)


def test_holm_corrects_as_in_his_paper() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
