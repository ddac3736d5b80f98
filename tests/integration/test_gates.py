"""The promises of the Gate protocol, kept by every gate: one over a file, one over a real Unleash server."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Protocol

import pytest

from flags.bucketing import bucket
from flags.file_gate import FileGate, write_flag_file
from flags.vocabulary import Arm, FlagContext, Reason
from tests.integration.flags import USERS, Rollout, candidates, following, new_flag_name, shows, unleash_gate
from tests.parts.http_server import HttpAnswer
from tests.parts.programs import eventually
from tests.parts.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from flags.gate import Gate
    from tests.parts.unleash import Unleash

SHARE = 30
SOME = USERS[:300]


class Source(Protocol):
    """Where a flag is kept, and what can happen to it."""

    def gate(self, *, flag: str | None = None) -> Gate:
        """Return a gate on the source's flag, or on another."""

    def set_percent(self, percent: int) -> None: ...

    def switch_off(self) -> None: ...

    def break_off(self) -> None:
        """Make it unreadable."""

    def mend(self) -> None: ...

    def split(self, percent: int) -> set[str]:
        """Return those of SOME that the published hash has in."""


class FileSource:
    def __init__(self, folder: Path) -> None:
        self._file = folder / "flags.json"
        self._flag = "of-the-file"
        self._text = ""
        self.set_percent(SHARE)

    def gate(self, *, flag: str | None = None) -> Gate:
        return FileGate(self._file, flag or self._flag)

    def set_percent(self, percent: int) -> None:
        write_flag_file(self._file, self._flag, percent)

    def switch_off(self) -> None:
        state = json.loads(self._file.read_text())
        state["features"][0]["enabled"] = False
        self._file.write_text(json.dumps(state))

    def break_off(self) -> None:
        self._text = self._file.read_text()
        self._file.write_text(self._text[:40])

    def mend(self) -> None:
        self._file.write_text(self._text)

    def split(self, percent: int) -> set[str]:
        return _split(self._flag, percent)


class UnleashSource:
    def __init__(self, unleash: Unleash, relay: Relay, folder: Path) -> None:
        self._rollout = Rollout(unleash, SHARE)
        self._relay = relay
        self._folder = folder

    def gate(self, *, flag: str | None = None) -> Gate:
        return unleash_gate(flag or self._rollout.flag, f"{self._relay.url}/api", self._folder)

    def set_percent(self, percent: int) -> None:
        self._rollout.set_percent(percent)

    def switch_off(self) -> None:
        self._rollout.unleash.admin.switch(self._rollout.flag, "off")

    def break_off(self) -> None:
        self._relay.break_with(HttpAnswer(503))

    def mend(self) -> None:
        self._relay.mend()

    def split(self, percent: int) -> set[str]:
        return _split(self._rollout.flag, percent)


def _split(group_id: str, percent: int) -> set[str]:
    return {user for user in SOME if bucket(group_id, user) <= percent}


@pytest.fixture(params=["file", pytest.param("unleash", marks=pytest.mark.part("unleash"))])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    if request.param == "file":
        yield FileSource(tmp_path)
        return
    unleash: Unleash = request.getfixturevalue("unleash")
    with Relay(unleash.url.removesuffix("/api")) as relay:
        yield UnleashSource(unleash, relay, tmp_path)


async def shows_error(gate: Gate) -> str:
    return await asyncio.to_thread(eventually, lambda: gate.state.error or "")


async def test_the_split_is_the_one_of_the_published_hash(source: Source) -> None:
    async with following(source.gate(), percent=SHARE) as gate:
        assert candidates(gate, SOME) == source.split(SHARE)


async def test_an_assignment_names_bucket_share_and_reason(source: Source) -> None:
    async with following(source.gate(), percent=SHARE) as gate:
        found = gate.assign(FlagContext("ann"))
    assert found.bucket is not None
    assert (found.arm is Arm.CANDIDATE) == (found.bucket <= SHARE)
    assert (found.share_percent, found.reason) == (SHARE, Reason.SPLIT)


@pytest.mark.parametrize("percent", [0, 100], ids="{} %".format)
async def test_a_change_reaches_the_gate(source: Source, percent: int) -> None:
    async with following(source.gate(), percent=SHARE) as gate:
        source.set_percent(percent)
        await shows(gate, percent)
        assert candidates(gate, SOME) == source.split(percent)


async def test_a_flag_that_is_off_gives_control_to_everybody(source: Source) -> None:
    source.set_percent(100)
    async with following(source.gate(), percent=100) as gate:
        source.switch_off()
        await asyncio.to_thread(eventually, lambda: gate.state.rollout and not gate.state.rollout.is_enabled)
        await shows(gate)
        found = gate.assign(FlagContext("ann"))
    assert (found.arm, found.reason) == (Arm.CONTROL, Reason.DISABLED)


async def test_a_flag_that_the_source_does_not_know_gives_control(source: Source) -> None:
    async with following(source.gate(flag=new_flag_name())) as gate:
        found = gate.assign(FlagContext("ann"))
    assert (found.arm, found.reason) == (Arm.CONTROL, Reason.NO_FLAG)


async def test_a_gate_whose_source_was_never_read_gives_control(source: Source) -> None:
    source.break_off()
    gate = source.gate()
    await gate.start()
    try:
        await shows_error(gate)
        found = gate.assign(FlagContext("ann"))
    finally:
        await gate.close()
    assert (found.arm, found.reason) == (Arm.CONTROL, Reason.NEVER_SEEN)


async def test_starting_returns_at_once_whether_the_source_can_be_read_or_not(source: Source) -> None:
    source.break_off()
    gate = source.gate()
    began = time.monotonic()
    await gate.start()
    seconds = time.monotonic() - began
    await gate.close()
    assert seconds < 0.2


async def test_a_source_that_breaks_keeps_the_last_split(source: Source) -> None:
    async with following(source.gate(), percent=SHARE) as gate:
        source.break_off()
        await shows_error(gate)
        assert candidates(gate, SOME) == source.split(SHARE)


async def test_the_state_grows_old_while_the_source_is_broken(source: Source) -> None:
    async with following(source.gate(), percent=SHARE) as gate:
        source.break_off()
        await shows_error(gate)
        fresh_at = gate.state.fresh_at
        await asyncio.sleep(1.2)  # longer than either gate's pause between two looks
        assert gate.state.fresh_at == fresh_at


async def test_an_unchanged_source_is_confirmed_again_and_again(source: Source) -> None:
    async with following(source.gate(), percent=SHARE) as gate:
        before = gate.state
        assert before.fresh_at is not None
        fresh_at = before.fresh_at
        await asyncio.to_thread(eventually, lambda: (gate.state.fresh_at or 0) > fresh_at)
        assert gate.state.changed_at == before.changed_at


async def test_a_source_that_is_mended_is_followed_again(source: Source) -> None:
    async with following(source.gate(), percent=SHARE) as gate:
        source.break_off()
        await shows_error(gate)
        source.mend()
        source.set_percent(60)
        await shows(gate, 60)
        assert gate.state.error is None
        assert candidates(gate, SOME) == source.split(60)


async def test_a_closed_gate_goes_on_deciding(source: Source) -> None:
    async with following(source.gate(), percent=SHARE) as gate:
        pass
    assert candidates(gate, SOME) == source.split(SHARE)


async def test_no_user_id_makes_a_gate_raise(source: Source) -> None:
    async with following(source.gate(), percent=SHARE) as gate:
        for user in ["", " ", "a\0b", "مستخدم", "🦊" * 1000, "x" * 1_000_000, "' OR 1=1 --", "{}", "\ufffd"]:
            assert gate.assign(FlagContext(user, user, user, {"client": user})).arm in set(Arm)
