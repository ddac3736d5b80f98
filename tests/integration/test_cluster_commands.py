"""What a cluster runs beside the proxy: the flag's first state in a real Unleash, and a look at an installation."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.integration.flags import new_flag_name
from tests.integration.pages import status
from tests.parts.callers import QUICK
from tests.parts.programs import eventually
from tests.parts.unleash import ADMIN_TOKEN, CLIENT_TOKEN
from tests.running import ROOT, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.parts.unleash import Unleash


def run(*arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / ".venv/bin/rerank-canary"), *arguments]
    path = {"PATH": os.environ["PATH"]}
    return subprocess.run(command, env=path | dict(env or {}), capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    guarded = {name: value for name, value in QUICK.items() if "GUARD" not in name}
    with Proxy(tmp_path_factory.mktemp("proxy"), guarded) as made:
        yield made


def unleash_of(unleash: Unleash, flag: str, admin_token: str = ADMIN_TOKEN) -> dict[str, str]:
    return {
        "UNLEASH_URL": unleash.url,
        "UNLEASH_API_TOKEN": CLIENT_TOKEN,
        "UNLEASH_ADMIN_TOKEN": admin_token,
        "RERANK_CANARY__FLAG__KEY": flag,
    }


def test_the_flag_is_made_at_nothing_and_then_left_alone(unleash: Unleash) -> None:
    flag = new_flag_name()
    made = run("create-flag", env=unleash_of(unleash, flag))
    assert (made.returncode, made.stdout) == (0, f"{flag}: made, at 0 % and off\n"), made.stderr
    found = unleash.admin.environment(flag)
    assert not found["enabled"]
    [strategy] = found["strategies"]
    assert strategy["parameters"] == {"rollout": "0", "stickiness": "userId", "groupId": flag}
    other = new_flag_name()
    unleash.admin.create_rollout(other, 25)
    again = run("create-flag", env=unleash_of(unleash, other))
    assert (again.returncode, again.stdout) == (0, f"{other}: is there already, left as it is\n")
    assert unleash.admin.environment(other)["strategies"][0]["parameters"]["rollout"] == "25"


def test_a_token_without_rights_and_a_server_that_is_away_are_told_apart(unleash: Unleash) -> None:
    refused = run("create-flag", env=unleash_of(unleash, new_flag_name(), CLIENT_TOKEN))
    assert refused.returncode == 4
    away = run("create-flag", env=unleash_of(unleash, "x") | {"UNLEASH_URL": "http://127.0.0.1:9/api"})
    assert (away.returncode, "cannot be reached" in away.stderr) == (3, True)
    unsaid = run("create-flag")
    assert (unsaid.returncode, "UNLEASH_ADMIN_TOKEN" in unsaid.stderr) == (2, True)


def test_an_installation_that_is_well_says_who_got_what_and_when_it_was_judged(proxy: Proxy) -> None:
    eventually(lambda: status(proxy)["guard"])
    done = run("smoke", "--url", proxy.url, "--control-url", proxy.control_url)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("arm: control ")
    assert lines[1] == "reason: split 40 of 40 users"
    assert lines[3].startswith("guard: judged ")


def test_what_is_not_well_ends_with_the_code_that_says_why(proxy: Proxy, tmp_path: Path) -> None:
    assert run("smoke", "--url", "http://127.0.0.1:9").returncode == 3
    wrong = run("smoke", "--url", proxy.control_url)
    assert wrong.returncode == 1, wrong.stderr
    made = run("new-key").stdout.split()
    with Proxy(tmp_path, QUICK | {"RERANK_CANARY__AUTH__DATA_KEYS": f'["{made[1]}"]'}) as closed:
        assert run("smoke", "--url", closed.url).returncode == 4
        done = run("smoke", "--url", closed.url, env={"RERANK_CANARY_KEY": made[0]})
        assert (done.returncode, "guard: not looked at" in done.stdout) == (0, True)
        assert (
            "off, or has not judged"
            in run(
                "smoke", "--url", closed.url, "--control-url", closed.control_url, env={"RERANK_CANARY_KEY": made[0]}
            ).stdout
        )
