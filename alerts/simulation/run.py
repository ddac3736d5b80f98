"""Runs of a scenario: the real signals, evidence, judge and ramp, and the rivals beside them on the same traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from alerts.guardrails import Event, Value, check_guardrails, default_guardrails, with_overrides
from alerts.judge import Judge
from alerts.relative_limit import ControlLatency
from alerts.simulation.rivals import rivals
from alerts.simulation.scenario import HOUR, InvalidScenario
from alerts.simulation.traffic import BLOCK_TICKS, Streams
from flags.ramp import Phase, Ramp, Stage, Verdict, step

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from alerts.guardrails import Guardrail
    from alerts.judge import State
    from alerts.signals import Tick
    from alerts.simulation.rivals import Rival
    from alerts.simulation.scenario import Scenario

    Array = NDArray[np.float64]

ALPHA = 0.01
_BATCH = 50
"""Runs that are stepped at once: as many as stay in the processor's cache."""
_SPLIT_GRACE_TICKS = 5


class RuleResult(msgspec.Struct, kw_only=True):
    """What one rule did: by run, NaN where it never rolled back."""

    name: str
    at_second: list[float]
    candidate_requests: list[float]
    """Since the fault began."""
    guardrails: list[str]
    """What rolled back, empty where nothing did."""


class Trace(msgspec.Struct, kw_only=True):
    """Evidence of the first run, a minute apart, for the plot."""

    hours: list[float] = []
    evidence: list[list[float]] = []


class Result(msgspec.Struct, kw_only=True):
    """What came of all runs."""

    runs: int
    seconds: int
    fault_second: float | None
    threshold: float
    guardrails: list[str]
    rules: list[RuleResult]
    held: dict[str, int]
    """Reason → runs that were held for it at some time."""
    final_share_percent: list[int]
    trace: Trace


def guardrails_of(scenario: Scenario) -> tuple[Guardrail, ...]:
    """Return the guardrails that the scenario has signals for.

    Raises:
        InvalidScenario: an override makes no sense.

    """
    absent = {Value.OVERLAP, Value.PROBE, Value.COST}
    if not scenario.candidate.shadow_pairs_per_second:
        absent.add(Value.RECALL)
    if not (scenario.control.miss_rate or scenario.candidate.miss_rate):
        absent.add(Event.MISS)  # type: ignore[arg-type]
    found = with_overrides(default_guardrails(0.15), scenario.guardrail)
    wrong = check_guardrails(found)
    if wrong:
        raise InvalidScenario(f"$.guardrail: {wrong}")
    return tuple(each for each in found if each.signal not in absent)


def simulate(scenario: Scenario, runs: int, seed: int, on_progress: Callable[[int], None] = lambda _: None) -> Result:
    """Return what *runs* runs came to; *on_progress* is told the ticks that are over."""
    guardrails = guardrails_of(scenario)
    parts = [
        _Batch(scenario, guardrails, min(_BATCH, runs - first), seed * 1_000_003 + first, on_progress).run()
        for first in range(0, runs, _BATCH)
    ]
    return _joined(scenario, guardrails, parts, runs)


class _Batch:
    """Some runs side by side."""

    def __init__(
        self,
        scenario: Scenario,
        guardrails: tuple[Guardrail, ...],
        runs: int,
        seed: int,
        on_progress: Callable[[int], None],
    ) -> None:
        self._scenario = scenario
        self._runs = runs
        self._on_progress = on_progress
        p95 = next(each.limit for each in guardrails if each.name == "p95")
        self._streams = Streams(scenario, runs, seed, p95)
        self.judge = Judge(guardrails, scenario.seconds, ALPHA)
        self._state: State = self.judge.begin(runs)
        self._control = ControlLatency.none(runs)
        self._ratio = next(each.limit for each in guardrails if each.name == "p95_relative")
        plan = scenario.plan
        plan = plan if plan[-1].share_percent == 100 else (*plan, Stage(100, float("inf")))
        first = plan[0].share_percent
        self._ramps = [Ramp(rollout_id="sim", group_id="sim", plan=plan, stage=0, share_percent=first)] * runs
        self._last_stage = len(scenario.plan) - 1
        self._shares = np.full(runs, float(first))
        self._entered = np.zeros(runs)
        self.ours = _Outcome("rerank-canary", runs)
        self.rivals: list[tuple[Rival, _Outcome]] = [
            (each, _Outcome(each.name, runs)) for each in rivals(runs, self._p95_limit())
        ]
        faults = [fault.at_hour * HOUR for fault in scenario.fault]
        self.fault_second = min(faults) if faults else None
        self._since_fault = np.zeros(runs)
        self.held: dict[str, set[int]] = {}
        self.trace = Trace()

    def _p95_limit(self) -> float:
        return next(each.limit for each in self.judge.guardrails if each.name == "p95")

    def run(self) -> _Batch:
        """Run to the end, or until every rule has decided every run."""
        for second in range(0, self._scenario.seconds, BLOCK_TICKS):
            block = self._streams.block(second, self._shares, self._control.limit(self._ratio))
            for place, tick in enumerate(block.ticks):
                self._tick(second + place, tick)
            self._control.add(block.control_latency, BLOCK_TICKS)
            for rival, outcome in self.rivals:
                outcome.note(rival.look(block.minute), second + BLOCK_TICKS, self._since_fault, rival.name)
            self._ramp(second + BLOCK_TICKS)
            self._on_progress(BLOCK_TICKS * self._runs)
            if self.ours.is_over and all(outcome.is_over for _, outcome in self.rivals):
                break
        return self

    def _tick(self, second: int, tick: Tick) -> None:
        settled = (second - self._entered >= _SPLIT_GRACE_TICKS).astype(float)
        tick = msgspec.structs.replace(tick, new_users=tick.new_users * settled[:, None])
        self.judge.step(self._state, tick, self._shares / 100)
        if self.fault_second is not None and second >= self.fault_second:
            self._since_fault = self._since_fault + tick.requests[:, 1]
        breached = self._state.has_breached & self.judge.enforced
        if breached.any():
            names = [each.name for each in self.judge.guardrails]
            first = [names[int(np.argmax(row))] for row in breached]
            self.ours.note(breached.any(-1), second + 1, self._since_fault, first)

    def _ramp(self, second: int) -> None:
        evidence = self.judge.evidence(self._state)
        self.trace.hours.append(second / HOUR)
        self.trace.evidence.append([max(0.0, float(value)) for value in evidence[0]])
        split = self.judge.is_split_wrong(self._state)
        self.held.setdefault("split", set()).update(np.flatnonzero(split).tolist())
        baked = [not ramp.baked_seconds_left(second) for ramp in self._ramps]
        if second % 600 or not any(baked):
            return
        passed = np.all(self.judge.bounds(self._state).is_passed[:, self.judge.enforced], axis=-1)
        for run, ramp in enumerate(self._ramps):
            if not baked[run] or ramp.phase is not Phase.RAMPING or (ramp.stage or 0) >= self._last_stage:
                continue
            verdict = Verdict.ADVANCE if bool(passed[run]) and not split[run] else Verdict.HOLD
            if verdict is Verdict.HOLD and not split[run]:
                self.held.setdefault("inconclusive", set()).add(run)
            after = step(ramp, verdict, second, auto_advance=True, rollback_id="")
            if after is not ramp:
                self._ramps[run] = after
                self._shares[run] = after.share_percent
                self._entered[run] = second
                self.judge.enter_stage(self._state, np.arange(self._runs) == run)

    @property
    def final_shares(self) -> list[int]:
        """Where the ramps ended, those rolled back at 0."""
        return [
            0 if np.isfinite(at) else ramp.share_percent
            for at, ramp in zip(self.ours.at_second, self._ramps, strict=True)
        ]


class _Outcome:
    """When one rule rolled which run back."""

    def __init__(self, name: str, runs: int) -> None:
        self.name = name
        self.at_second = np.full(runs, np.nan)
        self.requests = np.full(runs, np.nan)
        self.by = [""] * runs

    @property
    def is_over(self) -> bool:
        """Whether all runs are rolled back."""
        return bool(np.isfinite(self.at_second).all())

    def note(self, decided: NDArray[np.bool_], second: float, since_fault: Array, by: str | list[str]) -> None:
        """Note runs that were decided now; the first time counts."""
        for run in np.flatnonzero(decided & np.isnan(self.at_second)).tolist():
            self.at_second[run] = second
            self.requests[run] = since_fault[run]
            self.by[run] = by if isinstance(by, str) else by[run]


def _joined(scenario: Scenario, guardrails: tuple[Guardrail, ...], parts: list[_Batch], runs: int) -> Result:
    names = [part.name for part in (parts[0].ours, *(outcome for _, outcome in parts[0].rivals))]
    outcomes = [[part.ours, *(outcome for _, outcome in part.rivals)] for part in parts]
    held: dict[str, int] = {}
    for part in parts:
        for reason, which in part.held.items():
            held[reason] = held.get(reason, 0) + len(which)
    return Result(
        runs=runs,
        seconds=scenario.seconds,
        fault_second=parts[0].fault_second,
        threshold=parts[0].judge.threshold,
        guardrails=[each.name for each in guardrails if each.is_on],
        rules=[_rule(name, [row[place] for row in outcomes]) for place, name in enumerate(names)],
        held=held,
        final_share_percent=[share for part in parts for share in part.final_shares],
        trace=parts[0].trace,
    )


def _rule(name: str, outcomes: list[Any]) -> RuleResult:
    return RuleResult(
        name=name,
        at_second=[float(at) for each in outcomes for at in each.at_second],
        candidate_requests=[float(n) for each in outcomes for n in each.requests],
        guardrails=[by for each in outcomes for by in each.by],
    )
