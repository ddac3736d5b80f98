from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from flags.engine import engine_of
from flags.file_gate import FileGate, flag_document, write_flag_file
from flags.rollout import InvalidFlags
from flags.vocabulary import Arm, FlagContext

if TYPE_CHECKING:
    from pathlib import Path

FLAG = "f"
USERS = [f"user-{i}" for i in range(100)]
BAD_CONSTRAINTS = [
    pytest.param("x", id="no list"),
    pytest.param([{"contextName": "a", "operator": "NOPE", "values": 5}], id="values of a wrong type"),
    pytest.param([{"contextName": "userId"}], id="no operator"),
]


def document(share_percent: int = 0, **strategy: Any) -> dict[str, Any]:
    found = flag_document(FLAG, share_percent)
    found["features"][0]["strategies"][0] |= strategy
    return found


def other(name: str, **feature: Any) -> dict[str, Any]:
    return {"name": name, "enabled": True, "strategies": [], **feature}


def candidates(gate: FileGate) -> int:
    return sum(gate.assign(FlagContext(user)).arm is Arm.CANDIDATE for user in USERS)


@pytest.fixture
def gate(tmp_path: Path) -> FileGate:
    """Return a gate on a file that gives everybody the candidate."""
    write_flag_file(tmp_path / "flags.json", FLAG, 100)
    made = FileGate(tmp_path / "flags.json", FLAG)
    made.reload()
    assert candidates(made) == len(USERS)
    return made


@pytest.mark.parametrize("constraints", BAD_CONSTRAINTS)
def test_a_file_that_the_engine_refuses_is_an_error_and_keeps_the_share_that_decides(
    gate: FileGate, tmp_path: Path, constraints: object
) -> None:
    (tmp_path / "flags.json").write_text(json.dumps(document(0, constraints=constraints)))
    with capture_logs() as logs:
        gate.reload()
        gate.reload()
    assert gate.state.error
    assert gate.state.rollout is not None
    assert (gate.state.rollout.share_percent, candidates(gate)) == (100, len(USERS))
    assert [line["event"] for line in logs] == ["flag.unreadable"]


def test_a_file_that_is_mended_is_followed_again(gate: FileGate, tmp_path: Path) -> None:
    (tmp_path / "flags.json").write_text(json.dumps(document(0, constraints="x")))
    gate.reload()
    (tmp_path / "flags.json").write_text(json.dumps(document(0)))
    gate.reload()
    assert (gate.state.error, candidates(gate)) == (None, 0)


def test_a_file_that_no_longer_has_the_flag_gives_control(gate: FileGate, tmp_path: Path) -> None:
    (tmp_path / "flags.json").write_text('{"version": 2, "features": []}')
    gate.reload()
    assert (gate.state.error, candidates(gate)) == (None, 0)


@pytest.mark.parametrize("constraints", BAD_CONSTRAINTS)
def test_the_engine_names_the_flag_that_it_refuses(constraints: object) -> None:
    with pytest.raises(InvalidFlags, match="`f`"):
        engine_of(json.dumps(document(constraints=constraints)), FLAG)


def test_a_segment_that_is_not_there_would_switch_the_flag_off_and_is_refused() -> None:
    with pytest.raises(InvalidFlags, match="segment"):
        engine_of(json.dumps(document(50, segments=[7])), FLAG)


def test_another_flag_that_the_engine_cannot_evaluate_does_not_matter() -> None:
    state = document(100)
    state["features"].append(other("g", strategies=[{"name": "default", "segments": [7]}]))
    assert engine_of(json.dumps(state), FLAG).check_enabled(FLAG, {"userId": "a"}).is_enabled


@pytest.mark.parametrize(
    "feature",
    [other("g", variants="x"), {"name": "g", "enabled": True}, {"enabled": True, "strategies": []}],
    ids=["variants", "no strategies", "no name"],
)
def test_another_flag_that_makes_the_engine_refuse_all_of_it_is_an_error(feature: dict[str, Any]) -> None:
    state = document(100)
    state["features"].append(feature)
    with pytest.raises(InvalidFlags):
        engine_of(json.dumps(state), FLAG)


def test_a_flag_that_stands_there_twice_is_refused() -> None:
    state = document(100)
    state["features"].append(other(FLAG))
    with pytest.raises(InvalidFlags, match="2 times"):
        engine_of(json.dumps(state), FLAG)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"features": [], "segments": 5}', '{"features": [7]}'])
def test_what_is_no_flag_state_is_refused(text: str) -> None:
    with pytest.raises(InvalidFlags):
        engine_of(text, FLAG)


def test_a_state_without_the_flag_is_taken() -> None:
    assert not engine_of('{"version": 2, "features": []}', FLAG).check_enabled(FLAG, {"userId": "a"}).is_found
