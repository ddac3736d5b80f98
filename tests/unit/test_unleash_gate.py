"""The gate on an Unleash server that a test writes: what it keeps, refuses and says."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from flags.file_gate import flag_document
from flags.rollout import InvalidFlags
from flags.unleash import UnleashGate
from flags.unleash_cache import DiskCache
from flags.vocabulary import Arm, FlagContext, Reason
from tests.parts.http_server import HttpAnswer, HttpRequest, HttpServer
from tests.parts.programs import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FLAG = "f"
USERS = [f"user-{i}" for i in range(50)]
NOWHERE = "http://127.0.0.1:1/api"
KEPT = "/client/features"
"""Under which the SDK keeps a state."""


def state(share_percent: int, **strategy: Any) -> str:
    found = flag_document(FLAG, share_percent)
    found["features"][0]["strategies"][0] |= strategy
    return json.dumps(found)


REFUSED = state(0, constraints="x")


class Server:
    """Answers polls with a state that can be changed."""

    def __init__(self) -> None:
        self.answer = HttpAnswer(200, state(100).encode())
        self.polls = 0
        self.http = HttpServer(self._on_request)
        self.url = f"http://127.0.0.1:{self.http.port}/api"

    def _on_request(self, request: HttpRequest) -> HttpAnswer:
        if not request.path.endswith("/client/features"):
            return HttpAnswer(202)
        self.polls += 1
        return self.answer


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    with made.http:
        yield made


def make_gate(folder: Path, url: str = NOWHERE, bootstrap: Path | None = None, poll_seconds: float = 1) -> UnleashGate:
    return UnleashGate(
        url=url,
        token="t",
        flag=FLAG,
        cache_file=folder / "cache.json",
        bootstrap=bootstrap,
        poll_seconds=poll_seconds,
        timeout_seconds=1,
    )


def candidates(gate: UnleashGate) -> int:
    return sum(gate.assign(FlagContext(user)).arm is Arm.CANDIDATE for user in USERS)


async def until(found: Any) -> None:
    await asyncio.to_thread(eventually, found)


async def test_a_state_that_the_engine_refuses_is_an_error_and_keeps_the_split(server: Server, tmp_path: Path) -> None:
    gate = make_gate(tmp_path, server.url)
    with capture_logs() as logs:
        await gate.start()
        await until(lambda: candidates(gate) == len(USERS))
        server.answer, polls = HttpAnswer(200, REFUSED.encode()), server.polls
        await until(lambda: server.polls >= polls + 3)
        found = gate.state
        await gate.close()
    assert found.error is not None
    assert "refuses" in found.error
    assert found.rollout is not None
    assert (found.rollout.share_percent, candidates(gate)) == (100, len(USERS))
    assert [line["event"] for line in logs] == ["flag.loaded", "flag.unreadable"]


async def test_what_the_flag_says_is_what_decides_from_the_first_moment_on(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK writes a new state to the disk before its engine takes it: a slow disk must not part the two."""
    is_written = threading.Event()
    write = DiskCache.mset

    def write_late(cache: DiskCache, data: dict[str, Any]) -> None:
        if '"rollout":"0"' in str(data.get(KEPT, "")).replace(" ", ""):
            is_written.wait(30)
        write(cache, data)

    monkeypatch.setattr(DiskCache, "mset", write_late)
    gate = make_gate(tmp_path, server.url)
    await gate.start()
    try:
        await until(lambda: candidates(gate) == len(USERS))
        server.answer = HttpAnswer(200, state(0).encode())
        await until(lambda: gate.state.rollout is not None and gate.state.rollout.share_percent == 0)
        assert candidates(gate) == 0
    finally:
        is_written.set()
        await gate.close()


def test_a_kept_state_that_the_engine_refuses_is_forgotten(tmp_path: Path) -> None:
    (tmp_path / "cache.json").write_text(json.dumps({KEPT: REFUSED}))
    with capture_logs() as logs:
        gate = make_gate(tmp_path)
    assert gate.assign(FlagContext("ann")).reason is Reason.NEVER_SEEN
    assert [line["event"] for line in logs] == ["flag.cache_refused"]


def test_a_kept_state_decides_before_the_server_was_asked(tmp_path: Path) -> None:
    (tmp_path / "cache.json").write_text(json.dumps({KEPT: state(100)}))
    assert candidates(make_gate(tmp_path)) == len(USERS)


@pytest.mark.parametrize("text", ["[]", "null", "5", '"x"', "{", '{"/client/features": 5}', "\0"])
def test_a_cache_file_with_anything_else_in_it_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "cache.json").write_text(text)
    gate = make_gate(tmp_path)
    assert gate.assign(FlagContext("ann")).reason is Reason.NEVER_SEEN


def test_a_cache_folder_that_cannot_be_written_costs_no_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    gate = make_gate(tmp_path / "file")
    assert gate.assign(FlagContext("ann")).reason is Reason.NEVER_SEEN


@pytest.mark.parametrize("text", [REFUSED, "", "[]", None], ids=["refused", "empty", "a list", "not there"])
def test_a_bootstrap_state_that_is_none_is_named(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "bootstrap.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(InvalidFlags, match=r"bootstrap\.json"):
        make_gate(tmp_path, bootstrap=file)


def test_a_kept_state_that_is_refused_makes_room_for_the_bootstrap_state(tmp_path: Path) -> None:
    (tmp_path / "cache.json").write_text(json.dumps({KEPT: REFUSED}))
    (tmp_path / "bootstrap.json").write_text(state(100))
    assert candidates(make_gate(tmp_path, bootstrap=tmp_path / "bootstrap.json")) == len(USERS)


async def test_a_server_that_cannot_be_reached_is_said_once_and_its_return_once(tmp_path: Path) -> None:
    server = Server()
    gate = make_gate(tmp_path, server.url, poll_seconds=1)
    gate._stale_seconds = 1.0
    gate._poll_seconds = 0.05
    with capture_logs() as logs:
        await gate.start()
        await until(lambda: any(line["event"] == "flag.stale" for line in logs))
        await asyncio.sleep(0.5)  # nothing more is said
        assert [line["event"] for line in logs] == ["flag.stale"]
        assert (logs[0]["kept"], logs[0]["error"]) == (False, "no answer from Unleash")
        with server.http:
            await until(lambda: any(line["event"] == "flag.fresh" for line in logs))
            await gate.close()
    assert [line["event"] for line in logs] == ["flag.stale", "flag.loaded", "flag.fresh"]
