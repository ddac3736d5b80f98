"""What becomes of the split while the Unleash server is away, slow or talks nonsense."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.integration.flags import USERS, Rollout
from tests.integration.pages import metric, status
from tests.parts.callers import Callers, ask_all
from tests.parts.http_server import HttpAnswer
from tests.parts.programs import eventually
from tests.parts.relay import Relay
from tests.running import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.parts.callers import Answer
    from tests.parts.unleash import Unleash

pytestmark = pytest.mark.part("unleash")
SHARE = 25
SOME = USERS[:200]
NOWHERE = "http://127.0.0.1:1/api"
"""Where no Unleash ever is."""


@pytest.fixture(scope="module")
def rollout(unleash: Unleash) -> Rollout:
    return Rollout(unleash, SHARE)


@pytest.fixture(scope="module")
def relay(unleash: Unleash) -> Iterator[Relay]:
    with Relay(unleash.url.removesuffix("/api")) as started:
        yield started


@pytest.fixture(scope="module")
def proxy(rollout: Rollout, relay: Relay, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Return a proxy whose Unleash can be broken."""
    with Proxy(tmp_path_factory.mktemp("proxy"), rollout.env(f"{relay.url}/api")) as started:
        eventually(lambda: has_share(started))
        yield started


@pytest.fixture
def snapshot(rollout: Rollout, unleash: Unleash, tmp_path: Path) -> Path:
    """Return a file with the flag as the server states it."""
    file = tmp_path / "flags.json"

    def fetch() -> bool:
        found = httpx.get(
            f"{unleash.url}/client/features", headers={"Authorization": rollout.env()["UNLEASH_API_TOKEN"]}
        )
        file.write_bytes(found.content)
        return rollout.flag in found.text

    eventually(fetch)
    return file


def flag_of(proxy: Proxy) -> dict[str, object]:
    found: dict[str, object] = status(proxy)["flag"]
    return found


def has_share(proxy: Proxy) -> bool:
    found = flag_of(proxy)
    return isinstance(found["rollout"], dict) and found["rollout"]["share_percent"] == SHARE and found["error"] is None


def moved(answers: list[Answer], rollout: Rollout) -> list[Answer]:
    """Return the first few answers of users who are not where the split has them."""
    return [a for a in answers if (a.arm == "candidate") != rollout.gives_candidate(a.user)][:5]


def test_an_unleash_that_stops_and_comes_back_costs_no_request_and_moves_no_user(
    unleash: Unleash, rollout: Rollout, proxy: Proxy
) -> None:
    with Callers(proxy.url, SOME) as callers:
        eventually(lambda: len(callers.answers) > 100)
        unleash.stop()
        try:
            eventually(lambda: flag_of(proxy)["error"])
        finally:
            unleash.start()
        eventually(lambda: has_share(proxy))
    assert callers.failed == []
    assert moved(callers.answers, rollout) == []
    assert {answer.arm for answer in callers.answers} == {"candidate", "control"}


def test_an_unleash_that_hangs_slows_no_request_down(unleash: Unleash, rollout: Rollout, proxy: Proxy) -> None:
    with Callers(proxy.url, SOME, threads=2) as callers:
        unleash.program.freeze()
        try:
            eventually(lambda: flag_of(proxy)["error"])
        finally:
            unleash.program.thaw()
        eventually(lambda: has_share(proxy))
    assert callers.failed == []
    assert moved(callers.answers, rollout) == []
    assert max(answer.seconds for answer in callers.answers) < 1


def test_status_and_metrics_show_how_old_the_split_is(relay: Relay, proxy: Proxy) -> None:
    relay.break_with(HttpAnswer(503))
    began = time.monotonic()
    try:
        eventually(lambda: flag_of(proxy)["error"])
        eventually(lambda: metric(proxy, "rerank_flag_age_seconds") > 3)
        away = time.monotonic() - began
        age = flag_of(proxy)["age_seconds"]
    finally:
        relay.mend()
    assert age == pytest.approx(away, abs=1.5)
    eventually(lambda: metric(proxy, "rerank_flag_age_seconds") < 2)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(HttpAnswer(500, b"oops"), id="500"),
        pytest.param(HttpAnswer(401, b'{"name": "AuthenticationRequired"}'), id="401"),
        pytest.param(HttpAnswer(200, b"<html>Log in</html>", {"content-type": "text/html"}), id="a page"),
        pytest.param(HttpAnswer(200, b""), id="nothing"),
        pytest.param(HttpAnswer(200, b"{}"), id="an empty object"),
        pytest.param(HttpAnswer(200, b'{"version": 2, "features": [{"name": "fl'), id="cut JSON"),
        pytest.param(HttpAnswer(200, b'{"version": 2, "features": [{"name": 7}]}'), id="wrong types"),
        pytest.param(HttpAnswer(200, b'{"version": 2, "features": []}', sent_bytes=9), id="a torn connection"),
    ],
)
def test_what_is_no_flag_state_keeps_the_last_split(
    relay: Relay, rollout: Rollout, proxy: Proxy, answer: HttpAnswer
) -> None:
    before = relay.broken
    relay.break_with(answer)
    try:
        eventually(lambda: relay.broken >= before + 2)
        answers = ask_all(proxy.url, SOME)
    finally:
        relay.mend()
    assert moved(answers, rollout) == []


def test_a_refused_token_is_named_in_status(relay: Relay, proxy: Proxy) -> None:
    relay.break_with(HttpAnswer(401))
    try:
        eventually(lambda: flag_of(proxy)["error"] == "Unleash answered 401")
    finally:
        relay.mend()
    eventually(lambda: has_share(proxy))


def test_a_proxy_restarted_while_unleash_is_away_serves_the_split_it_knew(rollout: Rollout, tmp_path: Path) -> None:
    with Proxy(tmp_path, rollout.env()) as before:
        eventually(lambda: has_share(before))
    with Proxy(tmp_path, rollout.env(NOWHERE)) as after:
        answers = ask_all(after.url, SOME)
    assert moved(answers, rollout) == []
    assert {answer.reason for answer in answers} == {"split"}


@pytest.fixture(scope="module")
def forsaken(rollout: Rollout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Return a proxy whose Unleash was never there."""
    with Proxy(tmp_path_factory.mktemp("forsaken"), rollout.env(NOWHERE)) as started:
        yield started


def test_a_proxy_that_never_saw_its_flag_serves_control(forsaken: Proxy) -> None:
    answers = ask_all(forsaken.url, SOME[:50])
    assert {(answer.status, answer.arm, answer.reason) for answer in answers} == {(200, "control", "never_seen")}


def test_a_proxy_that_never_saw_its_flag_says_so_in_status(forsaken: Proxy) -> None:
    found = flag_of(forsaken)
    assert (found["rollout"], found["age_seconds"]) == (None, None)
    assert found["error"]


def test_a_proxy_starts_and_stops_quickly_while_unleash_hangs(
    unleash: Unleash, rollout: Rollout, tmp_path: Path
) -> None:
    unleash.program.freeze()
    try:
        proxy = Proxy(tmp_path, rollout.env())
        proxy.start()
        [answer] = ask_all(proxy.url, SOME[:1])
        began = time.monotonic()
        status = proxy.stop()
        seconds = time.monotonic() - began
    finally:
        unleash.program.thaw()
    assert (answer.status, answer.reason) == (200, "never_seen")
    assert status == 0
    assert seconds < 10


def test_a_bootstrap_file_gives_the_split_before_unleash_was_ever_reached(
    rollout: Rollout, snapshot: Path, tmp_path: Path
) -> None:
    with Proxy(tmp_path / "proxy", rollout.env(NOWHERE) | {"RERANK_CANARY__FLAG__BOOTSTRAP": str(snapshot)}) as proxy:
        answers = ask_all(proxy.url, SOME)
    assert moved(answers, rollout) == []
    assert {answer.reason for answer in answers} == {"split"}
