"""The guard on real servers: three proxies over a Redis and an Unleash, an Alertmanager, and a candidate that fails."""

from __future__ import annotations

import hashlib
import hmac
import json
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.conftest import require_part
from tests.integration.flags import new_flag_name
from tests.parts.alertmanager import Alertmanager, is_alertmanager_here
from tests.parts.callers import QUICK, Callers, ask_all
from tests.parts.cross_encoder import CrossEncoderServer, by_words, json_answer
from tests.parts.fleet import Fleet, unleash_env
from tests.parts.http_server import HttpAnswer
from tests.parts.network import Network, are_namespaces_here
from tests.parts.programs import eventually
from tests.parts.prometheus import Prometheus, is_prometheus_here
from tests.parts.receiver import ScriptedReceiver
from tests.parts.redis_server import RedisServer, is_redis_here
from tests.parts.relay import Relay
from tests.parts.unleash import CLIENT_TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import redis

    from tests.parts.unleash import Unleash

USERS = [f"user-{i}" for i in range(400)]
_LATE_SECONDS = 0.75
_BYTES_A_READ = 16 * 1024
"""Of Redis, from a socket."""


def late(body: dict[str, Any]) -> HttpAnswer:
    """Answer right, and slower than the limit of the p95."""
    time.sleep(_LATE_SECONDS)
    return json_answer(by_words(body))


def failing(_: dict[str, Any]) -> HttpAnswer:
    """Answer no ranking."""
    return json_answer({"error": "boom"}, 500)


def wrong(body: dict[str, Any]) -> HttpAnswer:
    """Answer at once, without a fault that anybody could see, and the worst documents first."""
    return json_answer([{**each, "score": -each["score"]} for each in by_words(body)])


def probes(folder: Path) -> Path:
    """Write judged queries that an arm which looks at words ranks right."""
    lines = []
    for number in range(30):
        query = f"topic{number} in question"
        documents = [f"something else {place}" for place in range(8)] + [query, f"more of topic{number}"]
        lines.append(json.dumps({"query": query, "documents": documents, "judgements": {"8": 2, "9": 1}}))
    file = folder / "probes.jsonl"
    file.write_text("\n".join(lines))
    return file


class Site:
    """All servers of one rollout, and who is told."""

    def __init__(self, unleash: Unleash, folder: Path, network: Network | None = None) -> None:
        host = network.address if network else "127.0.0.1"
        self.unleash = unleash
        self.flag = new_flag_name()
        unleash.admin.create_rollout(self.flag, 50)
        self.candidate = CrossEncoderServer(host)
        self.on_call = ScriptedReceiver(HttpAnswer(200))
        self.alertmanager = Alertmanager(folder / "alertmanager", self.on_call.url, host=host)
        self.redis = RedisServer(folder / "redis", *([host] if network else []))
        self.relay = Relay(unleash.url.removesuffix("/api"), host)
        self.folder = folder
        redis_url = f"redis://{host}:{self.redis.port}/0"
        env = unleash_env(unleash, self.flag, redis_url, url=f"{self.relay.url}/api" if network else None)
        self.fleet = Fleet(folder, 3, env | self._env(), prefix=self.flag, network=network)
        targets = [proxy.control_url.removeprefix("http://") for proxy in self.fleet.proxies]
        self.prometheus = Prometheus(folder / "prometheus", targets, self.alertmanager.url)

    def _env(self) -> dict[str, str]:
        return {
            "RERANK_CANARY__GUARD__IS_ON": "true",
            "RERANK_CANARY__BACKENDS__GPT__STAND_IN_DELAY_SECONDS": "0.3",
            "RERANK_CANARY__BACKENDS__CE__KIND": "remote",
            "RERANK_CANARY__BACKENDS__CE__API": "tei",
            "RERANK_CANARY__BACKENDS__CE__BASE_URL": f"http://{self.candidate.server.host}:{self.candidate.server.port}",
            "RERANK_CANARY__ARMS__CANDIDATE": "ce",
            "RERANK_CANARY__FALLBACK__BREAKER_SECONDS": "1",
            "RERANK_CANARY__PROBES__FILE": str(probes(self.folder)),
            "RERANK_CANARY__PROBES__INTERVAL_SECONDS": "0.1",
            "RERANK_CANARY__ALERTS__DASHBOARD_URL": "http://dashboard.example/",
            "RERANK_CANARY__ALERTS__TRACES_URL": "http://traces.example/{trace_id}",
            "RERANK_CANARY__ALERTS__RECEIVERS__ON-CALL__KIND": "alertmanager",
            "RERANK_CANARY__ALERTS__RECEIVERS__ON-CALL__URLS": json.dumps([self.alertmanager.url]),
            "RERANK_CANARY__ALERTS__RECEIVERS__ON-CALL__REPOST_SECONDS": "1",
        }

    def begin(self) -> None:
        """Bring the candidate to half of the users, well."""
        self.candidate.fault = None
        time.sleep(1.5)  # an open breaker would count against a candidate that is well again
        self.fleet.begin_at(50)

    def pages(self, rollback_id: str, status: str = "firing") -> list[dict[str, Any]]:
        """Return what came through Alertmanager of one rollback."""
        return [
            alert
            for body in self.on_call.bodies
            for alert in body["alerts"]
            if alert["labels"].get("incident") == f"rollback:{rollback_id}" and alert["status"] == status
        ]

    def rollback(self) -> dict[str, Any] | None:
        """Return the rollback that holds."""
        found: dict[str, Any] | None = self.fleet.rollout()["latch"]["rollback"]
        return found

    def guard(self, number: int = 0) -> dict[str, Any]:
        found: dict[str, Any] = self.fleet.proxies[number].control("/guard").json()["report"]
        return found

    def in_unleash(self) -> int:
        found = self.unleash.admin.environment(self.flag)
        return int(found["strategies"][0]["parameters"]["rollout"]) if found["enabled"] else 0


@pytest.fixture(scope="module")
def site(unleash: Unleash, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    require_part("redis-server", found=is_redis_here())
    require_part("prometheus-alertmanager", found=is_alertmanager_here())
    require_part("prometheus", found=is_prometheus_here())
    made = Site(unleash, tmp_path_factory.mktemp("guard"))
    with made.candidate.server, made.on_call, made.alertmanager, made.redis, made.fleet, made.prometheus:
        yield made


def wait_for_rollback(site: Site, timeout_seconds: float = 40) -> dict[str, Any]:
    found = eventually(site.rollback, timeout_seconds=timeout_seconds)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("fault", "guardrails"),
    [(late, {"p95"}), (failing, {"errors"}), (wrong, {"probes", "recall"})],
    ids=["late", "failing", "wrong"],
)
def test_a_fault_is_rolled_back_by_evidence_and_pages_once(
    site: Site, fault: Callable[[dict[str, Any]], HttpAnswer], guardrails: set[str]
) -> None:
    site.begin()
    with Callers(site.fleet.proxies[0].url, USERS, threads=6) as callers:
        eventually(lambda: site.guard()["candidate_requests"] > 100, timeout_seconds=60)
        assert site.rollback() is None
        site.candidate.fault = fault
        rollback = wait_for_rollback(site, timeout_seconds=60)
        eventually(lambda: site.pages(rollback["rollback_id"]), timeout_seconds=40)
        site.fleet.wait_until_agreed()
        eventually(lambda: "RerankCanaryRolledBack" in site.prometheus.firing(), timeout_seconds=40)
        site.candidate.fault = None
        time.sleep(1)
        asked = len(callers.answers)
        eventually(lambda: len(callers.answers) > asked + 50, timeout_seconds=40)
        assert {answer.arm for answer in callers.answers[asked:]} == {"control"}
    assert callers.failed == []
    assert site.in_unleash() == 0
    assert rollback["actor"] == "guard"
    evidence = json.loads(rollback["evidence"])
    guardrail = evidence["finding"]["guardrail"]
    assert guardrail in guardrails
    assert evidence["candidate_users"] > 50
    [page] = site.pages(rollback["rollback_id"])
    assert page["labels"]["alertname"] == "RerankCanaryRolledBack"
    assert page["labels"]["severity"] == "critical"
    assert guardrail in page["annotations"]["description"]
    assert page["annotations"]["runbook_url"].endswith("RerankCanaryRolledBack.md")
    site.fleet.order("rearm", reason="mended", force=True)
    eventually(lambda: "RerankCanaryRolledBack" not in site.prometheus.firing(), timeout_seconds=40)
    eventually(lambda: site.pages(rollback["rollback_id"], "resolved"), timeout_seconds=40)
    assert len(site.pages(rollback["rollback_id"])) == 1


def test_a_healthy_candidate_is_left_alone_and_its_guardrails_become_proved(site: Site) -> None:
    site.begin()
    with Callers(site.fleet.proxies[1].url, USERS, threads=6):
        eventually(lambda: passed(site) >= {"p95", "fallbacks"}, timeout_seconds=60)
    assert site.rollback() is None


def passed(site: Site) -> set[str]:
    return {each["guardrail"] for each in site.guard()["findings"] if each["is_passed"]}


def test_every_replica_shows_what_the_leader_found(site: Site) -> None:
    site.begin()
    eventually(lambda: len({site.guard(number)["leader"] for number in range(3)}) == 1)
    done = site.fleet.run("guard", number=2)
    assert done.code == 0
    assert all(name in done.out for name in ("p95_relative", "errors_relative", "fallbacks", "cost"))


def test_the_store_sees_one_round_trip_a_replica_second_with_a_guard(site: Site) -> None:
    site.begin()
    with site.redis.client() as client, Callers(site.fleet.proxies[0].url, USERS, threads=3):
        eventually(lambda: not firing(site), timeout_seconds=120)
        rates = [round_trips_a_replica_second(client) for _ in range(3)]  # what is being told is looked up besides
    assert min(rates) <= 1.1


def round_trips_a_replica_second(client: redis.Redis) -> float:
    """Return the store's reads from sockets, less those that one exchange needs for being long."""
    bytes_of: Counter[tuple[str, int]] = Counter()
    with client.monitor() as monitor:  # type: ignore[no-untyped-call]
        before, began = client.info("stats")["total_reads_processed"], time.monotonic()
        while time.monotonic() < began + 5:
            seen = monitor.next_command()
            if seen["client_type"] == "tcp":  # and not of a script
                bytes_of[seen["client_port"], round(seen["time"])] += len(seen["command"])
        reads = client.info("stats")["total_reads_processed"] - before - 1
        seconds = time.monotonic() - began
    continued = sum(size // _BYTES_A_READ for size in bytes_of.values())
    return float(reads - continued) / seconds / 3


def firing(site: Site) -> list[str]:
    found = site.fleet.proxies[0].control("/alerts").json()["alerts"]
    return [alert["key"] for alert in found if alert["ends_at"] is None]


def test_a_leader_killed_as_it_rolls_back_leaves_one_incident(site: Site) -> None:
    site.begin()
    leader = site.fleet.leader()
    other = (leader + 1) % 3
    with Callers(site.fleet.proxies[other].url, USERS, threads=6):
        eventually(lambda: site.guard(other)["candidate_requests"] > 50, timeout_seconds=30)
        site.candidate.fault = failing
        eventually(lambda: site.fleet.rollout(other)["latch"]["is_set"], timeout_seconds=30, every_seconds=0.01)
        site.fleet.proxies[leader].stop(signal.SIGKILL)
        killed_at = time.monotonic()
        rollback = site.fleet.rollout(other)["latch"]["rollback"]
        eventually(lambda: site.pages(rollback["rollback_id"]), timeout_seconds=40)
        eventually(lambda: site.in_unleash() == 0, timeout_seconds=40)
        assert time.monotonic() - killed_at <= 20
    site.candidate.fault = None
    site.fleet.proxies[leader].start()
    time.sleep(3)
    incidents = {alert["labels"].get("incident", "") for body in site.on_call.bodies for alert in body["alerts"]}
    mine = [each for each in incidents if each.startswith("rollback:") and each.endswith(rollback["rollback_id"])]
    assert len(mine) == 1
    assert len(site.pages(rollback["rollback_id"])) == 1
    rolled = [entry for entry in site.fleet.history() if entry["action"] == "rollback"]
    assert sum(entry["rollback_id"] == rollback["rollback_id"] for entry in rolled) == 1


def test_a_leader_that_slept_past_its_lease_neither_judges_nor_writes_when_it_wakes(site: Site) -> None:
    site.begin()
    leader = site.fleet.leader()
    other = (leader + 1) % 3
    slept = site.guard(leader)["leader"]
    process = site.fleet.proxies[leader].process
    assert process is not None
    with Callers(site.fleet.proxies[other].url, USERS, threads=4) as callers:
        process.send_signal(signal.SIGSTOP)
        try:
            eventually(lambda: site.guard(other)["leader"] != slept, timeout_seconds=40)
        finally:
            process.send_signal(signal.SIGCONT)
        judged = site.guard(other)["at"]
        eventually(lambda: site.guard(other)["at"] > judged + 2, timeout_seconds=40)
        eventually(lambda: site.guard(leader)["leader"] == site.guard(other)["leader"] != slept, timeout_seconds=40)
    assert callers.failed == []
    assert "guard.failed" not in site.fleet.proxies[leader].log.read_text()
    assert site.rollback() is None


def test_a_candidate_that_cannot_be_judged_for_want_of_a_store_is_told_and_not_rolled_back(site: Site) -> None:
    site.begin()
    told = len(site.on_call.requests)
    site.redis.program.freeze()
    try:
        with Callers(site.fleet.proxies[0].url, USERS, threads=2) as callers:
            eventually(lambda: store_alerts(site, told), timeout_seconds=60)
        assert callers.failed == []
        assert "candidate" in {answer.arm for answer in callers.answers[-50:]}
    finally:
        site.redis.program.thaw()
    eventually(lambda: any(each["status"] == "resolved" for each in store_alerts(site, told)), timeout_seconds=30)
    site.fleet.wait_until_agreed(timeout_seconds=30)
    assert site.rollback() is None


def test_a_flag_server_that_hangs_is_told_and_neither_rolls_back_nor_promotes(site: Site) -> None:
    site.begin()
    told = len(site.on_call.requests)
    site.unleash.program.freeze()
    try:
        with Callers(site.fleet.proxies[0].url, USERS, threads=2) as callers:
            eventually(lambda: of_kind(site, "FlagStale", told), timeout_seconds=60)
        assert callers.failed == []
        assert site.guard()["judgement"]["hold"] == "flag_stale"
    finally:
        site.unleash.program.thaw()
    eventually(
        lambda: any(each["status"] == "resolved" for each in of_kind(site, "FlagStale", told)), timeout_seconds=120
    )
    assert site.rollback() is None


def test_who_has_seen_a_page_in_pagerduty_shows_here(site: Site, tmp_path: Path) -> None:
    with ScriptedReceiver(HttpAnswer(202)) as hook:
        env = {**QUICK, "REDIS_URL": site.redis.url}
        for field, value in {"KIND": "pagerduty", "ROUTING_KEY": "r", "URL": hook.url, "WEBHOOK_SECRET": "s3"}.items():
            env[f"RERANK_CANARY__ALERTS__RECEIVERS__PD__{field}"] = value
        env["RERANK_CANARY__ALERTS__RECEIVERS__PD__SEVERITIES"] = '["page", "warning"]'
        with Fleet(tmp_path, 1, env, prefix="seen") as fleet:
            fleet.order("rollback", reason="answers are bad")
            eventually(lambda: hook.bodies, timeout_seconds=40)
            key = hook.bodies[0]["dedup_key"]
            body = json.dumps(
                {
                    "event": {
                        "event_type": "incident.acknowledged",
                        "occurred_at": "2030-01-01T00:00:00Z",
                        "agent": {"summary": "Ada on call"},
                        "data": {"incident_key": key},
                    }
                }
            ).encode()
            url = f"{fleet.proxies[0].control_url}/webhooks/pagerduty/pd"
            forged = httpx.post(url, content=body, headers={"X-PagerDuty-Signature": "v1=00"})
            assert forged.status_code == 401
            signature = "v1=" + hmac.new(b"s3", body, hashlib.sha256).hexdigest()
            assert httpx.post(url, content=body, headers={"X-PagerDuty-Signature": signature}).status_code == 202
            eventually(lambda: "seen by Ada on call" in fleet.run("alert").out, timeout_seconds=40)
            assert httpx.post(url.replace("/pd", "/other"), content=body).status_code == 400


def store_alerts(site: Site, since: int) -> list[dict[str, Any]]:
    return of_kind(site, "StoreAway", since)


def of_kind(site: Site, name: str, since: int) -> list[dict[str, Any]]:
    """Return what the proxies, not Prometheus, told of one kind after so many messages."""
    return [
        alert
        for body in site.on_call.bodies[since:]
        for alert in body["alerts"]
        if alert["labels"]["alertname"] == f"RerankCanary{name}" and "incident" in alert["labels"]
    ]


@pytest.fixture(scope="module")
def apart(unleash: Unleash, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, Network]]:
    """Return a site whose proxies run on hosts of their own, and what cuts them off."""
    require_part("redis-server", found=is_redis_here())
    require_part("prometheus-alertmanager", found=is_alertmanager_here())
    require_part("network namespaces (root, iproute2, iptables)", found=are_namespaces_here())
    with Network(3) as network:
        made = Site(unleash, tmp_path_factory.mktemp("apart"), network)
        with made.candidate.server, made.on_call, made.alertmanager, made.redis, made.relay, made.fleet:
            yield made, network


def test_a_proxy_cut_off_from_the_store_for_longer_than_the_kernel_waits_goes_on_answering(
    apart: tuple[Site, Network],
) -> None:
    site, network = apart
    site.begin()
    alone = site.fleet.proxies[0]
    network.cut(0, site.redis.port)
    try:
        eventually(lambda: alone.control("/status").json()["store"]["error"], timeout_seconds=30)
        for _ in range(5):
            time.sleep(2)  # the kernel gives a silent peer up after six seconds
            assert {answer.status for answer in ask_all(alone.url, USERS[:8])} == {200}
            assert alone.control("/status").json()["store"]["error"]
    finally:
        network.mend(0)
    site.fleet.wait_until_agreed(timeout_seconds=30)


def test_a_leader_cut_off_from_the_store_leaves_one_incident_and_nobody_in_the_candidate(
    apart: tuple[Site, Network],
) -> None:
    site, network = apart
    site.begin()
    leader = site.fleet.leader()
    other = (leader + 1) % 3
    with Callers(site.fleet.proxies[other].url, USERS, threads=6):
        eventually(lambda: site.guard(other)["candidate_requests"] > 50, timeout_seconds=40)
        network.cut(leader, site.redis.port)
        site.candidate.fault = failing
        try:
            rollback = eventually(lambda: site.fleet.rollout(other)["latch"]["rollback"], timeout_seconds=40)
            eventually(lambda: site.pages(rollback["rollback_id"]), timeout_seconds=40)
            eventually(lambda: site.in_unleash() == 0, timeout_seconds=40)
            alone = site.fleet.proxies[leader].url
            eventually(lambda: {each.arm for each in ask_all(alone, USERS[:40])} == {"control"}, timeout_seconds=40)
        finally:
            network.mend(leader)
            site.candidate.fault = None
    site.fleet.wait_until_agreed(timeout_seconds=30)
    only_one_incident(site, rollback["rollback_id"])


def test_a_leader_cut_off_from_alertmanager_tells_it_once_when_it_is_back(apart: tuple[Site, Network]) -> None:
    site, network = apart
    site.begin()
    port = int(site.alertmanager.url.rpartition(":")[2])
    for number in range(3):
        network.cut(number, port)
    try:
        site.fleet.order("rollback", reason="answers are bad")
        rollback = wait_for_rollback(site)
        eventually(lambda: site.in_unleash() == 0, timeout_seconds=40)
        eventually(lambda: "try" in site.fleet.run("alert").out, timeout_seconds=40)
        assert site.pages(rollback["rollback_id"]) == []
    finally:
        for number in range(3):
            network.mend(number)
    eventually(lambda: site.pages(rollback["rollback_id"]), timeout_seconds=40)
    only_one_incident(site, rollback["rollback_id"])


def only_one_incident(site: Site, rollback_id: str) -> None:
    """Wait for what could still come, and see one page and one entry in the trail."""
    time.sleep(3)
    assert len(site.pages(rollback_id)) == 1
    rolled = [entry["rollback_id"] for entry in site.fleet.history() if entry["action"] == "rollback"]
    assert rolled.count(rollback_id) == 1


def test_an_admin_token_without_rights_leaves_the_latch_and_tells_on_call_what_to_do_by_hand(
    site: Site, tmp_path: Path
) -> None:
    flag = new_flag_name()
    strategy = site.unleash.admin.create_rollout(flag, 50)
    with ScriptedReceiver(HttpAnswer(200)) as hook:
        env = unleash_env(site.unleash, flag, site.redis.url) | {
            "UNLEASH_ADMIN_TOKEN": CLIENT_TOKEN,
            "RERANK_CANARY__ALERTS__RECEIVERS__HOOK__KIND": "webhook",
            "RERANK_CANARY__ALERTS__RECEIVERS__HOOK__URL": hook.url,
            "RERANK_CANARY__ALERTS__RECEIVERS__HOOK__SECRET": "shared",
        }
        with Fleet(tmp_path, 1, env, prefix=flag) as fleet:
            fleet.order("rollback", reason="answers are bad")
            eventually(lambda: by_kind(hook, "flag_not_written", "firing"), timeout_seconds=30)
            [told] = by_kind(hook, "flag_not_written", "firing")
            assert told["severity"] == "page"
            assert f"Set {flag} to 0 % in Unleash by hand" in dict(told["facts"])["Next"]
            answers = ask_all(fleet.proxies[0].url, USERS[:50])
            assert {answer.arm for answer in answers} == {"control"}
            site.unleash.admin.patch_percent(flag, strategy, 0, was=50)
            site.unleash.admin.switch(flag, "off")
            eventually(lambda: by_kind(hook, "flag_not_written", "resolved"), timeout_seconds=30)
        assert len(by_kind(hook, "rolled_back", "firing")) >= 1
        keys = {told["key"] for told in by_kind(hook, "rolled_back", "firing")}
        assert len(keys) == 1


def by_kind(hook: ScriptedReceiver, kind: str, status: str) -> list[dict[str, Any]]:
    """Return what a webhook was told of one kind."""
    return [body for body in hook.bodies if body["kind"] == kind and body["status"] == status]


def test_a_test_message_reaches_every_receiver_or_says_which_it_does_not(site: Site, tmp_path: Path) -> None:
    with ScriptedReceiver(HttpAnswer(200)) as good, ScriptedReceiver(HttpAnswer(500)) as bad:
        env = {**QUICK, "REDIS_URL": site.redis.url, "RERANK_CANARY__STORE__PREFIX": "told"}
        for name, hook in (("GOOD", good), ("BAD", bad)):
            env |= {
                f"RERANK_CANARY__ALERTS__RECEIVERS__{name}__KIND": "webhook",
                f"RERANK_CANARY__ALERTS__RECEIVERS__{name}__URL": hook.url,
                f"RERANK_CANARY__ALERTS__RECEIVERS__{name}__SECRET": "shared",
            }
        with Fleet(tmp_path, 1, env, prefix="told") as fleet:
            done = fleet.run("alert", "--test")
            assert done.code == 1
            assert "good (webhook: info, page, warning)  told in" in done.out
            assert "HTTP 500" in done.out
            assert fleet.run("alert", "--test", actor="vera").code == 4
    assert [body["status"] for body in good.bodies] == ["firing", "resolved"]
