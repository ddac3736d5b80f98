"""The embedded Valkey: what it keeps, whom it outlives, and what requests notice of it (nothing)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import redis

from flags.store import EmbeddedValkey
from tests.integration.pages import metric, status
from tests.parts.callers import QUICK, Callers, ask_all
from tests.parts.programs import eventually, is_running, programs_in
from tests.running import ROOT, Proxy, user_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CANDIDATE = user_of("candidate")


def valkey(proxy: Proxy) -> redis.Redis:
    """Return a client of the proxy's own store."""
    url = EmbeddedValkey(proxy.folder / "var/store").url
    return redis.Redis(unix_socket_path=url.removeprefix("unix://"), socket_timeout=1)


def valkey_pid(proxy: Proxy) -> int:
    with valkey(proxy) as client:
        pid: int = client.info("server")["process_id"]
        return pid


def valkeys_of(proxy: Proxy) -> list[int]:
    return programs_in(proxy.folder / "var/store")


@contextmanager
def started(folder: Path) -> Iterator[Proxy]:
    """Start a proxy; whatever the test did to it, no Valkey stays behind."""
    proxy = Proxy(folder, QUICK)
    try:
        with proxy:
            yield proxy
    finally:
        for pid in valkeys_of(proxy):
            os.kill(pid, signal.SIGKILL)


def requests_counted(proxy: Proxy) -> int:
    found: int = status(proxy)["fallback"]["last_hour"]["requests"]
    return found


def stored_requests(proxy: Proxy) -> int:
    """Return the candidate's requests as the store has them."""
    with valkey(proxy) as client:
        spends = [spend for key in client.scan_iter("*:spend:*") for spend in client.hvals(key)]
        return sum(json.loads(spend)["requests"] for spend in spends)


def serve_and_store(proxy: Proxy, count: int) -> None:
    """Serve some requests by the candidate and wait until the store has them."""
    before = stored_requests(proxy)
    ask_all(proxy.url, [CANDIDATE] * count)
    eventually(lambda: stored_requests(proxy) == before + count)


@pytest.fixture(scope="module")
def restarted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, int]]:
    """Return a proxy that was stopped right after it had served and started again; and the Valkey left behind, or 0."""
    with started(tmp_path_factory.mktemp("restarted")) as found:
        pid = valkey_pid(found)
        ask_all(found.url, [CANDIDATE] * 5)
        assert found.stop() == 0
        is_left = is_running(pid)
        found.start()
        yield found, pid if is_left else 0


def test_a_restart_loses_nothing_that_was_counted(restarted: tuple[Proxy, int]) -> None:
    proxy, _ = restarted
    eventually(lambda: requests_counted(proxy) == 5)


def test_a_graceful_stop_leaves_no_valkey_behind(restarted: tuple[Proxy, int]) -> None:
    _, left = restarted
    assert left == 0


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, int]]:
    """Return a proxy that was killed and started again, and the Valkey that the first of the two started."""
    with started(tmp_path_factory.mktemp("killed")) as found:
        serve_and_store(found, 6)
        pid = valkey_pid(found)
        found.stop(signal.SIGKILL)
        assert is_running(pid)
        found.start()
        yield found, pid


def test_after_a_kill_of_the_proxy_the_next_takes_the_valkey_over(killed: tuple[Proxy, int]) -> None:
    proxy, pid = killed
    assert valkey_pid(proxy) == pid
    assert len(proxy.logged("store.taken_over")) == 1


def test_after_a_kill_of_the_proxy_what_was_counted_is_there(killed: tuple[Proxy, int]) -> None:
    proxy, _ = killed
    eventually(lambda: requests_counted(proxy) == 6)


def test_after_a_kill_of_the_proxy_a_graceful_stop_of_the_next_ends_the_valkey(killed: tuple[Proxy, int]) -> None:
    proxy, pid = killed
    assert proxy.stop() == 0
    eventually(lambda: not is_running(pid))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Return a proxy with something in its store."""
    with started(tmp_path_factory.mktemp("served")) as found:
        serve_and_store(found, 4)
        yield found


def test_a_second_proxy_on_the_same_data_directory_is_refused(served: Proxy) -> None:
    environment = {"PATH": os.environ["PATH"], "RERANK_CANARY__DATA_DIR": str(served.folder / "var")}
    ports = {"RERANK_CANARY__SERVER__PORT": "0", "RERANK_CANARY__SERVER__CONTROL_PORT": "0"}
    second = subprocess.run(
        [str(ROOT / ".venv/bin/rerank-canary"), "serve"],
        cwd=served.folder,
        env=environment | ports,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    said = " ".join(second.stderr.split())
    assert (second.returncode, "Traceback" in said) == (2, False)
    assert "another rerank-canary runs in" in said
    assert ask_all(served.url, ["ann"])[0].status == 200


def test_a_valkey_that_is_killed_costs_no_request_and_is_started_again(served: Proxy) -> None:
    pid = valkey_pid(served)
    with Callers(served.url, ["ann", "bea"]) as callers:
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: valkeys_of(served) not in ([], [pid]))
        eventually(lambda: status(served)["store"]["error"] is None)
    assert callers.failed == []
    assert valkey_pid(served) != pid


def test_a_valkey_that_is_killed_shows_on_the_metrics_page_until_it_is_back(served: Proxy) -> None:
    os.kill(valkey_pid(served), signal.SIGKILL)
    eventually(lambda: metric(served, "rerank_store_up") == 0, every_seconds=0.01)
    eventually(lambda: metric(served, "rerank_store_up") == 1)


def test_a_valkey_that_is_killed_comes_back_with_what_was_counted(served: Proxy) -> None:
    os.kill(valkey_pid(served), signal.SIGKILL)
    eventually(lambda: status(served)["store"]["error"], every_seconds=0.01)
    eventually(lambda: status(served)["store"]["error"] is None)
    assert stored_requests(served) >= 4


def test_a_valkey_that_hangs_is_not_joined_by_a_second_one(served: Proxy) -> None:
    pid = valkey_pid(served)
    os.kill(pid, signal.SIGSTOP)
    try:
        with Callers(served.url, ["ann", "bea"], threads=2) as callers:
            time.sleep(3)
        found = valkeys_of(served)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert callers.failed == []
    assert found == [pid]


def test_a_store_folder_that_cannot_be_used_for_a_while_is_used_again(served: Proxy) -> None:
    folder, aside = served.folder / "var/store", served.folder / "var/aside"
    pid = valkey_pid(served)
    folder.rename(aside)
    folder.write_text("in the way")
    os.kill(pid, signal.SIGKILL)
    try:
        eventually(lambda: status(served)["store"]["error"])
        time.sleep(1.5)  # one try to start it again
    finally:
        folder.unlink()
        aside.rename(folder)
    eventually(lambda: status(served)["store"]["error"] is None, timeout_seconds=5)


def test_a_second_start_in_the_same_folder_leaves_the_store_of_the_first_alone(served: Proxy) -> None:
    pid, found = valkey_pid(served), requests_counted(served)
    lost = len(served.logged("store.lost"))
    second = Proxy(served.folder, QUICK)
    second.log = served.folder / "second.log"
    with pytest.raises(AssertionError, match="another rerank-canary runs in"):
        second.start()
    assert second.process is not None
    assert second.process.returncode == 2
    time.sleep(1.5)  # the first one's next round trip
    assert (valkey_pid(served), requests_counted(served), len(served.logged("store.lost"))) == (pid, found, lost)
    assert second.logged("store.reached") == []
