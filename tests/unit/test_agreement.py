"""How far two orders agree: by hand, by the sum that the measure is defined by, and at its ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.agreement import Agreement, agreement_of, overlap, rank_biased_overlap, recall_of_top

ORDER = list(range(12))
REVERSED = ORDER[::-1]
ORDERS = st.integers(2, 40).flatmap(lambda n: st.tuples(st.permutations(range(n)), st.permutations(range(n))))


def by_definition(one: list[int], other: list[int], p: float, depths: int = 3000) -> float:
    """Return ``(1 - p) sum p^(d-1) A_d`` (eq. 4 of the paper), set by set; below the lists as at their end."""
    last = len(one)
    agreed = [len(set(one[:d]) & set(other[:d])) / d for d in range(1, last + 1)]
    agreed += [agreed[-1]] * (depths - last)
    return (1 - p) * sum(p**d * share for d, share in enumerate(agreed))


@pytest.mark.parametrize(
    ("one", "other", "p", "value"),
    [
        ("abcdefg", "abcdefg", 0.9, 1.0),
        ("abcdefg", "bacdefg", 0.9, 0.9),  # wrong at the first depth alone, which weighs 1 - p
        ("ab", "ba", 0.5, 0.5),
        ("abc", "cba", 0.9, 0.1 * (0 + 0.9 / 2 + 0.81) + 0.729),
        ("abc", "xyz", 0.9, 0.0),
        ("abcd", "abxy", 0.5, 0.5 + 0.25 + 0.125 * 2 / 3 + 0.0625 * 2 / 4 + 0.0625 * 2 / 4),
    ],
    ids=["equal", "first two", "two", "reversed", "disjoint", "half"],
)
def test_rank_biased_overlap_by_hand(one: str, other: str, p: float, value: float) -> None:
    assert rank_biased_overlap([*map(ord, one)], [*map(ord, other)], p) == pytest.approx(value)


@given(ORDERS, st.sampled_from([0.5, 0.9, 0.98]))
def test_rank_biased_overlap_is_the_sum_it_is_defined_by(orders: tuple[list[int], list[int]], p: float) -> None:
    assert rank_biased_overlap(*orders, p) == pytest.approx(by_definition(*orders, p), abs=1e-9)


@given(ORDERS)
def test_rank_biased_overlap_is_the_same_either_way_and_in_range(orders: tuple[list[int], list[int]]) -> None:
    one, other = orders
    assert 0 <= rank_biased_overlap(one, other) <= 1 + 1e-12
    assert rank_biased_overlap(one, other) == rank_biased_overlap(other, one)


def test_what_is_far_below_the_top_does_not_weigh() -> None:
    order = list(range(1000))
    below = order[:199:-1]
    assert rank_biased_overlap(order, order[:200] + below) == pytest.approx(1)
    assert rank_biased_overlap(order, order[::-1]) == pytest.approx(0, abs=1e-9)


def test_overlap_and_recall_by_hand() -> None:
    other = [5, 0, 9, 2, 11, 1, 3, 10, 8, 7, 4, 6]
    assert overlap(ORDER, other, 5) == pytest.approx(2 / 5)  # 0 and 2
    assert overlap(ORDER, other, 10) == pytest.approx(8 / 10)  # without 4 and 6
    assert recall_of_top(ORDER, other, top=5, depth=10) == pytest.approx(4 / 5)  # 4 is the eleventh
    assert recall_of_top(other, ORDER, top=5, depth=10) == pytest.approx(4 / 5)  # 11 is the twelfth


def test_equal_orders_agree_wholly() -> None:
    found = agreement_of(ORDER, ORDER)
    assert [getattr(found, name) for name in Agreement.__struct_fields__] == [pytest.approx(1)] * 6


def test_a_reversed_order_agrees_in_nothing_at_the_top() -> None:
    found = agreement_of(ORDER, REVERSED)
    assert (found.overlap_at_5, found.top_1, found.candidate_recall_at_10) == (0, 0, 3 / 5)
    assert found.overlap_at_10 == pytest.approx(8 / 10)
    assert found.rbo < 0.5


def test_the_recalls_are_of_the_arm_they_are_named_after() -> None:
    candidate = [10, 11, *ORDER[:10]]  # control's best are pushed down by two, its last two are at the top
    found = agreement_of(ORDER, candidate)
    assert found.candidate_recall_at_10 == 1
    assert found.control_recall_at_10 == pytest.approx(3 / 5)


@pytest.mark.parametrize(("count", "known"), [(2, set()), (5, set()), (6, {"overlap_at_5"}), (10, {"overlap_at_5"})])
def test_what_no_order_of_so_few_could_change_is_none(count: int, known: set[str]) -> None:
    found = agreement_of(ORDER[:count], REVERSED[-count:])
    given = {name for name in Agreement.__struct_fields__ if getattr(found, name) is not None}
    assert given == {"rbo", "top_1"} | known
