"""Who is told what when: rules one by one, and whole lives of alerts and receivers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from alerts.alert import Alert, Severity
from alerts.delivery import (
    Delivery,
    DeliverySettings,
    acknowledged,
    backoff_seconds,
    claimed,
    delivered,
    due,
    failed,
    forgettable,
    is_due,
    undelivered,
    undelivered_key,
)
from alerts.notifiers.base import Acknowledgement, NotDelivered

SETTINGS = DeliverySettings()
NOW = 1_000_000.0
DOWN = NotDelivered("HTTP 500")


class Told(msgspec.Struct, frozen=True):
    """A receiver as the rules see it."""

    name: str = "pager"
    severities: frozenset[Severity] = frozenset(Severity)
    repost_seconds: float | None = None
    takes_updates: bool = True


PAGER = Told()
SLACK = Told("slack", takes_updates=False)
ALERTMANAGER = Told("alertmanager", repost_seconds=60.0)


def alert(key: str = "rollback:1", **fields: Any) -> Alert:
    given: dict[str, Any] = {
        "key": key,
        "kind": "rollback",
        "severity": Severity.PAGE,
        "flag": "rerank-canary",
        "title": f"{key} happened.",
        "starts_at": NOW,
    }
    return Alert(**(given | fields))


def fresh(receiver: Told = PAGER, key: str = "rollback:1") -> Delivery:
    return Delivery(receiver=receiver.name, alert_key=key)


def told(of: Alert, receiver: Told = PAGER, *, at: float = NOW) -> Delivery:
    """Return the delivery of an alert that was taken at the first attempt."""
    return delivered(claimed(fresh(receiver, of.key), at, SETTINGS), of, at, receiver.repost_seconds)


def refused(of: Delivery, *, times: int, seconds: float, error: NotDelivered = DOWN) -> Delivery:
    """Return the delivery after failed attempts, one every so many seconds."""
    for turn in range(times):
        at = NOW + turn * seconds
        of = failed(claimed(of, at, SETTINGS), alert(), error, at, 1.0, SETTINGS)
    return of


def says(of: Alert, delivery: Delivery, receiver: Told, now: float = NOW) -> bool:
    return is_due(of, delivery, receiver, now, SETTINGS)


def test_an_alert_is_told_once() -> None:
    assert says(alert(), fresh(), PAGER)
    assert not says(alert(), told(alert()), PAGER, NOW + 86_400)


def test_an_alert_goes_to_those_whose_severity_it_has() -> None:
    warned = Told("chat", frozenset({Severity.WARNING}))
    assert not says(alert(), fresh(warned), warned)
    assert says(alert(severity=Severity.WARNING), fresh(warned), warned)


def test_a_receiver_that_forgets_hears_of_it_again_while_it_lasts() -> None:
    known = told(alert(), ALERTMANAGER)
    assert [says(alert(), known, ALERTMANAGER, NOW + after) for after in (59, 60)] == [False, True]
    assert not says(alert(), told(alert().ended(NOW), ALERTMANAGER), ALERTMANAGER, NOW + 600)


@pytest.mark.parametrize(("receiver", "hears"), [(PAGER, True), (SLACK, False), (ALERTMANAGER, True)])
def test_a_change_goes_to_those_who_fold_it(receiver: Told, *, hears: bool) -> None:
    assert says(alert(version=2), told(alert(), receiver), receiver, NOW + 20) is hears


def test_changes_that_come_thick_and_fast_are_sent_one_in_ten_seconds() -> None:
    assert not says(alert(version=2), told(alert()), PAGER, NOW + 9)
    assert says(alert(version=3), told(alert()), PAGER, NOW + 10)


def test_a_change_does_not_open_again_what_somebody_closed() -> None:
    closed = replace(told(alert()), is_closed=True)
    assert not says(alert(version=2), closed, PAGER, NOW + 20)


@pytest.mark.parametrize("receiver", [PAGER, SLACK, ALERTMANAGER])
def test_the_end_is_told_once(receiver: Told) -> None:
    over = alert().ended(NOW + 1)
    known = told(alert(), receiver)
    assert says(over, known, receiver, NOW + 1)
    ended = delivered(claimed(known, NOW, SETTINGS), over, NOW, receiver.repost_seconds)
    assert not says(over, ended, receiver, NOW + 3600)


def test_whoever_never_heard_of_it_does_not_hear_of_its_end() -> None:
    assert not says(alert().ended(NOW), fresh(), PAGER)


def test_whoever_may_have_heard_of_it_hears_of_its_end() -> None:
    claim = claimed(fresh(), NOW, SETTINGS)
    assert says(alert().ended(NOW), claim, PAGER, NOW + 11)


def test_whoever_was_told_hears_of_the_end_after_it_lost_its_urgency() -> None:
    pages = Told(severities=frozenset({Severity.PAGE}))
    calmer = alert(severity=Severity.INFO, version=2).ended(NOW)
    assert says(calmer, told(alert(), pages), pages)


@pytest.mark.parametrize("receiver", [PAGER, SLACK, ALERTMANAGER])
def test_what_begins_again_is_told_again(receiver: Told) -> None:
    over = replace(told(alert().ended(NOW), receiver), acknowledged_at=NOW, is_closed=True)
    again = alert(version=3)
    assert says(again, over, receiver, NOW + 1)
    begun = delivered(claimed(over, NOW, SETTINGS), again, NOW + 1, None)
    assert (begun.is_over_delivered, begun.acknowledged_at, begun.is_closed, begun.told_at) == (
        False,
        None,
        False,
        NOW + 1,
    )
    assert not says(again, begun, PAGER, NOW + 2)


def test_what_is_on_its_way_is_not_sent_by_another() -> None:
    claim = claimed(fresh(), NOW, SETTINGS)
    assert not says(alert(), claim, PAGER, NOW + SETTINGS.timeout_seconds)


def test_what_a_dead_sender_had_on_its_way_is_sent_again() -> None:
    claim = claimed(fresh(), NOW, SETTINGS)
    assert says(alert(), claim, PAGER, NOW + 2 * SETTINGS.timeout_seconds)


def test_a_clock_that_was_years_ahead_does_not_silence_a_page() -> None:
    claim = claimed(fresh(), NOW + 1e8, SETTINGS)
    assert says(alert(), claim, PAGER, NOW)
    assert says(alert(version=2), told(alert(), at=NOW + 1e8), PAGER, NOW)
    assert says(alert(), told(alert(), ALERTMANAGER, at=NOW + 1e8), ALERTMANAGER, NOW)


def test_pages_go_first_then_what_is_older() -> None:
    alerts = [
        alert("c", severity=Severity.INFO, starts_at=1.0),
        alert("b", starts_at=5.0),
        alert("a", starts_at=9.0),
    ]
    sends = due(alerts, {}, [PAGER, SLACK], NOW, SETTINGS)
    assert [(send.alert.key, send.delivery.receiver) for send in sends] == [
        (key, receiver) for key in "bac" for receiver in ("pager", "slack")
    ]


@given(st.integers(1, 10_000), st.floats(0, 1), st.one_of(st.none(), st.floats(allow_nan=False)))
def test_the_wait_is_bounded_and_never_shorter_than_was_asked(
    attempts: int, jitter: float, asked: float | None
) -> None:
    wait = backoff_seconds(attempts, jitter, asked)
    assert 0.5 <= wait <= 900
    assert wait >= min(asked or 0.0, 900)
    assert asked is not None or wait <= 300


def test_the_wait_doubles() -> None:
    assert [backoff_seconds(n, 1.0, None) for n in (1, 2, 3, 9, 10, 99)] == [1, 2, 4, 256, 300, 300]
    assert backoff_seconds(3, 0.0, None) == 2


def test_a_failure_waits_before_the_next_attempt() -> None:
    once = refused(fresh(), times=1, seconds=1, error=NotDelivered("HTTP 429", retry_after_seconds=7))
    assert [says(alert(), once, PAGER, NOW + after) for after in (6.9, 7.0)] == [False, True]
    assert (once.last_error, once.failing_since, once.is_dead) == ("HTTP 429", NOW, False)


def test_a_delivery_is_given_up_after_many_attempts_in_a_long_time() -> None:
    assert not refused(fresh(), times=11, seconds=100).is_dead
    assert not refused(fresh(), times=30, seconds=1).is_dead
    assert refused(fresh(), times=12, seconds=100).is_dead


def test_a_refusal_for_good_is_given_up_at_once_and_looked_at_again_later() -> None:
    dead = refused(fresh(), times=1, seconds=1, error=NotDelivered("HTTP 400", is_final=True))
    assert dead.is_dead
    assert [says(alert(), dead, PAGER, NOW + after) for after in (44, 45)] == [False, True]
    warning = alert(severity=Severity.WARNING)
    later = failed(claimed(fresh(), NOW, SETTINGS), warning, NotDelivered("", is_final=True), NOW, 1.0, SETTINGS)
    assert [says(warning, later, PAGER, NOW + after) for after in (899, 900)] == [False, True]
    assert not delivered(claimed(dead, NOW, SETTINGS), alert(), NOW, None).is_dead


def known(*deliveries: Delivery) -> dict[str, Delivery]:
    return {delivery.id: delivery for delivery in deliveries}


def by_key(*alerts: Alert) -> dict[str, Alert]:
    return {one.key: one for one in alerts}


RECEIVERS = [PAGER, SLACK]
DEAD = refused(fresh(), times=1, seconds=1, error=NotDelivered("HTTP 400", is_final=True))


def missed(alerts: dict[str, Alert], deliveries: dict[str, Delivery], now: float = NOW) -> list[Alert]:
    return undelivered(alerts, deliveries, RECEIVERS, now, SETTINGS)


def test_what_one_does_not_take_all_others_hear_of_whatever_they_usually_hear() -> None:
    chat = Told("chat", frozenset({Severity.INFO}))
    (said,) = undelivered(by_key(alert()), known(DEAD), [PAGER, chat], NOW, SETTINGS)
    assert (said.key, said.kind, said.severity) == ("undelivered:rerank-canary:pager", "undelivered", Severity.PAGE)
    assert ("Because", "HTTP 400") in said.facts
    assert "rollback:1 happened." in dict(said.facts)["Not delivered"]
    assert [send.delivery.receiver for send in due([said], {}, [PAGER, chat], NOW, SETTINGS)] == ["chat"]


def test_a_page_that_is_late_is_told_to_the_others_before_it_is_given_up() -> None:
    late = refused(fresh(), times=2, seconds=60)
    assert missed(by_key(alert()), known(late), NOW + 119) == []
    assert [said.key for said in missed(by_key(alert()), known(late), NOW + 120)] == ["undelivered:rerank-canary:pager"]
    assert missed(by_key(alert(severity=Severity.WARNING)), known(late), NOW + 120) == []


def test_what_is_undelivered_is_said_once_and_ends_when_it_is_taken() -> None:
    (said,) = missed(by_key(alert()), known(DEAD))
    assert missed(by_key(alert(), said), known(DEAD), NOW + 60) == []
    (over,) = missed(by_key(alert(), said), known(told(alert())), NOW + 60)
    assert (over.ends_at, over.version) == (NOW + 60, 2)
    assert missed(by_key(alert(), over), known(told(alert())), NOW + 120) == []
    (again,) = missed(by_key(alert(), over), known(DEAD), NOW + 180)
    assert (again.is_over, again.version) == (False, 3)


def test_what_is_undelivered_ends_with_a_receiver_that_is_no_more() -> None:
    (said,) = missed(by_key(alert()), known(DEAD))
    (over,) = undelivered(by_key(alert(), said), known(DEAD), [SLACK], NOW, SETTINGS)
    assert (over.key, over.is_over) == (undelivered_key("rerank-canary", "pager"), True)


def test_two_dead_receivers_tell_of_each_other_and_come_to_rest() -> None:
    alerts, deliveries = by_key(alert()), known(DEAD)
    for turn in range(20):
        now = NOW + 1000 * turn
        changed = missed(alerts, deliveries, now)
        alerts |= by_key(*changed)
        for send in due(alerts.values(), deliveries, RECEIVERS, now, SETTINGS):
            final = NotDelivered("HTTP 400", is_final=True)
            deliveries |= known(failed(claimed(send.delivery, now, SETTINGS), send.alert, final, now, 1.0, SETTINGS))
    assert not changed
    assert set(alerts) == {"rollback:1", *(undelivered_key("rerank-canary", name) for name in ("pager", "slack"))}
    assert all(one.version < 5 for one in alerts.values())


def test_an_alert_is_forgotten_a_day_after_its_end() -> None:
    over = alert().ended(NOW)

    def forgotten(delivery: Delivery, after: float) -> bool:
        return bool(forgettable([over], known(delivery), RECEIVERS, NOW + after, SETTINGS))

    ended = delivered(claimed(told(alert()), NOW, SETTINGS), over, NOW, None)
    assert [forgotten(ended, after) for after in (86_400, 86_401)] == [False, True]
    assert forgotten(DEAD, 86_401)
    assert not forgotten(told(alert()), 86_401)
    assert forgotten(replace(told(alert()), receiver="no-more"), 86_401)
    assert not forgettable([alert()], {}, RECEIVERS, NOW + 1e6, SETTINGS)


SEEN = Acknowledgement("rollback:1", "Ada", NOW + 30, is_closed=False)


def test_who_saw_it_first_is_noted_and_a_close_after_it() -> None:
    seen = acknowledged(told(alert()), SEEN)
    assert (seen.acknowledged_by, seen.acknowledged_at, seen.is_closed) == ("Ada", NOW + 30, False)
    assert acknowledged(seen, replace(SEEN, who="Bob")) is seen
    closed = acknowledged(seen, Acknowledgement("rollback:1", "Bob", NOW + 60, is_closed=True))
    assert (closed.acknowledged_by, closed.acknowledged_at, closed.is_closed) == ("Ada", NOW + 30, True)
    assert acknowledged(closed, SEEN) is closed


def test_word_of_what_is_over_or_was_before_is_no_acknowledgement() -> None:
    over = told(alert().ended(NOW))
    assert acknowledged(over, SEEN) is over
    later = told(alert(), at=NOW + 3600)
    assert acknowledged(later, SEEN) is later


STEPS = st.lists(
    st.tuples(st.sampled_from(["change", "end", "begin", "nothing"]), st.booleans(), st.floats(0.5, 400)), max_size=40
)


@given(STEPS, st.sampled_from([PAGER, SLACK, ALERTMANAGER]))
def test_whatever_happens_a_receiver_that_works_in_the_end_knows_how_it_ended(
    steps: list[tuple[str, bool, float]], receiver: Told
) -> None:
    now, said, tried = NOW, alert(), list[tuple[bool, bool]]()
    deliveries: dict[str, Delivery] = {}
    for what, works, seconds in [*steps, *[("nothing", True, 1000.0)] * 3]:
        now += seconds
        if what == "end":
            said = said.ended(now)
        elif what == "change" or (what == "begin" and said.is_over):
            said = replace(said, ends_at=None if what == "begin" else said.ends_at, version=said.version + 1)
        for send in due([said], deliveries, [receiver], now, SETTINGS):
            claim = claimed(send.delivery, now, SETTINGS)
            tried.append((said.is_over, works))
            done = delivered(claim, said, now, receiver.repost_seconds)
            deliveries |= known(done if works else failed(claim, said, DOWN, now, 0.5, SETTINGS))
    heard = [is_over for is_over, works in tried if works]
    assert heard[-1:] == [said.is_over] or (said.is_over and not tried)
    assert not any(was == (True, True) and is_over for was, (is_over, _) in pairwise(tried))
    if receiver is SLACK:
        assert not any(was == (False, True) and not is_over for was, (is_over, _) in pairwise(tried))
