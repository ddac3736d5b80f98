"""What an exposure means for the guardrails."""

from __future__ import annotations

import msgspec
import pytest

from alerts.guardrails import EVENTS, VALUES, Event, Value
from alerts.signals import Signals, tick_of
from flags.vocabulary import Arm, Assignment, Reason
from proxy.exposure import Attempt, Exposure, Outcome, Role
from proxy.signal_observer import SignalObserver

CANDIDATE = Assignment(Arm.CANDIDATE, Reason.SPLIT, 3, 5)
CONTROL = Assignment(Arm.CONTROL, Reason.SPLIT, 77, 5)


def observer(stage: str = "swap:0:5") -> SignalObserver:
    return SignalObserver(prefix="x", instance_id="a", p95_seconds=0.6, cost_limit_dollars=0.002, stage=lambda: stage)


def attempt(seconds: float = 0.05, cost_dollars: float = 0.0) -> Attempt:
    return Attempt(
        role=Role.CANDIDATE, model="m", outcome=Outcome.OK, started_at=0.0, seconds=seconds, cost_dollars=cost_dollars
    )


def exposure(user: str = "ada", **fields: object) -> Exposure:
    base = Exposure(
        request_id="r",
        traceparent=None,
        route="/v1/rerank",
        dialect="jina",
        flag="swap",
        assignment=CANDIDATE,
        outcome=Outcome.OK,
        served_by=Role.CANDIDATE,
        model="m",
        status=200,
        user_hash=user,
        user_group=7,
        user_source="header:X-User-Id",
        is_forced=False,
        documents=25,
        started_at=1_800_000_000.0,
        seconds=0.1,
        attempts=(attempt(),),
    )
    return msgspec.structs.replace(base, **fields)


def counts(observed: SignalObserver, arm: int, event: Event) -> tuple[int, int]:
    found = observed.signals.arms[arm]
    return found.bad[EVENTS.index(event)], found.trials[EVENTS.index(event)]


def test_a_request_is_its_assigned_arms_whoever_answered() -> None:
    seen = observer()
    seen.observe(exposure(outcome=Outcome.ERROR, served_by=Role.FALLBACK))
    assert counts(seen, 1, Event.ERROR) == (1, 1)
    assert counts(seen, 1, Event.FALLBACK) == (1, 1)
    assert counts(seen, 0, Event.ERROR) == (0, 0)
    assert seen.signals.arms[1].fallbacks == {"error": 1}


@pytest.mark.parametrize(
    ("outcome", "is_error"),
    [
        (Outcome.OK, False),
        (Outcome.LOW_SCORE, False),
        (Outcome.TIMEOUT, True),
        (Outcome.ERROR, True),
        (Outcome.INVALID, True),
        (Outcome.OVERLOADED, True),
        (Outcome.BREAKER, True),
    ],
)
def test_doubt_is_no_error_and_every_failure_is(outcome: Outcome, *, is_error: bool) -> None:
    seen = observer()
    seen.observe(exposure(outcome=outcome, status=429 if outcome is Outcome.OVERLOADED else 200))
    assert counts(seen, 1, Event.ERROR) == (int(is_error), 1)


def test_a_doubtful_ranking_answers_for_its_own_time_and_a_failed_one_for_all_of_it() -> None:
    seen = observer()
    seen.observe(exposure(outcome=Outcome.LOW_SCORE, served_by=Role.FALLBACK, seconds=2.0))
    assert counts(seen, 1, Event.SLOW) == (0, 1)
    seen.observe(exposure("bob", outcome=Outcome.TIMEOUT, served_by=Role.FALLBACK, seconds=2.0))
    assert counts(seen, 1, Event.SLOW) == (1, 2)


@pytest.mark.parametrize(
    "fields",
    [
        {"is_forced": True},
        {"assignment": Assignment(Arm.CONTROL, Reason.LATCHED)},
        {"assignment": Assignment(Arm.CONTROL, Reason.NOT_READY)},
        {"assignment": Assignment(Arm.CONTROL, Reason.UNSURE)},
        {"status": 400},
        {"status": 413},
    ],
    ids=["forced", "latched", "not ready", "unsure", "bad request", "too large"],
)
def test_what_is_not_the_flags_choice_or_the_clients_fault_counts_for_nobody(fields: dict[str, object]) -> None:
    seen = observer()
    seen.observe(msgspec.structs.replace(exposure(), **fields))
    assert [arm.requests for arm in seen.signals.arms] == [0, 0]


def test_what_one_user_counts_for_in_a_minute_is_capped_good_and_bad_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [600.0]
    monkeypatch.setattr("proxy.signal_observer.time.monotonic", lambda: clock[0])
    seen = observer()
    for turn in range(100):
        seen.observe(exposure(outcome=Outcome.ERROR if turn % 4 == 0 else Outcome.OK))
    assert counts(seen, 1, Event.ERROR) == (5, 20)
    seen.observe(exposure("bob", outcome=Outcome.ERROR))
    clock[0] += 60.0
    seen.observe(exposure(outcome=Outcome.ERROR, started_at=1_800_000_001.0))
    assert counts(seen, 1, Event.ERROR) == (7, 22)
    assert seen.signals.arms[1].requests == 102


def test_a_doubt_is_one_whoever_answers() -> None:
    seen = observer()
    seen.observe(exposure(outcome=Outcome.LOW_SCORE, served_by=Role.CANDIDATE))
    assert counts(seen, 1, Event.FALLBACK) == (1, 1)


def test_a_candidate_that_is_not_ready_is_counted_as_that() -> None:
    seen = observer()
    seen.observe(exposure(assignment=Assignment(Arm.CONTROL, Reason.NOT_READY)))
    assert seen.signals.not_ready == 1


def test_the_limit_of_control_counts_from_when_it_is_known() -> None:
    seen = observer()
    seen.observe(exposure(seconds=0.3))
    assert counts(seen, 1, Event.SLOW_RELATIVE) == (0, 0)
    seen.take(["1", "0.25"])
    seen.observe(exposure(seconds=0.3))
    seen.observe(exposure(seconds=0.2))
    assert counts(seen, 1, Event.SLOW_RELATIVE) == (1, 2)
    seen.take(["1", "no number"])
    seen.take(["1", None])
    assert seen.relative_limit_seconds is None


def test_cost_is_counted_of_the_candidate_only_and_rounding_keeps_the_mean() -> None:
    dither = iter([0.5, 0.9])
    seen = SignalObserver(
        prefix="x",
        instance_id="a",
        p95_seconds=0.6,
        cost_limit_dollars=0.002,
        stage=lambda: "",
        dither=lambda: next(dither),
    )
    seen.observe(exposure(attempts=(attempt(cost_dollars=0.0021),)))
    seen.observe(exposure(attempts=(attempt(cost_dollars=1.0),)))
    seen.observe(exposure(assignment=CONTROL, attempts=(attempt(cost_dollars=0.004),)))
    # 1 - 0.0021 / 0.008 = 0.7375, in 64ths 47.2: up in one of five
    assert seen.signals.values[VALUES.index(Value.COST)] == {47: 1, 0: 1}
    assert seen.signals.arms[0].dollars == 0.004


def test_a_user_is_new_once_a_stage() -> None:
    stage = ["swap:0:5"]
    seen = SignalObserver(
        prefix="x", instance_id="a", p95_seconds=0.6, cost_limit_dollars=0.002, stage=lambda: stage[0]
    )
    for user in ("ada", "ada", "bob"):
        seen.observe(exposure(user))
    assert seen.signals.arms[1].new_users == 2
    stage[0] = "swap:1:5"
    seen.observe(exposure("ada"))
    assert seen.signals.arms[1].new_users == 3


def test_the_slowest_bad_requests_of_late_are_kept_as_examples_with_their_trace() -> None:
    seen = observer()
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    for n in range(5):
        seen.observe(exposure(f"u{n}", request_id=f"r{n}", seconds=0.9 + n % 4 / 10, traceparent=trace))
    seen.observe(exposure("good", request_id="fine"))
    assert [each.request_id for each in seen.signals.examples] == ["r3", "r2", "r1"]
    seen.observe(exposure("later", request_id="new", seconds=0.8, traceparent=trace, started_at=1_800_000_601.0))
    assert [each.request_id for each in seen.signals.examples] == ["new"]
    seen = observer()
    seen.observe(exposure(seconds=0.9, traceparent=trace))
    assert seen.signals.examples[0].trace_id == "0af7651916cd43dd8448eb211c80319c"


def test_what_is_told_can_be_judged() -> None:
    seen = observer()
    before = msgspec.json.decode(msgspec.json.encode(seen.signals), type=Signals)
    for n in range(20):
        seen.observe(exposure(f"u{n}", user_group=n, seconds=0.9 if n % 2 else 0.1))
        seen.observe(exposure(f"c{n}", user_group=n, assignment=CONTROL, served_by=Role.CONTROL))
    now = msgspec.json.decode(msgspec.json.encode(seen.signals), type=Signals)
    tick = tick_of(now, before)
    assert tick.requests.tolist() == [[20, 20]]
    assert tick.bad[0, 1, EVENTS.index(Event.SLOW)] == 10
    assert tick.group_trials[0, 1, EVENTS.index(Event.ERROR)].sum() == 20
