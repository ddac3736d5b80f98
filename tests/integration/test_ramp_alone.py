"""One proxy with its own store and flag file: the ramp by time, and a file that people break by hand."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.integration.pages import metric, status
from tests.parts.callers import QUICK, ask_all
from tests.parts.programs import eventually
from tests.running import ROOT, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STAGES = [{"share_percent": 5, "bake_seconds": 1}, {"share_percent": 100, "bake_seconds": 1}]
SHORT = {**QUICK, "RERANK_CANARY__RAMP__STAGES": json.dumps(STAGES)}


def rollout(proxy: Proxy) -> dict[str, Any]:
    found: dict[str, Any] = status(proxy)["rollout"]
    return found


def order(proxy: Proxy, path: str, **fields: object) -> httpx.Response:
    token = (proxy.folder / "var/control.token").read_text().strip()
    url = f"{proxy.control_url}/{path}"
    return httpx.post(url, json=fields, headers={"Authorization": f"Bearer {token}"}, timeout=30)


def test_a_stage_that_is_passed_waits_for_an_operator(tmp_path: Path) -> None:
    with Proxy(tmp_path, SHORT) as proxy:
        eventually(lambda: rollout(proxy)["is_ready_to_advance"])
        assert rollout(proxy)["share_percent"]["desired"] == 5
        assert order(proxy, "advance").json()["share_percent"] == 100
        eventually(lambda: rollout(proxy)["phase"] == "promoted")
        assert order(proxy, "retire", reason="done").json()["phase"] == "retired"


def test_with_auto_advance_time_alone_goes_on(tmp_path: Path) -> None:
    with Proxy(tmp_path, SHORT | {"RERANK_CANARY__RAMP__AUTO_ADVANCE": "true"}) as proxy:
        eventually(lambda: rollout(proxy)["phase"] == "promoted")
        found = json.loads((tmp_path / "var/flags.json").read_text())
    assert found["features"][0]["strategies"][0]["parameters"]["rollout"] == "100"


def test_a_held_rollout_waits_whatever_time_it_is(tmp_path: Path) -> None:
    with Proxy(tmp_path, SHORT | {"RERANK_CANARY__RAMP__AUTO_ADVANCE": "true"}) as proxy:
        eventually(lambda: rollout(proxy)["phase"])
        assert order(proxy, "hold", reason="a holiday").json()["phase"] == "held"
        with pytest.raises(AssertionError):
            eventually(lambda: rollout(proxy)["share_percent"]["desired"] == 100, timeout_seconds=2.5)


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(tmp_path_factory.mktemp("alone"), QUICK | {"RERANK_CANARY__RAMP__COOL_DOWN_SECONDS": "0"}) as started:
        eventually(lambda: rollout(started)["phase"])
        yield started


def test_a_flag_file_edited_by_hand_is_adopted(proxy: Proxy) -> None:
    file = proxy.folder / "var/flags.json"
    file.write_text(file.read_text().replace('"rollout": "5"', '"rollout": "50"'))
    eventually(lambda: rollout(proxy)["share_percent"]["desired"] == 50)
    assert rollout(proxy)["stage"]["number"] == 3


def test_a_flag_file_with_a_mistake_keeps_the_last_split_and_says_so(proxy: Proxy) -> None:
    file = proxy.folder / "var/flags.json"
    good = file.read_text()
    before = rollout(proxy)["share_percent"]
    file.write_text(good[:-20])
    try:
        eventually(lambda: status(proxy)["flag"]["error"])
        assert rollout(proxy)["share_percent"]["effective"] == before["effective"]
        answer = order(proxy, "ramp", share_percent=25).json()
        assert answer["flag_is_behind"]
        assert any("flags.json" in warning for warning in answer["warnings"])
        assert order(proxy, "rollback", reason="all the same").json()["is_latched"]
        assert {a.arm for a in ask_all(proxy.url, [f"user-{i}" for i in range(50)])} == {"control"}
    finally:
        file.write_text(good)
    eventually(lambda: not rollout(proxy)["flag_is_behind"])
    assert json.loads(file.read_text())["features"][0]["strategies"][0]["parameters"]["rollout"] == "0"


def test_the_latch_and_the_share_are_metrics(proxy: Proxy) -> None:
    order(proxy, "rollback", reason="for the metrics")
    assert metric(proxy, "rerank_latch_set") == 1
    order(proxy, "rearm", reason="for the metrics")
    order(proxy, "ramp", share_percent=25)
    assert (metric(proxy, "rerank_latch_set"), metric(proxy, "rerank_ramp_share_percent")) == (0, 25)
    assert metric(proxy, "rerank_ramp_changes_total") >= 3


def test_a_rearm_waits_until_the_flag_says_the_rollback(tmp_path: Path) -> None:
    with Proxy(tmp_path, QUICK | {"RERANK_CANARY__RAMP__COOL_DOWN_SECONDS": "0"}) as proxy:
        eventually(lambda: rollout(proxy)["phase"])
        file = proxy.folder / "var/flags.json"
        good = file.read_text()
        file.write_text("{")
        order(proxy, "rollback", reason="bad")
        refused = order(proxy, "rearm", reason="too soon")
        assert (refused.status_code, "does not say 0 % yet" in refused.text) == (409, True)
        assert {answer.arm for answer in ask_all(proxy.url, ["ada", "bob"])} == {"control"}
        file.write_text(good)
        eventually(lambda: not rollout(proxy)["flag_is_behind"])
        assert order(proxy, "rearm", reason="now").json()["share_percent"] == 0


def test_two_orders_before_the_flag_can_be_written_end_at_the_second(tmp_path: Path) -> None:
    with Proxy(tmp_path, QUICK) as proxy:
        eventually(lambda: rollout(proxy)["phase"])
        file = proxy.folder / "var/flags.json"
        good = file.read_text()
        file.write_text("{")
        order(proxy, "ramp", share_percent=25)
        order(proxy, "ramp", share_percent=50)
        file.write_text(good)
        eventually(lambda: rollout(proxy)["share_percent"]["effective"] == 50)
        assert rollout(proxy)["share_percent"]["desired"] == 50


def test_the_same_rollback_order_after_a_rearm_does_nothing(tmp_path: Path) -> None:
    with Proxy(tmp_path, QUICK | {"RERANK_CANARY__RAMP__COOL_DOWN_SECONDS": "0"}) as proxy:
        eventually(lambda: rollout(proxy)["phase"])
        for _ in range(2):
            order(proxy, "rollback", reason="bad", request_id="the-same")
            eventually(lambda: not rollout(proxy)["flag_is_behind"])
            if rollout(proxy)["latch"]["is_set"]:
                assert order(proxy, "rearm", reason="mended").status_code == 200
        assert not rollout(proxy)["latch"]["is_set"]


def test_the_status_shows_a_reason_with_brackets(tmp_path: Path) -> None:
    with Proxy(tmp_path, QUICK) as proxy:
        eventually(lambda: rollout(proxy)["phase"])
        order(proxy, "rollback", reason="[JIRA-12] bad [/answers]")
        token = (proxy.folder / "var/control.token").read_text().strip()
        done = subprocess.run(
            [str(ROOT / ".venv/bin/rerank-canary"), "status", "--url", proxy.control_url],
            env={"PATH": os.environ["PATH"], "RERANK_CANARY_TOKEN": token, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert (done.returncode, "[JIRA-12] bad [/answers]" in done.stdout) == (0, True)
