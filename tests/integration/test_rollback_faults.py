"""A rollback while somebody dies, sleeps or is cut off, at each of its steps: one record, nobody left inside.

The proxies run on hosts of their own (network namespaces). The steps are held open by a store that sleeps
(the record cannot be written) and by a relay that lets no change of the flag through.
"""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import pytest

from tests.conftest import require_part
from tests.integration.flags import new_flag_name
from tests.parts.callers import ask_all
from tests.parts.fleet import Fleet, unleash_env
from tests.parts.network import Network, are_namespaces_here
from tests.parts.programs import eventually
from tests.parts.redis_server import RedisServer, is_redis_here
from tests.parts.relay import Relay

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from tests.parts.unleash import Unleash

Party = Literal["decider", "leader", "follower", "redis", "unleash"]
Fault = Literal["kill", "stop", "cut"]
Step = Literal["decided", "stored", "written"]
USERS = [f"user-{i}" for i in range(30)]


class Site:
    """Three proxies on three hosts, a Redis and an Unleash; at 100 % before each test."""

    def __init__(self, unleash: Unleash, network: Network, folder: Path) -> None:
        self.network = network
        self.unleash = unleash
        self.flag = new_flag_name()
        unleash.admin.create_rollout(self.flag, 100)
        self.relay = Relay(unleash.url.removesuffix("/api"), network.address)
        self.redis = RedisServer(folder / "redis", network.address)
        redis_url = f"redis://{network.address}:{self.redis.port}/0"
        env = unleash_env(unleash, self.flag, redis_url, url=f"{self.relay.url}/api")
        self.fleet = Fleet(folder, 3, env, prefix=self.flag, network=network)
        self.ports = (self.redis.port, int(self.relay.url.rpartition(":")[2]))

    def reset(self) -> None:
        """Bring everybody in again."""
        self.fleet.begin_at(100)

    def roles(self) -> dict[str, int]:
        """Return who is who: the decider does not lead, so that they can fail apart."""
        leader = self.fleet.leader()
        decider, follower = (number for number in range(3) if number != leader)
        return {"leader": leader, "decider": decider, "follower": follower}

    def cut(self, numbers: Iterable[int], *ports: int) -> None:
        for number in numbers:
            self.network.cut(number, *ports)

    def mend(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self.network.mend(number)

    def in_unleash(self) -> int:
        found = self.unleash.admin.environment(self.flag)
        return int(found["strategies"][0]["parameters"]["rollout"]) if found["enabled"] else 0


@pytest.fixture(scope="module")
def site(unleash: Unleash, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    require_part("redis-server", found=is_redis_here())
    require_part("network namespaces (root, iproute2, iptables)", found=are_namespaces_here())
    with Network(3) as network:
        made = Site(unleash, network, tmp_path_factory.mktemp("site"))
        with made.relay, made.redis, made.fleet:
            yield made


class Breakage:
    """One fault of one party, which can be ended."""

    def __init__(self, site: Site, party: Party, number: int, fault: Fault) -> None:
        self._site, self._party, self._number, self._fault = site, party, number, fault

    def begin(self) -> None:
        self._steps()[0]()

    def end(self) -> None:
        self._steps()[1]()

    def _steps(self) -> tuple[Callable[[], object], Callable[[], object]]:
        """Return how it begins and how it ends."""
        site, all_hosts = self._site, range(3)
        redis_port, unleash_port = site.ports
        if self._party == "redis":
            return {
                "kill": (lambda: site.redis.program.stop(signal.SIGKILL), site.redis.start),
                "stop": (site.redis.program.freeze, site.redis.program.thaw),
                "cut": (lambda: site.cut(all_hosts, redis_port), lambda: site.mend(all_hosts)),
            }[self._fault]
        if self._party == "unleash":
            return {
                "kill": (site.relay.stop, site.relay.start),
                "stop": (site.relay.hang, site.relay.mend),
                "cut": (lambda: site.cut(all_hosts, unleash_port), lambda: site.mend(all_hosts)),
            }[self._fault]
        process, proxy = self._process, site.fleet.proxies[self._number]
        return {
            "kill": (lambda: proxy.stop(signal.SIGKILL), proxy.start),
            "stop": (lambda: process.send_signal(signal.SIGSTOP), lambda: process.send_signal(signal.SIGCONT)),
            "cut": (lambda: site.cut([self._number], *site.ports), lambda: site.mend([self._number])),
        }[self._fault]

    @property
    def _process(self) -> subprocess.Popen[bytes]:
        process = self._site.fleet.proxies[self._number].process
        assert process is not None
        return process


def rollbacks_since(history: list[dict[str, object]], version: int) -> list[object]:
    """Return the ids of the rollbacks in the trail after a version."""
    return [e["rollback_id"] for e in history if e["action"] == "rollback" and int(str(e["version"])) > version]


@pytest.mark.parametrize("step", ["decided", "stored", "written"])
@pytest.mark.parametrize("fault", ["kill", "stop", "cut"])
@pytest.mark.parametrize("party", ["decider", "leader", "follower", "redis", "unleash"])
def test_a_rollback_holds_whoever_fails_whenever(site: Site, party: Party, fault: Fault, step: Step) -> None:
    site.reset()
    roles = site.roles()
    reason = f"{party} {fault} {step}"
    before = site.fleet.rollout()["record_version"]
    breakage = Breakage(site, party, roles.get(party, 0), fault)
    order = Order(site, roles["decider"], reason)
    with held_at(step, site, party, breakage):
        order.give()
        answers = ask_all(site.fleet.proxies[roles["decider"]].url, USERS)
        assert {answer.arm for answer in answers} == {"control"}, "the decider lets nobody in from that moment"
        order.wait_for(step, before)
        if not (step == "decided" and party == "redis"):
            breakage.begin()
    time.sleep(1.0)
    breakage.end()
    site.relay.mend()
    order.wait()
    if fault == "stop":  # one that wakes up lets nobody in from its first request on
        arms = {answer.arm for proxy in site.fleet.proxies for answer in ask_all(proxy.url, USERS[:5])}
        assert arms == {"control"}
    found = site.fleet.wait_until_agreed(timeout_seconds=30)
    assert found["latch"]["is_set"]
    assert found["latch"]["rollback"]["reason"] == reason
    assert site.in_unleash() == 0
    assert len(rollbacks_since(site.fleet.history(), before)) == 1
    for proxy in site.fleet.proxies:
        assert {answer.arm for answer in ask_all(proxy.url, USERS)} == {"control"}


class Order:
    """A rollback that an operator orders, in the background."""

    def __init__(self, site: Site, decider: int, reason: str) -> None:
        self._site, self._decider = site, decider
        command = ("rollback", "--reason", reason, "--yes")
        self._thread = threading.Thread(target=site.fleet.run, args=command, kwargs={"number": decider})

    def give(self) -> None:
        """Order it, and wait until the decider holds its latch."""
        self._thread.start()
        eventually(lambda: self._site.fleet.rollout(self._decider)["latch"]["is_set"])

    def wait_for(self, step: Step, version: int) -> None:
        """Wait until a step is done."""
        if step == "stored":
            eventually(lambda: rollbacks_since(self._site.fleet.history(self._decider), version))
        elif step == "written":
            eventually(lambda: self._site.in_unleash() == 0)

    def wait(self) -> None:
        self._thread.join(60)


@contextmanager
def held_at(step: Step, site: Site, party: Party, breakage: Breakage) -> Iterator[None]:
    """Keep what comes after *step* from happening until the fault is there."""
    if step == "decided" and party == "redis":
        breakage.begin()
        yield
    elif step == "decided":
        site.redis.program.freeze()  # the record cannot be written
        yield
        site.redis.program.thaw()
    elif step == "stored":
        site.relay.hang_changes()  # the flag cannot be
        yield
        if party != "unleash":
            site.relay.mend()
    else:
        yield
