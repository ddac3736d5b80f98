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
        breaker.succeeded() if ok else breaker.failed(0.0)
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
    breaker.succeeded()
    assert breaker.allows(21.0)


def budget(**fields: float) -> FallbackBudget:
    made = FallbackBudget(Fallback(**{"max_share": 0.2, "max_dollars_per_hour": 1.0, "min_requests": 10, **fields}))  # type: ignore[arg-type]
    made.set_shared(12, Spend(), Spend())
    return made


def test_a_share_counts_only_from_enough_requests_on() -> None:
    made = budget()
    made.add(Spend(requests=9, low_scores=9))
    assert made.exceeded(NOON) is None
    made.add(Spend(requests=1))
    assert "20%" in str(made.exceeded(NOON))


def test_under_the_share_there_is_budget() -> None:
    made = budget()
    made.add(Spend(requests=100, low_scores=19))
    assert made.exceeded(NOON) is None
    made.add(Spend(low_scores=1))
    assert made.exceeded(NOON)


def test_dollars_count_from_the_first() -> None:
    made = budget()
    made.add(Spend(requests=1, microdollars=1_000_000))
    assert "$1 an hour" in str(made.exceeded(NOON))


def test_what_other_replicas_spent_counts_too() -> None:
    made = budget()
    made.set_shared(12, Spend(microdollars=999_999), Spend())
    assert made.exceeded(NOON) is None
    made.add(Spend(microdollars=1))
    assert made.exceeded(NOON)


def test_the_hour_before_fades_away() -> None:
    made = budget()
    made.set_shared(12, Spend(), Spend(microdollars=1_200_000))
    assert made.exceeded(NOON)
    assert made.exceeded(NOON + HOUR / 2) is None


def test_a_new_hour_makes_the_last_one_the_hour_before() -> None:
    made = budget()
    made.set_shared(12, Spend(microdollars=2_000_000), Spend(microdollars=5_000_000))
    assert made.last_hour(NOON + HOUR).microdollars == 2_000_000
    assert made.last_hour(NOON + 2.5 * HOUR).microdollars == 0


@given(st.lists(st.booleans(), max_size=20))
def test_nothing_is_lost_or_doubled_on_the_way_to_the_store(reached: list[bool]) -> None:
    made = budget()
    stored = Spend()
    for ok in reached:
        made.add(Spend(requests=1, microdollars=5))
        spend = made.take_unsent()
        if ok:
            stored += spend
            made.set_shared(12, stored, Spend())
        else:
            made.put_back(spend)
        assert made.last_hour(NOON).microdollars == 5 * made.last_hour(NOON).requests
    assert made.last_hour(NOON).requests == len(reached)
    assert stored + made.take_unsent() == Spend(requests=len(reached), microdollars=5 * len(reached))
