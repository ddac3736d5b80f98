"""What the guard keeps between ticks and hands to the next leader: detectors and cursor, under one version."""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec.structs import replace

from alerts.design_effect import SCALES, no_spread
from alerts.guardrails import EVENTS, PAIRED_RANGE, VALUES, Method
from alerts.signals import ArmSignals, Signals, no_tick

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alerts.guardrails import Guardrail
    from alerts.judge import Judge
    from alerts.judge_state import State
    from alerts.relative_limit import ControlLatency
    from alerts.signals import Tick

    Array = NDArray[np.float64]


class Detector(msgspec.Struct, kw_only=True):
    """What one guardrail's detector remembers."""

    log_r: list[float]
    deff: list[float]
    rate: float
    trial_rate: float
    has_breached: bool
    onset: list[list[float]]
    """By field of `Onset`, arms apart."""


class Saved(msgspec.Struct, kw_only=True):
    """The state as JSON, without what can be measured anew: the spread between users is saved now and then."""

    rollout: str
    """Which rollout it is about; another one begins afresh."""
    share_percent: int
    ticks: int
    """Of the stage."""
    detectors: dict[str, Detector]
    """By what their evidence is about: with another limit it is none."""
    split_log_r: list[float]
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
        detectors={_identity(each): _detector(state, judge, place) for place, each in enumerate(judge.guardrails)},
        split_log_r=state.split_log_r[0].tolist(),
        requests=state.stage.requests[0].tolist(),
        trials=state.stage.trials[0].tolist(),
        bad=state.stage.bad[0].tolist(),
        values=state.stage.values[0].tolist(),
        cursors={name: _core(signals) for name, signals in cursors.items()},
        **about,
    )


def restored(saved: Saved, judge: Judge) -> State:
    """Return the state that was saved. A guardrail with another limit than today's begins afresh, with its counts.

    Raises:
        ValueError: it is of another shape, as another version has it.

    """
    state = judge.begin()
    state.split_log_r[0] = saved.split_log_r
    state.stage = replace(
        no_tick(),
        requests=_shaped(saved.requests, state.stage.requests),
        trials=_shaped(saved.trials, state.stage.trials),
        bad=_shaped(saved.bad, state.stage.bad),
        values=_shaped(saved.values, state.stage.values),
    )
    for place, guardrail in enumerate(judge.guardrails):
        detector = saved.detectors.get(_identity(guardrail))
        if detector is None:
            _forget(state.stage, guardrail)
        else:
            _restore_detector(state, judge.bets_of(place), place, detector)
    return state


def _shaped(saved: list[Any], like: Array) -> Array:
    found = np.array([saved], dtype=float)
    if found.shape != like.shape:
        raise ValueError(f"{found.shape} is not {like.shape}")
    return found


def _forget(stage: Tick, guardrail: Guardrail) -> None:
    """Drop, in place, what was counted by another limit."""
    if guardrail.test is Method.MEAN:
        stage.values[:, VALUES.index(guardrail.signal)] = 0
        return
    event = EVENTS.index(guardrail.signal)
    stage.trials[:, :, event] = 0
    stage.bad[:, :, event] = 0


def _detector(state: State, judge: Judge, place: int) -> Detector:
    bets, onset = judge.bets_of(place), state.onset
    rows = (onset.score, onset.ticks, onset.trials[:, 0], onset.trials[:, 1], onset.bad[:, 0], onset.bad[:, 1])
    return Detector(
        log_r=state.log_r[0, bets].tolist(),
        deff=state.deff[0, bets].tolist(),
        rate=float(state.rate[0, place]),
        trial_rate=float(state.trial_rate[0, place]),
        has_breached=bool(state.has_breached[0, place]),
        onset=[row[0, bets].tolist() for row in rows],
    )


def _restore_detector(state: State, bets: slice, place: int, detector: Detector) -> None:
    onset = state.onset
    state.log_r[0, bets] = detector.log_r
    state.deff[0, bets] = detector.deff
    state.rate[0, place] = detector.rate
    state.trial_rate[0, place] = detector.trial_rate
    state.has_breached[0, place] = detector.has_breached
    rows = (onset.score, onset.ticks, onset.trials[:, 0], onset.trials[:, 1], onset.bad[:, 0], onset.bad[:, 1])
    for row, values in zip(rows, detector.onset, strict=True):
        row[0, bets] = values


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
    arrays += [state.recent_bad, state.recent_trials, control.counts]
    packed = zlib.compress(b"".join(array.astype("<f4").tobytes() for array in arrays), 1)
    about = msgspec.json.encode(spread.ticks[:, 0].tolist()).decode()
    return f"{about}|{base64.b85encode(packed).decode()}"


def unpack_spread(text: str, state: State, control: ControlLatency) -> None:
    """Put back, in place, what `pack_spread` returned; what is of another shape is left as it is."""
    about, _, packed = text.partition("|")
    spread = no_spread()
    arrays = [*spread.trials, *spread.bad, spread.surplus, spread.expected, spread.levels, spread.effect]
    arrays += [state.recent_bad, state.recent_trials, control.counts]
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
