"""Starting, stopping and being asked how it is: what a process of its own must get right."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

from flags.file_gate import write_flag_file
from tests.parts.callers import QUICK, Callers, ask_all
from tests.parts.programs import eventually, programs_in
from tests.running import ROOT, Proxy, free_port, user_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WORDS = "the committee discussed the budget of the region and adjourned until the following week "


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(tmp_path_factory.mktemp("proxy"), QUICK) as started:
        yield started


def serve_until_it_ends(folder: Path, command: str = "serve", **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command, expecting it to refuse."""
    folder.mkdir(exist_ok=True)
    ports = {"RERANK_CANARY__SERVER__PORT": "0", "RERANK_CANARY__SERVER__CONTROL_PORT": "0"}
    return subprocess.run(
        [str(ROOT / ".venv/bin/rerank-canary"), command],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **ports, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@contextmanager
def serving_into(folder: Path, out: int | None) -> Iterator[tuple[subprocess.Popen[bytes], str, str]]:
    """Start a proxy with *out* as its standard output, None for a closed one; yield its process and addresses."""
    port, control_port = free_port(), free_port()
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "RERANK_CANARY__SERVER__PORT": str(port),
        "RERANK_CANARY__SERVER__CONTROL_PORT": str(control_port),
        "RERANK_CANARY__SERVER__DRAIN_SECONDS": "0",
        **QUICK,
    }
    command = [str(ROOT / ".venv/bin/rerank-canary"), "serve"]
    if out is None:
        command = ["bash", "-c", f"exec {command[0]} serve >&-"]
    process = subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=subprocess.PIPE)
    url = f"http://127.0.0.1:{port}"
    try:
        eventually(lambda: process.poll() is not None or is_ready(url), timeout_seconds=60)
        yield process, url, f"http://127.0.0.1:{control_port}"
    finally:
        process.terminate()
        process.communicate(timeout=30)


def is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz").is_success
    except httpx.TransportError:
        return False


@contextmanager
def broken_output(kind: str) -> Iterator[int | None]:
    """Yield a standard output that takes no lines."""
    if kind == "closed":
        yield None
    elif kind == "full":
        with Path("/dev/full").open("wb") as out:
            yield out.fileno()
    else:
        read_end, write_end = os.pipe()
        if kind == "no reader":
            os.close(read_end)
        try:
            yield write_end
        finally:
            os.close(write_end)


@pytest.mark.parametrize(
    ("kind", "requests"), [("closed", 5), ("full", 5), ("no reader", 5), ("a reader that stands still", 300)]
)
def test_an_output_that_takes_no_log_lines_costs_neither_the_start_nor_an_answer(
    tmp_path: Path, kind: str, requests: int
) -> None:
    with broken_output(kind) as out, serving_into(tmp_path, out) as (process, url, control_url):
        began = time.monotonic()
        answers = ask_all(url, ["ann"] * requests)
        seconds = time.monotonic() - began
        token = (tmp_path / "var/control.token").read_text().strip()
        page = httpx.get(f"{control_url}/metrics", headers={"Authorization": f"Bearer {token}"}).text
        process.terminate()
        status = process.wait(30)
    assert {answer.status for answer in answers} == {200}
    assert seconds < 20
    assert status == 0
    [lost] = [float(line.split()[-1]) for line in page.splitlines() if line.startswith("rerank_log_lines_lost")]
    assert lost >= 5
    assert programs_in(tmp_path / "var/store") == []


class Stopped:
    """A proxy that was told to stop while requests ran, and what was seen meanwhile."""

    def __init__(self, folder: Path) -> None:
        slow = QUICK | {"RERANK_CANARY__BACKENDS__GPT__STAND_IN_DELAY_SECONDS": "2.5"}
        proxy = Proxy(folder, slow | {"RERANK_CANARY__SERVER__DRAIN_SECONDS": "2"})
        proxy.start()
        self.ready_before = httpx.get(f"{proxy.url}/readyz").status_code
        control = user_of("control")
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(ask_all, proxy.url, [control] * 8)
            time.sleep(0.3)  # they run: each takes longer than the drain
            assert proxy.process is not None
            proxy.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            readiness = httpx.get(f"{proxy.url}/readyz")
            self.ready_while_draining = readiness.status_code
            self.checks = readiness.json()["checks"]
            self.live_while_draining = httpx.get(f"{proxy.url}/livez").status_code
            [self.late] = ask_all(proxy.url, [control])
            self.answers = running.result()
        self.exit_status = proxy.stop()
        self.events = [event for event in ("server.draining", "server.stopped") if proxy.logged(event)]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Stopped:
    return Stopped(tmp_path_factory.mktemp("stopped"))


def test_requests_that_run_when_told_to_stop_are_answered(stopped: Stopped) -> None:
    assert [answer.status for answer in stopped.answers] == [200] * 8


def test_requests_that_come_while_draining_are_answered(stopped: Stopped) -> None:
    assert stopped.late.status == 200


def test_readiness_says_no_while_draining(stopped: Stopped) -> None:
    assert (stopped.ready_before, stopped.ready_while_draining) == (200, 503)
    assert stopped.checks["not_draining"] is False


def test_liveness_says_yes_while_draining(stopped: Stopped) -> None:
    assert stopped.live_while_draining == 200


def test_a_drained_proxy_ends_with_status_0(stopped: Stopped) -> None:
    assert (stopped.exit_status, stopped.events) == (0, ["server.draining", "server.stopped"])


def test_sigint_stops_as_sigterm_does(tmp_path: Path) -> None:
    with Proxy(tmp_path, QUICK) as started:
        assert started.stop(signal.SIGINT) == 0


def test_readiness_says_no_until_it_says_yes(tmp_path: Path) -> None:
    proxy = Proxy(tmp_path, QUICK)
    seen: list[int] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.is_set():
            try:
                seen.append(httpx.get(f"{proxy.url}/readyz", timeout=0.2).status_code)
            except httpx.TransportError:
                seen.append(0)

    watcher = threading.Thread(target=watch)
    watcher.start()
    with proxy:
        answered = ask_all(proxy.url, ["ann"])
        is_over.set()
        watcher.join()
    assert answered[0].status == 200
    assert sorted(seen, key=lambda code: code == 200) == seen, "it was ready, and then not"
    assert set(seen) <= {0, 200, 503}


def keep_busy(proxy: Proxy, number: int, is_over: threading.Event) -> list[int]:
    """Let the model work on long documents that it has not seen, until told to stop; return the statuses."""
    user = user_of("candidate")
    found: list[int] = []
    while not is_over.is_set():
        documents = [f"{number} {len(found)} {i} {WORDS * 12}" for i in range(100)]
        found.append(proxy.rerank("budget", documents, headers={"x-user-id": user}).status_code)
    return found


def test_probes_answer_quickly_while_the_model_is_busy(
    tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    is_over = threading.Event()
    slowest = {"/livez": 0.0, "/readyz": 0.0}
    with Proxy(tmp_path, QUICK) as proxy, ThreadPoolExecutor(4) as pool, httpx.Client(base_url=proxy.url) as client:
        busy = [pool.submit(keep_busy, proxy, number, is_over) for number in range(4)]
        time.sleep(0.5)
        end = time.monotonic() + 4
        while time.monotonic() < end:
            for path in ("/livez", "/readyz"):
                began = time.perf_counter()
                assert client.get(path).status_code == 200
                slowest[path] = max(slowest[path], time.perf_counter() - began)
        is_over.set()
        served = [status for one in busy for status in one.result()]
    record_testsuite_property("slowest_probe_seconds", slowest)
    assert set(served) <= {200, 429}
    assert max(slowest.values()) < 1, slowest


@pytest.mark.parametrize("plane", ["data_plane", "control_plane"])
def test_the_log_says_where_it_listens(proxy: Proxy, plane: str) -> None:
    [ready] = eventually(lambda: proxy.logged("server.ready"))
    assert ready[plane] == {"data_plane": proxy.url, "control_plane": proxy.control_url}[plane]


def test_the_log_says_what_serves_and_that_the_language_model_is_a_stand_in(proxy: Proxy) -> None:
    [ready] = eventually(lambda: proxy.logged("server.ready"))
    assert set(ready["models"]) == {"control", "candidate", "fallback"}
    assert (ready["flag_source"], ready["share_percent"], ready["is_stand_in"]) == ("file", 5, True)
    [warned] = proxy.logged("arm.stand_in")
    assert warned["level"] == "warning"


def test_the_log_names_flag_server_and_store_without_their_passwords(tmp_path: Path) -> None:
    urls = {"UNLEASH_URL": "http://me:hunter2@127.0.0.1:1/api", "REDIS_URL": "redis://:hunter2@127.0.0.1:1/0"}
    with Proxy(tmp_path, QUICK | urls) as started:
        [ready] = eventually(lambda: started.logged("server.ready"))
        eventually(lambda: started.logged("flag.stale"))
    assert (ready["flag_url"], ready["store"]) == ("http://127.0.0.1:1/api", "redis://127.0.0.1:1/0")
    assert "hunter2" not in started.log.read_text()


def test_no_line_of_the_log_is_anonymous(proxy: Proxy) -> None:
    lines = [json.loads(line) for line in proxy.log.read_text().splitlines()]
    assert [line["event"] for line in lines if " " in line["event"]] == []


@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"RERANK_CANARY__DATA_DIR": "/dev/null/x"}, "$.data_dir"),
        ({"REDIS_URL": "redis://h?socket_timeout=soon"}, "REDIS_URL"),
        ({"UNLEASH_URL": "http://127.0.0.1:1/api", "RERANK_CANARY__FLAG__BOOTSTRAP": "none.json"}, "none.json"),
        ({"RERANK_MODEL": "/no/such/model"}, "/no/such/model"),
        ({"RERANK_MODEL": "some/cross-encoder"}, ".venv/bin/pip install -e '.[torch]'"),
        ({"OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER"),
        ({"RERANK_CANARY__ARMS": "5"}, "$.arms"),
    ],
    ids=lambda v: "+".join(v) if isinstance(v, dict) else "",
)
@pytest.mark.parametrize("command", ["serve", "check-config"])
def test_what_cannot_be_served_is_one_line_and_not_a_traceback(
    tmp_path: Path, command: str, env: dict[str, str], named: str
) -> None:
    ended = serve_until_it_ends(tmp_path, command, **env, COLUMNS="40")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1), ended.stderr
    assert named in ended.stderr


@pytest.mark.parametrize("plane", ["PORT", "CONTROL_PORT"])
def test_a_taken_port_is_named(tmp_path: Path, plane: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = serve_until_it_ends(tmp_path, **{f"RERANK_CANARY__SERVER__{plane}": str(port)})
    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False)
    assert f"cannot listen on 127.0.0.1:{port}" in ended.stderr


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """Return what became of a start with a threshold on the wrong scale, and its folder."""
    folder = tmp_path_factory.mktemp("refused")
    return serve_until_it_ends(folder, LLM_FALLBACK_THRESHOLD="6.5"), folder


def test_a_threshold_that_no_score_can_reach_stops_the_start(
    refused: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    ended, _ = refused
    assert (ended.returncode, "Traceback" in ended.stderr) == (2, False)
    assert "LLM_FALLBACK_THRESHOLD" in ended.stderr
    assert "every request would fall back" in ended.stderr


def test_a_start_that_is_refused_leaves_nothing_running(
    refused: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    _, folder = refused
    assert programs_in(folder / "var/store") == []


def test_switched_off_the_candidate_serves_nobody(tmp_path: Path) -> None:
    write_flag_file(tmp_path / "var/flags.json", "rerank-canary", 100)
    with Proxy(tmp_path, QUICK | {"USE_CROSS_ENCODER": "false"}) as started:
        answers = ask_all(started.url, [f"user-{i}" for i in range(50)])
    assert {(a.status, a.arm, a.served_by, a.reason) for a in answers} == {(200, "control", "control", "switched_off")}


@pytest.mark.parametrize("arm", ["control", "candidate"])
def test_a_tester_with_a_control_token_gets_the_arm_asked_for(proxy: Proxy, arm: str) -> None:
    token = (proxy.folder / "var/control.token").read_text().strip()
    headers = {"x-rerank-force-arm": arm, "x-rerank-control-key": token}
    answers = ask_all(proxy.url, [user_of("control"), user_of("candidate")], headers)
    assert {(a.status, a.arm, a.served_by, a.reason) for a in answers} == {(200, arm, arm, "forced")}


@pytest.mark.parametrize("key", [{}, {"x-rerank-control-key": "rc_wrong"}], ids=["without", "with a wrong"])
def test_nobody_gets_the_arm_asked_for_without_the_control_token(proxy: Proxy, key: dict[str, str]) -> None:
    [answer] = ask_all(proxy.url, ["ann"], {"x-rerank-force-arm": "candidate", **key})
    assert answer.status == 401


def test_half_a_surrogate_in_a_user_id_is_survived(proxy: Proxy) -> None:
    body = b'{"query": "cats", "documents": ["cats"], "user": "a\\ud800"}'
    found = httpx.post(f"{proxy.url}/v1/rerank", content=body, headers={"content-type": "application/json"})
    assert found.status_code in {200, 400}
    assert ask_all(proxy.url, ["ann"])[0].status == 200


def test_a_flag_file_that_changes_under_load_moves_users_and_loses_no_request(tmp_path: Path) -> None:
    file = tmp_path / "var/flags.json"
    write_flag_file(file, "rerank-canary", 0)
    user = user_of("candidate")
    with Proxy(tmp_path, QUICK) as started, Callers(started.url, [user]) as callers:
        eventually(lambda: callers.answers and callers.answers[-1].arm == "control")
        write_flag_file(file, "rerank-canary", 100)
        eventually(lambda: callers.answers[-1].arm == "candidate")
    assert callers.failed == []
