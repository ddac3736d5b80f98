"""What a leader knows between ticks: how the counts of all replicas become one tick, and a tick a report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
from msgspec.structs import replace

from alerts.guard_state import Saved, core_tick, pack_spread, restored, saved_of, unpack_spread
from alerts.health import TICK_SECONDS
from alerts.judge_state import NOTHING
from alerts.relative_limit import ControlLatency, as_counts
from alerts.report import Evidence, Report
from alerts.signals import Example, InvalidSignals, Signals, latency_since, no_tick, tick_of
from alerts.verdict import HoldReason, Judgement, judge
from flags.ramp import Phase, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alerts.judge import Judge
    from alerts.judge_state import State
    from alerts.relative_limit import Relative
    from alerts.signals import Tick
    from alerts.verdict import Finding
    from flags.ramp import Ramp
    from flags.record import RampRecord

_SPREAD_TICKS = 60
_SPLIT_GRACE_TICKS = 5
_IDLE_TICKS = 60
_UNREADY_TICKS = 5
_SPLIT_KEPT_TICKS = 3600
"""After which the split is tested anew, so that a mended one is known to be."""
_FORGOTTEN_SECONDS = 3600.0
_EXAMPLES = 5


class Judging:
    """Everything that a leader judges by: detectors, cursors, timers. It does no input or output of its own."""

    def __init__(
        self, judge: Judge, relative: Relative, version: str | None, state: str | None, spread: str | None
    ) -> None:
        self._judge = judge
        self._relative = relative
        self._version = version or "0"
        self.control = ControlLatency.none()
        self.cursors: dict[str, Signals] = {}
        self.rollout, self.share_percent, self.ticks = "", -1, 0
        self.held_ticks: dict[str, int] = {}
        self.idle_ticks = 0
        self.unready_ticks = 0
        self.users = 0.0
        self.state: State = judge.begin()
        self._is_new = state is None
        self._limit = ""
        self._told: dict[str, tuple[float, float]] = {}
        """By replica: its own time of what it told last, and when that came, by our clock: theirs may be wrong."""
        self.invalid: dict[str, str] = {}
        self.examples: dict[str, list[Example]] = {}
        self.unreadable = ""
        """Why the saved state could not be gone on with."""
        if state is not None:
            self._restore(state, spread)

    def _restore(self, text: str, spread: str | None) -> None:
        """Go on with what was saved; begin afresh where that is of another version, or no state at all."""
        try:
            saved = msgspec.json.decode(text, type=Saved)
            state = restored(saved, self._judge)
        except (msgspec.MsgspecError, ValueError) as exc:
            self.unreadable = str(exc)
            self._is_new = True
            return
        self.state = state
        self.cursors = dict(saved.cursors)
        self.rollout, self.share_percent, self.ticks = saved.rollout, saved.share_percent, saved.ticks
        self.held_ticks, self.idle_ticks, self.users = dict(saved.held_ticks), saved.idle_ticks, saved.users
        if spread:
            unpack_spread(spread, self.state, self.control)

    def to_save(self, report: Report | None) -> list[str]:
        """Return the arguments of `_SAVE`."""
        saved = saved_of(
            self.state,
            self._judge,
            self.cursors,
            rollout=self.rollout,
            share_percent=self.share_percent,
            ticks=self.ticks,
            held_ticks=self.held_ticks,
            idle_ticks=self.idle_ticks,
            users=self.users,
        )
        before, self._version = self._version, _next(self._version)
        spread = pack_spread(self.state, self.control) if self.ticks % _SPREAD_TICKS == 1 else ""
        told = msgspec.json.encode(report).decode() if report else ""
        return [before, self._version, msgspec.json.encode(saved).decode(), told, spread, self._limit]

    def forgotten(self, now: float) -> list[str]:
        """Return the replicas that have been silent for long, and forget them."""
        old = [name for name, (_, came_at) in self._told.items() if now - came_at > _FORGOTTEN_SECONDS]
        for name in old:
            self._told.pop(name)
            self.cursors.pop(name, None)
            self.examples.pop(name, None)
        return old

    def follow(self, record: RampRecord) -> None:
        """Begin afresh with another rollout, or after a rollback; enter a stage with another share."""
        ramp = record.ramp
        rollout = f"{ramp.rollout_id}:{ramp.group_id}:{ramp.rollbacks}"
        if rollout != self.rollout:
            self.state = self._judge.begin()
            self.held_ticks, self.idle_ticks = {}, 0
        elif ramp.share_percent != self.share_percent:
            self._judge.enter_stage(self.state)
        if (rollout, ramp.share_percent) != (self.rollout, self.share_percent):
            self.rollout, self.share_percent, self.ticks, self.users = rollout, ramp.share_percent, 0, 0.0

    def read(self, told: dict[str, str], now: float) -> Tick:
        """Return what all replicas added since the last tick, and move the cursors."""
        total, latency = no_tick(), as_counts({})
        self.invalid = {}
        not_ready = 0
        for name, text in told.items():
            try:
                signals = msgspec.json.decode(text, type=Signals)
                self._note(name, signals.at, now)
                self.examples[name] = signals.examples
                before = self.cursors.get(name)
                is_old = signals.at - signals.started_at > _FORGOTTEN_SECONDS
                if before is None and (self._is_new or is_old):
                    before = signals  # what was before the guard's time, or was judged and forgotten, is nobody's tick
                if before is not None:
                    signals, before = core_tick(signals, before)
                added = tick_of(signals, before)
                latency += as_counts(latency_since(signals, before, 0))
                not_ready += signals.not_ready - (before.not_ready if before else 0)
                total += added
            except (InvalidSignals, msgspec.MsgspecError) as exc:
                self.invalid[name] = str(exc)
                continue
            self.cursors[name] = signals
        self._is_new = False
        self.control.add(latency, 1)
        served = float(total.requests[0, 1])
        if not_ready or served:
            self.unready_ticks = self.unready_ticks + 1 if not_ready > served else 0
        return total

    def _note(self, name: str, at: float, now: float) -> None:
        if self._told.get(name, (None, 0.0))[0] != at:
            self._told[name] = (at, now)

    def _heard_within(self, seconds: float, now: float) -> int:
        """Return how many replicas told something new of late."""
        return sum(now - came_at < seconds for _, came_at in self._told.values())

    def judge_tick(self, tick: Tick, record: RampRecord, now: float) -> list[HoldReason]:
        """Take one tick into the detectors, and return what of the counts themselves says to wait."""
        ramp = record.ramp
        replicas = max(1, self._heard_within(3 * TICK_SECONDS, now))
        self.users += float(tick.new_users[0, 1])
        weight = 1 / replicas if self.ticks >= _SPLIT_GRACE_TICKS else 0.0
        if not ramp.is_rolled_back:
            tick = replace(tick, new_users=tick.new_users * weight)
            share = np.array([max(1, min(99, ramp.share_percent)) / 100])
            self._judge.step(self.state, tick, share)
        self.ticks += 1
        if self.ticks % _SPLIT_KEPT_TICKS == 0:
            self.state.split_log_r[:] = NOTHING
        if self.ticks % _SPREAD_TICKS == 0:
            limit = float(self.control.limit(self._relative.ratio, self._relative.baseline_p95_seconds)[0])
            self._limit = "" if np.isnan(limit) else f"{limit:.6g}"
        self.idle_ticks = 0 if tick.requests[0, 1] else self.idle_ticks + 1
        found = [] if self._heard_within(5 * TICK_SECONDS, now) else [HoldReason.NO_DATA]
        found += [HoldReason.INVALID] if self.invalid else []
        found += (
            [HoldReason.SPLIT] if 0 < ramp.share_percent < 100 and self._judge.is_split_wrong(self.state)[0] else []
        )
        found += [HoldReason.NOT_READY] if self.unready_ticks >= _UNREADY_TICKS else []
        found += [HoldReason.NO_TRAFFIC] if ramp.share_percent and self.idle_ticks > _IDLE_TICKS else []
        found += [HoldReason.FEW_USERS] if self._judge.few_users(self.state)[0] else []
        return found

    @property
    def has_candidate(self) -> bool:
        """Whether anybody has the candidate: by the flag's share, or by another strategy of it."""
        is_asked = self.state.stage.requests[0, 1] > 0 and self.idle_ticks <= _IDLE_TICKS
        return self.share_percent > 0 or bool(is_asked)

    def evidence(self, judgement: Judgement, report: Report) -> Evidence:
        """Return what is kept with a rollback."""
        examples = sorted((each for found in self.examples.values() for each in found), key=lambda each: -each.seconds)
        return Evidence(
            finding=judgement.finding,
            candidate_requests=report.candidate_requests,
            candidate_users=report.candidate_users,
            stage_seconds=float(self.ticks),
            examples=examples[:_EXAMPLES],
        )

    def report(
        self, before: Report | None, leader: str, record: RampRecord, holds: list[HoldReason], now: float
    ) -> Report:
        """Return what is known after this tick; the findings are those of the last time they were worked out."""
        is_same_stage = before and (before.rollout, before.share_percent) == (self.rollout, self.share_percent)
        findings = list(before.findings) if before and is_same_stage else []
        judgement = judge(findings, holds, extended_stages=extended_stages(record.ramp, now))
        if record.is_rolled_back or not self.has_candidate:  # there is nothing to judge
            reason = "rolled back" if record.is_rolled_back else _in_the_dark(findings)
            judgement = Judgement(verdict=Verdict.HOLD, reason=reason)
        reasons = [*holds, *([judgement.hold] if judgement.hold is HoldReason.INCONCLUSIVE else [])]
        self.held_ticks = {each.value: self.held_ticks.get(each.value, 0) + 1 for each in reasons}
        stage = self.state.stage
        evidence = self._judge.evidence(self.state)[0]
        live = {each.name: max(0.0, float(evidence[place])) for place, each in enumerate(self._judge.guardrails)}
        return Report(
            at=now,
            leader=leader,
            rollout=self.rollout,
            share_percent=self.share_percent,
            judgement=judgement,
            holds=holds,
            held_seconds={name: count * TICK_SECONDS for name, count in self.held_ticks.items()},
            findings=[replace(each, evidence=live.get(each.guardrail, each.evidence)) for each in findings],
            findings_at=before.findings_at if before and is_same_stage else 0.0,
            has_candidate=self.has_candidate,
            candidate_requests=float(stage.requests[0, 1]),
            control_requests=float(stage.requests[0, 0]),
            candidate_users=self.users,
            relative_limit_seconds=float(self._limit) if self._limit else None,
            invalid=dict(self.invalid),
        )


def _next(version: str) -> str:
    return str(int(version) + 1) if version.isdecimal() else "1"


def _in_the_dark(findings: Sequence[Finding]) -> str:
    """Return what is said while nobody has the candidate; shadows and probes may have found it bad already."""
    breached = [each.guardrail for each in findings if each.is_breached and each.is_enforced]
    would = f", and it would be rolled back: {', '.join(breached)}" if breached else ""
    return f"nobody has the candidate{would}"


def extended_stages(ramp: Ramp, now: float) -> float:
    """Return how far past its time a stage is, in times of that; 0 before, and where no stage is timed."""
    if ramp.stage is None or ramp.phase is not Phase.RAMPING:
        return 0.0
    bake = ramp.plan[ramp.stage].bake_seconds
    return max(0.0, (now - ramp.entered_at - bake) / bake) if bake else 0.0
