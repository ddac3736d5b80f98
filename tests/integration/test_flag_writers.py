"""One contract for both keepers of the flag: a file in Unleash's format, and a real Unleash server."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from flags.file_gate import write_flag_file
from flags.file_writer import FileFlagWriter
from flags.flag_writer import FlagForbidden, FlagMoved, FlagNotWritten, FlagWriter
from flags.unleash_admin import UnleashFlagWriter
from tests.integration.flags import new_flag_name
from tests.parts.unleash import ADMIN_TOKEN, CLIENT_TOKEN, ENVIRONMENT, constraint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.parts.unleash import Unleash


class Kept:
    """A flag, its writer, and the way in which people change it."""

    def __init__(self, flag: str, writer: FlagWriter, unleash: Unleash | None, file: Path) -> None:
        self.flag, self.writer = flag, writer
        self._unleash, self._file = unleash, file
        self._strategy = ""
        if unleash is None:
            write_flag_file(file, flag, 5)
        else:
            unleash.admin.create_flag(flag)
            self._strategy = unleash.admin.add_strategy(flag, 5)
            unleash.admin.switch(flag, "on")

    def set_by_hand(self, percent: int) -> None:
        if self._unleash is None:
            write_flag_file(self._file, self.flag, percent)
        else:
            self._unleash.admin.put_percent(self.flag, self._strategy, percent)

    def switch_off_by_hand(self) -> None:
        if self._unleash is None:
            document = json.loads(self._file.read_text())
            document["features"][0]["enabled"] = False
            self._file.write_text(json.dumps(document))
        else:
            self._unleash.admin.switch(self.flag, "off")


@pytest.fixture(params=["file", pytest.param("unleash", marks=pytest.mark.part("unleash"))])
async def kept(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Kept]:
    flag, file = new_flag_name(), tmp_path / "flags.json"
    writer: FlagWriter
    if request.param == "file":
        unleash, writer = None, FileFlagWriter(file, flag)
    else:
        unleash = request.getfixturevalue("unleash")
        writer = unleash_writer(unleash, flag)
    yield Kept(flag, writer, unleash, file)
    await writer.close()


def unleash_writer(unleash: Unleash, flag: str, token: str = ADMIN_TOKEN) -> UnleashFlagWriter:
    return UnleashFlagWriter(
        url=unleash.url, token=token, flag=flag, project="default", environment=ENVIRONMENT, timeout_seconds=5
    )


async def test_what_is_read_is_what_the_flag_says(kept: Kept) -> None:
    found = await kept.writer.read()
    assert (found.share_percent, found.group_id) == (5, kept.flag)


async def test_what_is_written_is_read_back(kept: Kept) -> None:
    written = await kept.writer.write(25, expected=5, group_id=f"{kept.flag}-2", title="25 % by ann: fine")
    assert msgspec.structs.replace(written, event_id="") == await kept.writer.read()
    assert (written.share_percent, written.group_id, written.title) == (25, f"{kept.flag}-2", "25 % by ann: fine")


async def test_a_share_that_somebody_moved_is_not_overwritten(kept: Kept) -> None:
    kept.set_by_hand(50)
    with pytest.raises(FlagMoved) as caught:
        await kept.writer.write(25, expected=5, group_id=kept.flag, title="")
    assert caught.value.share_percent == 50
    assert (await kept.writer.read()).share_percent == 50


async def test_a_rollback_overwrites_whatever_is_there(kept: Kept) -> None:
    kept.set_by_hand(50)
    written = await kept.writer.write(0, expected=None, group_id=kept.flag, title="rolled back abc")
    assert (written.share_percent, written.title) == (0, "rolled back abc")


async def test_a_flag_that_is_off_has_no_share_and_is_turned_on_with_one(kept: Kept) -> None:
    kept.switch_off_by_hand()
    assert (await kept.writer.read()).share_percent == 0
    assert (await kept.writer.write(25, expected=0, group_id=kept.flag, title="")).share_percent == 25


async def test_writing_what_is_there_already_is_no_conflict(kept: Kept) -> None:
    kept.set_by_hand(25)
    assert (await kept.writer.write(25, expected=5, group_id=kept.flag, title="")).share_percent == 25


async def test_a_change_names_its_event_in_unleash(unleash: Unleash) -> None:
    flag = new_flag_name()
    unleash.admin.create_rollout(flag, 5)
    writer = unleash_writer(unleash, flag)
    first = await writer.write(25, expected=5, group_id=flag, title="")
    second = await writer.write(50, expected=25, group_id=flag, title="")
    await writer.close()
    assert int(second.event_id) > int(first.event_id) > 0


async def test_an_environment_without_a_strategy_gets_one_before_it_is_turned_on(unleash: Unleash) -> None:
    flag = new_flag_name()
    unleash.admin.create_flag(flag)  # turned on like this it would be for everybody
    writer = unleash_writer(unleash, flag)
    written = await writer.write(5, expected=0, group_id=flag, title="")
    await writer.close()
    assert written.share_percent == 5
    assert [s["parameters"]["rollout"] for s in unleash.admin.environment(flag)["strategies"]] == ["5"]


async def test_constraints_and_other_parameters_are_left_alone(unleash: Unleash) -> None:
    flag = new_flag_name()
    unleash.admin.create_flag(flag)
    unleash.admin.add_strategy(flag, 5, constraints=[constraint("client", ["shop"])])
    unleash.admin.switch(flag, "on")
    writer = unleash_writer(unleash, flag)
    await writer.write(25, expected=5, group_id=flag, title="")
    await writer.close()
    [strategy] = unleash.admin.environment(flag)["strategies"]
    assert strategy["constraints"][0]["values"] == ["shop"]
    assert strategy["parameters"]["stickiness"] == "userId"


@pytest.mark.parametrize("token", [CLIENT_TOKEN, "nonsense"])
async def test_a_token_that_may_not_write_is_told_from_a_server_that_is_away(unleash: Unleash, token: str) -> None:
    flag = new_flag_name()
    unleash.admin.create_rollout(flag, 5)
    writer = unleash_writer(unleash, flag, token)
    with pytest.raises(FlagForbidden, match="admin token"):
        await writer.write(25, expected=5, group_id=flag, title="")
    await writer.close()


async def test_a_flag_that_unleash_does_not_know_is_named(unleash: Unleash) -> None:
    writer = unleash_writer(unleash, "nobody-made-this")
    with pytest.raises(FlagForbidden, match="nobody-made-this"):
        await writer.read()
    await writer.close()


async def test_a_server_that_is_away_is_worth_another_try() -> None:
    writer = UnleashFlagWriter(
        url="http://127.0.0.1:1/api", token="t", flag="f", project="default", environment="development"
    )
    with pytest.raises(FlagNotWritten, match="cannot be reached"):
        await writer.read()
    await writer.close()


@pytest.mark.parametrize("content", ['{"version": 2, "features": [', "[]", '{"features": 7}', "\x00"])
async def test_a_file_with_a_mistake_in_it_is_left_as_it_is(tmp_path: Path, content: str) -> None:
    file = tmp_path / "flags.json"
    file.write_text(content)
    with pytest.raises(FlagNotWritten, match=r"flags\.json"):
        await FileFlagWriter(file, "f").write(25, expected=None, group_id="f", title="")
    assert file.read_text() == content


async def test_everything_else_in_a_file_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "flags.json"
    write_flag_file(file, "mine", 5)
    document: dict[str, Any] = json.loads(file.read_text())
    document["features"].append({"name": "other", "enabled": True, "strategies": [], "project": "kept"})
    document["features"][0]["strategies"].insert(0, {"name": "userWithId", "parameters": {"userIds": "ann"}})
    document["segments"] = [{"id": 1, "constraints": []}]
    file.write_text(json.dumps(document))
    await FileFlagWriter(file, "mine").write(25, expected=5, group_id="mine", title="t")
    after = json.loads(file.read_text())
    assert after["features"][1] == document["features"][1]
    assert after["segments"] == document["segments"]
    assert after["features"][0]["strategies"][0] == document["features"][0]["strategies"][0]
    assert after["features"][0]["strategies"][1]["parameters"]["rollout"] == "25"


async def test_a_file_that_is_not_there_is_made(tmp_path: Path) -> None:
    writer = FileFlagWriter(tmp_path / "flags.json", "f")
    assert (await writer.write(5, expected=0, group_id="f", title="")).share_percent == 5
