"""Guardrails: what each limit means, overrides, and what cannot be."""

from __future__ import annotations

import msgspec
import pytest

from alerts.guardrails import (
    EVENTS,
    VALUES,
    Event,
    Guardrail,
    GuardrailOverride,
    Value,
    check_guardrails,
    default_guardrails,
    with_overrides,
)
from alerts.guardrails import (
    Method as Kind,
)

DEFAULTS = default_guardrails(0.4)


def named(name: str, guardrails: tuple[Guardrail, ...] = DEFAULTS) -> Guardrail:
    return next(each for each in guardrails if each.name == name)


def test_the_defaults_make_sense_and_have_names_of_their_own() -> None:
    assert check_guardrails(DEFAULTS) is None
    assert len({each.name for each in DEFAULTS}) == len(DEFAULTS)


def test_each_default_is_tested_by_what_its_signal_is() -> None:
    for each in DEFAULTS:
        assert each.signal in (VALUES if each.test is Kind.MEAN else EVENTS)


def test_every_event_and_value_is_watched() -> None:
    assert {each.signal for each in DEFAULTS} == {*EVENTS, *VALUES}


def test_the_names_that_can_be_overridden_are_those_of_the_defaults() -> None:
    for each in DEFAULTS:
        told = {"name": each.name, "report_only": True}
        override = msgspec.convert(told, GuardrailOverride)
        assert named(each.name, with_overrides(DEFAULTS, (override,))).report_only


@pytest.mark.parametrize(
    ("name", "share"),
    [("p95", 0.05), ("p95_relative", 0.05), ("errors", 0.01), ("fallbacks", 0.10)],
)
def test_a_limit_of_a_p95_is_one_slow_request_in_twenty(name: str, share: float) -> None:
    assert named(name).share_limit == share


@pytest.mark.parametrize(("name", "floor"), [("recall", 0.48), ("overlap", 0.98), ("probes", 0.48), ("cost", 0.75)])
def test_a_floor_is_in_the_scale_of_its_value(name: str, floor: float) -> None:
    """Paired: 0.5 is no difference. Overlap: 1 is the same. Cost: 1 is free, 0.75 the limit, 0 four times as much."""
    assert named(name).floor == pytest.approx(floor)


def test_an_overlap_is_held_to_what_is_expected_of_it() -> None:
    overlap = named("overlap", default_guardrails(0.4, expected_overlap=0.6))
    assert overlap.floor == pytest.approx(0.58)
    assert overlap.in_words() == "overlap with control's five best at most 0.02 below the 0.6 expected"
    assert check_guardrails(with_overrides((overlap,), (GuardrailOverride(name="overlap", limit=0.6),))) == (
        "overlap: a margin must be below 0.6"
    )


def test_a_guardrail_says_its_limit_in_words() -> None:
    said = {each.name: each.in_words() for each in DEFAULTS}
    assert said["p95"] == "95 of 100 candidate requests take at most 0.4 s"
    assert said["p95_relative"] == "candidate p95 at most 1.25 times control's"
    assert said["errors"] == "at most 1 % of the candidate's requests fail"
    assert said["fallbacks"] == "at most 10 % of the candidate's requests fall back"
    assert said["cost"] == "a candidate request costs at most $0.002 on average"
    assert all("{" not in words for words in said.values())


def test_without_overrides_nothing_changes() -> None:
    assert with_overrides(DEFAULTS, ()) == DEFAULTS


def test_an_override_changes_what_it_says_and_no_more_and_the_last_one_counts() -> None:
    found = with_overrides(
        DEFAULTS,
        (
            GuardrailOverride(name="errors", limit=0.02, report_only=True),
            GuardrailOverride(name="errors", limit=0.03),
            GuardrailOverride(name="cost", is_on=False),
        ),
    )
    assert [each.name for each in found] == [each.name for each in DEFAULTS]
    errors = named("errors", found)
    assert (errors.limit, errors.report_only, errors.is_on) == (0.03, True, True)
    assert named("cost", found).is_on is False
    assert [each for each in found if each.name not in {"errors", "cost"}] == [
        each for each in DEFAULTS if each.name not in {"errors", "cost"}
    ]


@pytest.mark.parametrize(
    "told",
    [{"name": "speed"}, {"name": "p95", "limit": 0}, {"name": "p95", "limit": -1}, {"name": "p95", "limits": 1}],
    ids=["unknown name", "zero", "negative", "unknown field"],
)
def test_an_override_that_cannot_be_is_refused(told: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(told, GuardrailOverride)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (GuardrailOverride(name="errors", limit=1.0), "errors: a share must be below 1"),
        (GuardrailOverride(name="fallbacks", limit=1.5), "fallbacks: a share must be below 1"),
        (GuardrailOverride(name="recall", limit=0.5), "recall: a margin must be below 0.5"),
        (GuardrailOverride(name="p95_relative", limit=0.9), "p95_relative: a ratio must be at least 1"),
        (GuardrailOverride(name="cost", limit=3.0), None),
        (GuardrailOverride(name="p95", limit=30.0), None),
        (GuardrailOverride(name="misses_relative", limit=0.4), None),
    ],
)
def test_limits_that_no_test_could_hold_are_named(override: GuardrailOverride, words: str | None) -> None:
    assert check_guardrails(with_overrides(DEFAULTS, (override,))) == words


@pytest.mark.parametrize("how", [{"is_on": False}, {"report_only": True}], ids=["off", "report only"])
def test_a_guard_that_could_never_roll_back_is_refused(how: dict[str, bool]) -> None:
    overrides = tuple(msgspec.convert({"name": each.name, **how}, GuardrailOverride) for each in DEFAULTS)
    assert "could ever roll the candidate back" in str(check_guardrails(with_overrides(DEFAULTS, overrides)))
    assert check_guardrails(with_overrides(DEFAULTS, overrides[1:])) is None


def test_a_share_test_of_another_event_is_held_to_its_own_limit() -> None:
    misses = Guardrail(name="misses", words="{share}", signal=Event.MISS, test=Kind.SHARE, limit=0.3)
    assert (misses.share_limit, misses.in_words()) == (0.3, "30 %")


def test_a_mean_of_another_value_has_its_floor_a_margin_below_no_difference() -> None:
    recall = Guardrail(name="r", words="", signal=Value.RECALL, test=Kind.MEAN, limit=0.1)
    assert recall.floor == pytest.approx(0.4)
