"""What is a state rather than an event, read whenever somebody looks at the metrics."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from proxy.arms.cross_encoder import CrossEncoderArm
from proxy.eventing import export_events
from proxy.guard_gauges import export_guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from proxy.parts import Parts

Point = tuple[float, dict[str, str]]


def export_gauges(parts: Parts, lines_lost: Callable[[], int]) -> None:
    """Export the states of *parts*, and how many log lines were lost."""
    _export_rollout(parts)
    _export_arms(parts)
    if (guard := parts.guard) is not None:
        export_guard(parts.telemetry, lambda: guard.report)
    export_events(parts.telemetry, parts.events)
    gauge = parts.telemetry.gauge

    def failures() -> Iterable[Point]:
        return [(count, {"rerank.observer": name}) for name, count in parts.observers.failures.items()]

    gauge("rerank.observer.failures", "{failure}", "Records lost to a failing observer", failures)
    gauge("rerank.log.lines_lost", "{line}", "Log lines that standard output did not take", _one(lines_lost))
    gauge("rerank.requests.in_flight", "{request}", "Requests under way", _one(lambda: parts.in_flight.count))
    gauge("rerank.store.up", "1", "1 while the shared store answers", _one(lambda: parts.exchange.error is None))


def _export_rollout(parts: Parts) -> None:
    gauge = parts.telemetry.gauge

    def freshness() -> Iterable[Point]:
        age = parts.gate.state.age_seconds(time.time())
        return [] if age is None else [(age, {})]

    def share() -> Iterable[Point]:
        rollout = parts.gate.state.rollout
        return [] if rollout is None else [(rollout.given_percent, {})]

    def wanted() -> Iterable[Point]:
        record = parts.rollout.latch.record
        return [] if record is None else [(record.ramp.share_percent, {})]

    def is_ready() -> float:
        record = parts.rollout.latch.record
        return float(record is not None and record.ramp.is_ready)

    def rollbacks() -> float:
        record = parts.rollout.latch.record
        return record.ramp.rollbacks if record else 0

    gauge("rerank.flag.age", "s", "Seconds since the flag's source last confirmed its state", freshness)
    gauge("rerank.flag.share", "%", "Share of the users that the flag gives to the candidate", share)
    gauge("rerank.ramp.share", "%", "Share of the users that the rollout's record wants", wanted)
    gauge("rerank.ramp.ready", "1", "1 while a stage is passed and waits for an operator", _one(is_ready))
    gauge("rerank.ramp.rollbacks", "{rollback}", "Rollbacks of this rollout", _one(rollbacks))
    gauge("rerank.latch.set", "1", "1 while a rollback holds", _one(lambda: parts.rollout.latch.is_set))


def _export_arms(parts: Parts) -> None:
    gauge = parts.telemetry.gauge

    def breakers() -> Iterable[Point]:
        return [(float(b.breaker.is_open), {"rerank.role": role.value}) for role, b in parts.trier.arms.items()]

    def ready() -> Iterable[Point]:
        return [(float(b.arm.is_ready), {"rerank.role": role.value}) for role, b in parts.trier.arms.items()]

    def waiting() -> Iterable[Point]:
        return [(arm.waiting, {}) for arm in parts.arms.values() if isinstance(arm, CrossEncoderArm)]

    gauge("rerank.breaker.open", "1", "1 while an arm is spared after failures", breakers)
    gauge("rerank.arm.ready", "1", "1 while an arm can serve", ready)
    gauge("rerank.queue.documents", "{document}", "Documents waiting for the model", waiting)


def _one(value: Callable[[], float]) -> Callable[[], Iterable[Point]]:
    """Return what a gauge of one series asks."""
    return lambda: [(float(value()), {})]
