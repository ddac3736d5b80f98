from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from proxy.breaker import Breaker
from proxy.budget import HOUR, FallbackBudget, Spend
from proxy.settings import Fallback

NOON = 12.0 * HOUR


def opened() -> Breaker:
    breaker = Breaker(3, 10.0)
    for _ in range(3):
        assert breaker.allows(0.0)
        breaker.failed(0.0)
    return breaker


def test_a_breaker_opens_at_the_last_straw() -> None:
    breaker = opened()
    assert breaker.is_open
    assert not breaker.allows(9.9)


def test_failures_with_a_success_between_them_do_not_add_up() -> None:
    breaker = Breaker(3, 10.0)
    for ok in (False, False, True, False, False):
        breaker.succeeded(0.0) if ok else breaker.failed(0.0)
    assert not breaker.is_open


def test_an_open_breaker_lets_one_trial_through_at_a_time() -> None:
    breaker = opened()
    assert breaker.allows(10.0)
    assert not breaker.allows(10.1)
    assert breaker.allows(20.0)


def test_a_trial_that_succeeds_closes_and_one_that_fails_does_not() -> None:
    breaker = opened()
    assert breaker.allows(10.0)
    breaker.failed(11.0)
    assert not breaker.allows(20.9)
    assert breaker.allows(21.0)
    breaker.succeeded(21.0)
    assert breaker.allows(21.0)


def test_a_timeout_does_not_count_when_others_were_answered_in_the_meantime() -> None:
    breaker = Breaker(2, 10.0)
    for _ in range(5):
        breaker.succeeded(1.5)
        breaker.timed_out(4.0, began=1.0, weight=0)
    assert not breaker.is_open


def test_timeouts_of_heavy_requests_spare_only_what_is_as_heavy() -> None:
    breaker = Breaker(3, 10.0)
    for weight in (900, 1000, 800):
        breaker.timed_out(0.0, began=-3.0, weight=weight)
    assert breaker.is_open
    assert [breaker.allows(1.0, weight) for weight in (5, 999, 1000, 2000)] == [True, True, False, False]


def test_an_arm_that_is_late_for_everybody_is_spared_whatever_is_asked() -> None:
    breaker = Breaker(3, 10.0)
    for weight in (900, 1000, 800, 5, 4, 3):
        assert breaker.allows(0.0, weight)
        breaker.timed_out(0.0, began=-3.0, weight=weight)
    assert not breaker.allows(1.0, 6)


def test_one_failure_of_a_light_request_does_not_turn_heavy_ones_into_an_outage() -> None:
    breaker = Breaker(3, 10.0)
    for _ in range(3):
        breaker.timed_out(0.0, began=-3.0, weight=1000)
    breaker.failed(0.0)
    assert breaker.allows(1.0, 5)


def test_nonsense_told_to_one_user_counts_once_and_to_different_ones_each() -> None:
    breaker = Breaker(3, 10.0)
    for _ in range(9):
        breaker.answered_nonsense(0.0, "mallory")
    assert not breaker.is_open
    breaker.answered_nonsense(0.0, "alice")
    breaker.answered_nonsense(0.0, "bob")
    assert breaker.is_open


def budget(**fields: float) -> FallbackBudget:
    return FallbackBudget(Fallback(**{"max_share": 0.2, "max_dollars_per_hour": 1.0, "min_requests": 10, **fields}))  # type: ignore[arg-type]


def test_a_share_counts_only_from_enough_requests_on() -> None:
    made = budget()
    made.add(Spend(requests=9, low_scores=9), NOON)
    assert made.exceeded(NOON) is None
    made.add(Spend(requests=1), NOON)
    assert "20%" in str(made.exceeded(NOON))


def test_under_the_share_there_is_budget() -> None:
    made = budget()
    made.add(Spend(requests=100, low_scores=19), NOON)
    assert made.exceeded(NOON) is None
    made.add(Spend(low_scores=1), NOON)
    assert made.exceeded(NOON)


def test_dollars_count_from_the_first() -> None:
    made = budget()
    made.add(Spend(requests=1, microdollars=1_000_000), NOON)
    assert "$1 an hour" in str(made.exceeded(NOON))


def test_a_share_of_nothing_lets_none_fall_back() -> None:
    assert "0%" in str(budget(max_share=0.0).exceeded(NOON))


def test_what_other_replicas_spent_counts_too() -> None:
    made = budget()
    made.set_others({12: Spend(microdollars=999_999)})
    assert made.exceeded(NOON) is None
    made.add(Spend(microdollars=1), NOON)
    assert made.exceeded(NOON)


def test_the_hour_before_fades_away() -> None:
    made = budget()
    made.set_others({11: Spend(microdollars=1_200_000)})
    assert made.exceeded(NOON)
    assert made.exceeded(NOON + HOUR / 2) is None


def test_a_new_hour_makes_the_last_one_the_hour_before() -> None:
    made = budget()
    made.add(Spend(microdollars=2_000_000), NOON)
    made.set_others({12: Spend(microdollars=1), 11: Spend(microdollars=5_000_000)})
    assert made.last_hour(NOON + HOUR).microdollars == 2_000_001
    assert made.last_hour(NOON + 2.5 * HOUR).microdollars == 0


def test_no_more_than_two_hours_are_kept() -> None:
    made = budget()
    for hour in (12, 13, 14):
        made.add(Spend(requests=1), hour * HOUR)
    assert [made.own(hour).requests for hour in (12, 13, 14)] == [0, 1, 1]


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans()), max_size=30))
def test_sums_told_late_or_twice_count_once(steps: list[tuple[int, bool]]) -> None:
    """Three replicas spend and tell; of some the store hears, but they do not hear back and tell it again."""
    replicas = [budget() for _ in range(3)]
    stored: dict[int, Spend] = {}

    def exchange(who: int, *, hears_back: bool) -> None:
        stored[who] = replicas[who].own(12)
        if hears_back:
            replicas[who].set_others({12: sum((s for other, s in stored.items() if other != who), Spend())})

    for who, hears_back in steps:
        replicas[who].add(Spend(requests=1, microdollars=5), NOON)
        exchange(who, hears_back=hears_back)
    for who in (0, 1, 2):
        exchange(who, hears_back=True)
    total = Spend(requests=len(steps), microdollars=5 * len(steps))
    assert {made.last_hour(NOON) for made in replicas} == {total}
