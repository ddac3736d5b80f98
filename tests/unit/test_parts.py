"""What one process is made of, where a part of it fails."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from proxy.configuration import load
from proxy.errors import InvalidSettings
from proxy.parts import Parts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.conftest import Plane


async def test_a_part_that_fails_to_close_is_logged_and_the_next_are_closed(plane: Plane) -> None:
    closed: list[str] = []

    def closing(name: str) -> Callable[[], object]:
        async def close() -> None:
            closed.append(name)
            raise ConnectionError(name)

        return close

    parts = plane.parts
    assert parts.embedded is not None
    for name, part in {
        "rollout": parts.rollout,
        "gpt": plane.gpt,
        "gate": parts.gate,
        "valkey": parts.embedded,
    }.items():
        part.close = closing(name)  # type: ignore[attr-defined]  # a fault is planted
    with capture_logs() as logs:
        await parts.close()
    assert closed == ["rollout", "gpt", "gate", "valkey"]
    assert [line["part"] for line in logs] == ["rollout", "arm gpt", "gate", "valkey"]


async def test_parts_that_were_never_started_close_without_a_word(plane: Plane) -> None:
    with capture_logs() as logs:
        await plane.parts.close()
    assert logs == []


@pytest.mark.parametrize("name", ["salt", "control.token"])
def test_a_secret_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(InvalidSettings, match=name):
        Parts(load({"RERANK_CANARY__DATA_DIR": str(tmp_path)}), {}, {})


def test_a_bootstrap_state_that_is_none_is_named(tmp_path: Path) -> None:
    env = {"UNLEASH_URL": "http://127.0.0.1:1/api", "RERANK_CANARY__FLAG__BOOTSTRAP": str(tmp_path / "b.json")}
    with pytest.raises(InvalidSettings, match=r"\$\.flag: .*b\.json"):
        Parts(load({**env, "RERANK_CANARY__DATA_DIR": str(tmp_path)}), {}, {})


async def test_the_gauge_of_lost_log_lines_is_there(tmp_path: Path) -> None:
    settings = load({"RERANK_CANARY__DATA_DIR": str(tmp_path)})
    parts = Parts(settings, {}, {}, lines_lost=lambda: 7)
    assert parts.otel.registry.get_sample_value("rerank_log_lines_lost") == 7
    await parts.close()
