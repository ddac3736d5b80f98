"""What is simulated: one TOML file."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from alerts.guardrails import GuardrailOverride
from flags.ramp import Stage, check_plan

HOUR = 3600
DAY = 24 * HOUR

_Rate = Annotated[float, Meta(ge=0, le=1)]
_Positive = Annotated[float, Meta(gt=0, le=1e6)]


class InvalidScenario(Exception):
    """The file is no scenario; the message names the place."""


class Traffic(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who asks, how often."""

    requests_per_second: Annotated[float, Meta(gt=0, le=10_000)] = 50.0
    """Of both arms together, on average over a day."""
    users: Annotated[int, Meta(ge=1, le=5_000_000)] = 10_000
    heavy_user_icc: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Intra-user correlation of errors, fallbacks, misses and quality."""
    latency_icc: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    """Intra-user correlation of the logarithm of the latency."""
    daily_swing: Annotated[float, Meta(ge=0, le=1)] = 0.0
    """Load and bad rates go up and down by this share, once a day."""
    stages: tuple[tuple[Annotated[int, Meta(ge=1, le=100)], Annotated[float, Meta(gt=0, le=10_000)]], ...] = (
        (5, 24.0),
    )
    """Share in percent and hours of each."""


class Arm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one arm behaves while nothing is wrong."""

    latency_median_ms: _Positive = 60.0
    latency_sigma: Annotated[float, Meta(ge=0, le=5)] = 0.35
    """Of the logarithm: latencies are log-normal."""
    error_rate: _Rate = 0.001
    fallback_rate: _Rate = 0.0
    miss_rate: _Rate = 0.0
    """Of the requests that a user said something about; 0 in both arms: nobody says anything."""
    shadow_pairs_per_second: Annotated[float, Meta(ge=0, le=10_000)] = 0.0
    """Of both arms together, rankings compared pair by pair; the candidate's counts."""
    recall_mean: _Rate = 0.8


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes wrong with the candidate."""

    at_hour: Annotated[float, Meta(ge=0)]
    kind: Literal["latency", "errors", "fallbacks", "recall", "no_traffic", "split"]
    factor: Annotated[float, Meta(ge=0, le=1e4)] | None = None
    """latency: times as slow; split: times as many users as configured."""
    rate: _Rate | None = None
    """errors, fallbacks: this share of the requests."""
    drop: _Rate | None = None
    """recall: this much less."""
    ramp_minutes: Annotated[float, Meta(ge=0)] = 0.0
    """How long it takes to be fully there."""
    recovers_after_minutes: Annotated[float, Meta(gt=0)] | None = None

    def strength(self, second: float) -> float:
        """Return how much of it is there, from 0 to 1."""
        since = second - self.at_hour * HOUR
        if since < 0 or (self.recovers_after_minutes is not None and since >= self.recovers_after_minutes * 60):
            return 0.0
        return 1.0 if not self.ramp_minutes else min(1.0, (since + 1) / (self.ramp_minutes * 60))


class Scenario(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of it."""

    hours: Annotated[float, Meta(gt=0, le=10_000)] | None = None
    """None: as long as the stages."""
    traffic: Traffic = Traffic()
    control: Arm = Arm()
    candidate: Arm = Arm()
    fault: tuple[Fault, ...] = ()
    guardrail: tuple[GuardrailOverride, ...] = ()

    @property
    def seconds(self) -> int:
        """How long it takes."""
        return round((self.hours or sum(hours for _, hours in self.traffic.stages)) * HOUR)

    @property
    def plan(self) -> tuple[Stage, ...]:
        """The stages as the ramp has them."""
        return tuple(Stage(share, hours * HOUR) for share, hours in self.traffic.stages)


_NEEDS = {"latency": "factor", "errors": "rate", "fallbacks": "rate", "recall": "drop", "split": "factor"}


def read_scenario(text: str) -> Scenario:
    """Return the scenario that a TOML *text* is.

    Raises:
        InvalidScenario: it is none; the message names the field.

    """
    try:
        scenario = msgspec.toml.decode(text, type=Scenario, strict=False)
    except (msgspec.MsgspecError, UnicodeError) as exc:
        raise InvalidScenario(str(exc)) from exc
    for place, fault in enumerate(scenario.fault):
        needed = _NEEDS.get(fault.kind)
        if needed and getattr(fault, needed) is None:
            raise InvalidScenario(f"$.fault[{place}].{needed}: a fault of kind {fault.kind} needs it")
        if fault.at_hour * HOUR >= scenario.seconds:
            raise InvalidScenario(f"$.fault[{place}].at_hour: the scenario is over by then")
    wrong = check_plan((*scenario.plan, Stage(100, 0)) if scenario.plan[-1].share_percent < 100 else scenario.plan)
    if wrong:
        raise InvalidScenario(f"$.traffic.stages: {wrong}")
    if scenario.traffic.users * scenario.plan[0].share_percent < 100:
        raise InvalidScenario("$.traffic.users: the first stage has nobody in it")
    return scenario
