"""Runs of a scenario: the real signals, evidence, judge and ramp, and the rivals beside them on the same traffic."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec.structs import replace

from alerts.guardrails import Event, Value, check_guardrails, default_guardrails, with_overrides
from alerts.judge import Judge
from alerts.relative_limit import ControlLatency
from alerts.simulation.rivals import rivals
from alerts.simulation.scenario import DAY, HOUR, InvalidScenario
from alerts.simulation.traffic import BLOCK_TICKS, Streams
from flags.ramp import Phase, Ramp, Stage, Verdict, step

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from alerts.guardrails import Guardrail
    from alerts.judge_state import State
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


def simulate(
    scenario: Scenario, runs: int, seed: int, *, jobs: int = 1, on_progress: Callable[[int], None] = lambda _: None
) -> Result:
    """Return what *runs* runs came to, whatever *jobs*, processes side by side; *on_progress* hears of ticks done.

    Raises:
        InvalidScenario: an override makes no sense.

    """
    guardrails_of(scenario)
    sizes = [min(_BATCH, runs - first) for first in range(0, runs, _BATCH)]
    if jobs == 1 or len(sizes) == 1:
        return _joined([_run_batch(scenario, size, seed, n, on_progress) for n, size in enumerate(sizes)])
    done = multiprocessing.Value("q", 0)
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("fork"), _remember, (done,)) as pool:
        futures = [pool.submit(_run_batch, scenario, size, seed, n, None) for n, size in enumerate(sizes)]
        told = 0
        while not all(future.done() for future in futures):
            wait(futures, timeout=0.5, return_when=FIRST_EXCEPTION)
            on_progress(done.value - told)
            told = done.value
        return _joined([future.result() for future in futures])


class _Shared:
    """What a process of the pool tells its progress by."""

    done: Any = None


def _remember(done: Any) -> None:
    _Shared.done = done


def _tell(ticks: int) -> None:
    with _Shared.done.get_lock():
        _Shared.done.value += ticks


def _run_batch(
    scenario: Scenario, runs: int, seed: int, number: int, on_progress: Callable[[int], None] | None
) -> Result:
    batch = _Batch(scenario, guardrails_of(scenario), runs, seed * 1_000_003 + number, on_progress or _tell)
    return batch.run()


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
        self.judge = Judge(
            guardrails, max(DAY, scenario.seconds, sum(stage.bake_seconds for stage in scenario.plan)), ALPHA
        )
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

    def run(self) -> Result:
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
        return Result(
            runs=self._runs,
            seconds=self._scenario.seconds,
            fault_second=self.fault_second,
            threshold=self.judge.threshold,
            guardrails=[each.name for each in self.judge.guardrails],
            rules=[outcome.as_result() for outcome in (self.ours, *(outcome for _, outcome in self.rivals))],
            held={reason: len(which) for reason, which in self.held.items()},
            final_share_percent=self.final_shares,
            trace=self.trace,
        )

    def _tick(self, second: int, tick: Tick) -> None:
        settled = (second - self._entered >= _SPLIT_GRACE_TICKS).astype(float)
        tick = replace(tick, new_users=tick.new_users * settled[:, None])
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
        if split.any():
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

    def as_result(self) -> RuleResult:
        """Return it as what is told."""
        return RuleResult(
            name=self.name,
            at_second=self.at_second.tolist(),
            candidate_requests=self.requests.tolist(),
            guardrails=list(self.by),
        )

    def note(self, decided: NDArray[np.bool_], second: float, since_fault: Array, by: str | list[str]) -> None:
        """Note runs that were decided now; the first time counts."""
        for run in np.flatnonzero(decided & np.isnan(self.at_second)).tolist():
            self.at_second[run] = second
            self.requests[run] = since_fault[run]
            self.by[run] = by if isinstance(by, str) else by[run]


def _joined(parts: list[Result]) -> Result:
    """Return the runs of all *parts* as one result, the first one's trace."""
    held: Counter[str] = Counter()
    for part in parts:
        held.update(part.held)
    rules = [
        RuleResult(
            name=rule.name,
            at_second=[at for part in parts for at in part.rules[place].at_second],
            candidate_requests=[n for part in parts for n in part.rules[place].candidate_requests],
            guardrails=[by for part in parts for by in part.rules[place].guardrails],
        )
        for place, rule in enumerate(parts[0].rules)
    ]
    return replace(
        parts[0],
        runs=sum(part.runs for part in parts),
        rules=rules,
        held=dict(held),
        final_share_percent=[share for part in parts for share in part.final_share_percent],
    )
