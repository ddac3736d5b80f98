"""What the guard keeps between ticks and hands to the next leader: detectors and cursor, under one version."""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec.structs import replace

from alerts.design_effect import SCALES, no_spread
from alerts.guardrails import PAIRED_RANGE
from alerts.signals import ArmSignals, Signals, no_tick

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alerts.guardrails import Guardrail
    from alerts.judge import Judge, State
    from alerts.relative_limit import ControlLatency

    Array = NDArray[np.float64]


class Saved(msgspec.Struct, kw_only=True):
    """The state as JSON, without what can be measured anew: the spread between users is saved now and then."""

    rollout: str
    """Which rollout it is about; another one begins afresh."""
    share_percent: int
    ticks: int
    """Of the stage."""
    guardrails: list[str]
    """Whose detectors these are, in this order; others begin afresh."""
    log_r: list[float]
    split_log_r: list[float]
    deff: list[float]
    rate: list[float]
    trial_rate: list[float]
    has_breached: list[bool]
    requests: list[float]
    trials: list[list[float]]
    bad: list[list[float]]
    values: list[list[float]]
    held_ticks: dict[str, int] = {}
    idle_ticks: int = 0
    users: float = 0.0
    """First seen in the stage, on any replica."""
    cursors: dict[str, Signals] = {}
    """By replica: the sums that were judged. Without the sums by group and the latencies."""


def saved_of(state: State, judge: Judge, cursors: dict[str, Signals], **about: Any) -> Saved:
    """Return what to save of the only run."""
    return Saved(
        guardrails=[_identity(each) for each in judge.guardrails],
        log_r=state.log_r[0].tolist(),
        split_log_r=state.split_log_r[0].tolist(),
        deff=state.deff[0].tolist(),
        rate=state.rate[0].tolist(),
        trial_rate=state.trial_rate[0].tolist(),
        has_breached=state.has_breached[0].tolist(),
        requests=state.stage.requests[0].tolist(),
        trials=state.stage.trials[0].tolist(),
        bad=state.stage.bad[0].tolist(),
        values=state.stage.values[0].tolist(),
        cursors={name: _core(signals) for name, signals in cursors.items()},
        **about,
    )


def restored(saved: Saved, judge: Judge) -> State:
    """Return the state that was saved; detectors of other guardrails than today's begin afresh."""
    state = judge.begin()
    if saved.guardrails == [_identity(each) for each in judge.guardrails] and len(saved.log_r) == state.log_r.shape[1]:
        state.log_r[0] = saved.log_r
        state.deff[0] = saved.deff
        state.rate[0] = saved.rate
        state.trial_rate[0] = saved.trial_rate
        state.has_breached[0] = saved.has_breached
    state.split_log_r[0] = saved.split_log_r
    state.stage = replace(
        no_tick(),
        requests=np.array([saved.requests]),
        trials=np.array([saved.trials]),
        bad=np.array([saved.bad]),
        values=np.array([saved.values]),
    )
    return state


def _identity(guardrail: Guardrail) -> str:
    """Return what its evidence is about: with another limit it is none."""
    about = f"{guardrail.name} {guardrail.signal} {guardrail.test} {guardrail.limit!r}"
    return about if guardrail.reference == PAIRED_RANGE else f"{about} {guardrail.reference!r}"


def _core(signals: Signals) -> Signals:
    arms = tuple(
        ArmSignals(
            requests=arm.requests,
            trials=list(arm.trials),
            bad=list(arm.bad),
            new_users=arm.new_users,
            group_trials=[],
            group_bad=[],
        )
        for arm in signals.arms
    )
    return replace(signals, arms=arms, values=[dict(levels) for levels in signals.values])


def pack_spread(state: State, control: ControlLatency) -> str:
    """Return what is measured of the users and of control's latency, packed."""
    spread = state.spread
    arrays = [*spread.trials, *spread.bad, spread.surplus, spread.expected, spread.levels, spread.effect]
    arrays += [state.recent_bad, control.counts]
    packed = zlib.compress(b"".join(array.astype("<f4").tobytes() for array in arrays), 1)
    about = msgspec.json.encode(spread.ticks[:, 0].tolist()).decode()
    return f"{about}|{base64.b85encode(packed).decode()}"


def unpack_spread(text: str, state: State, control: ControlLatency) -> None:
    """Put back, in place, what `pack_spread` returned; what is of another shape is left as it is."""
    about, _, packed = text.partition("|")
    spread = no_spread()
    arrays = [*spread.trials, *spread.bad, spread.surplus, spread.expected, spread.levels, spread.effect]
    arrays += [state.recent_bad, control.counts]
    try:
        flat = np.frombuffer(zlib.decompress(base64.b85decode(packed)), dtype="<f4").astype(float)
        ticks = msgspec.json.decode(about, type=list[int])
    except (ValueError, zlib.error, msgspec.MsgspecError):
        return
    if flat.size != sum(array.size for array in arrays) or len(ticks) != SCALES:
        return
    at = 0
    for array in arrays:
        array[:] = flat[at : at + array.size].reshape(array.shape)
        at += array.size
    spread.ticks[:, 0] = ticks
    state.spread = spread


def core_tick(now: Signals, before: Signals) -> tuple[Signals, Signals]:
    """Return both with the groups and latencies of *now* on both sides: unknown before, they add nothing this once."""
    if before.arms[0].group_trials:
        return now, before
    arms = tuple(
        replace(known, group_trials=arm.group_trials, group_bad=arm.group_bad, latency=arm.latency)
        for known, arm in zip(before.arms, now.arms, strict=True)
    )
    return now, replace(before, arms=arms)
