"""The outbox on a real Redis: what is put there is told, whoever dies on the way."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from redis.exceptions import RedisError
from structlog.testing import capture_logs

from alerts.alert import Alert, Severity
from alerts.delivery import Delivery, DeliverySettings, claimed, delivery_id
from alerts.notifiers.base import Acknowledgement, NotDelivered
from alerts.notifiers.pagerduty import PagerDuty
from alerts.notifiers.slack import Slack
from alerts.notifiers.webhook import Webhook
from alerts.outbox import Dispatcher, Outbox
from flags.store import connect
from tests.conftest import require_part
from tests.parts.http_server import HttpAnswer
from tests.parts.programs import Program, eventually
from tests.parts.receiver import ScriptedReceiver
from tests.parts.redis_server import RedisServer, is_redis_here
from tests.running import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from pathlib import Path

    from redis.asyncio import Redis

    from alerts.notifiers.base import Notifier

pytestmark = pytest.mark.part("redis")
NOW = 1_700_000_000.0
TOKEN = "T0KEN-of-the-tests"
SETTINGS = DeliverySettings(timeout_seconds=0.5)


def alert(key: str = "rollback:7", **fields: Any) -> Alert:
    given: dict[str, Any] = {
        "key": key,
        "kind": "rollback",
        "severity": Severity.PAGE,
        "flag": "rerank-canary",
        "title": "The candidate was rolled back.",
        "starts_at": NOW,
    }
    return Alert(**(given | fields))


class Recorder:
    """A receiver in this process, which takes what it is told or fails as planted."""

    takes_updates = False
    repost_seconds = None
    severities = tuple(Severity)

    def __init__(self, name: str = "recorder", fault: Exception | None = None) -> None:
        self.name = name
        self.fault = fault
        self.heard: list[Alert] = []

    async def send(self, alert: Alert) -> None:
        await asyncio.sleep(0)
        if self.fault is not None:
            raise self.fault
        self.heard.append(alert)

    @property
    def keys(self) -> list[str]:
        return [alert.key for alert in self.heard]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    require_part("redis-server", found=is_redis_here())
    with RedisServer(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[Redis]:
    async with connect(server.url, 2.0) as client:
        await client.flushall()
        yield client


@pytest.fixture
def outbox(store: Redis) -> Outbox:
    return Outbox(store, "rc")


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(timeout=60) as client:
        yield client


@pytest.fixture
def receiver() -> Iterator[ScriptedReceiver]:
    with ScriptedReceiver(HttpAnswer(202)) as started:
        yield started


async def tell(outbox: Outbox, notifiers: Sequence[Notifier], now: float = NOW, **fields: Any) -> Counter[Any]:
    """Do what is due once, to its end, and return the deliveries by receiver and outcome."""
    counted: Counter[Any] = Counter()
    dispatcher = Dispatcher(
        outbox, notifiers, SETTINGS, on_delivery=lambda name, outcome: counted.update([(name, outcome)]), **fields
    )
    await dispatcher.once(now)
    await dispatcher.close()
    return counted


async def delivery(outbox: Outbox, receiver: str, key: str = "rollback:7") -> Delivery:
    _, deliveries = await outbox.all()
    return deliveries[delivery_id(receiver, key)]


async def test_only_news_is_put(outbox: Outbox) -> None:
    assert await outbox.put(alert(version=2))
    assert not await outbox.put(alert(version=2, title="Another leader's word"))
    assert not await outbox.put(alert(version=1))
    over = alert(version=2).ended(NOW + 60)
    assert await outbox.put(over)
    assert (await outbox.all())[0] == {"rollback:7": over}


async def test_all_that_is_kept_lies_under_one_hash_tag(outbox: Outbox, store: Redis) -> None:
    await outbox.put(alert())
    await tell(outbox, [Recorder()])
    assert sorted(await store.keys()) == ["{rc}:alerts", "{rc}:deliveries"]


async def test_what_cannot_be_read_keeps_nothing_else_from_being_told(outbox: Outbox, store: Redis) -> None:
    await store.hset("{rc}:alerts", "rollback:6", "{garbage")
    await store.hset("{rc}:deliveries", "recorder|rollback:7", "[]")
    await outbox.put(alert())
    recorder = Recorder()
    with capture_logs() as lines:
        await tell(outbox, [recorder])
    assert {line["key"] for line in lines if line["event"] == "outbox.unreadable"} == {
        "rollback:6",
        "recorder|rollback:7",
    }
    assert recorder.keys == ["rollback:7"]
    assert await outbox.put(alert("rollback:6"))


async def test_of_two_who_claim_a_delivery_one_gets_it(outbox: Outbox) -> None:
    claim = claimed(Delivery(receiver="pager", alert_key="rollback:7"), NOW, SETTINGS)
    assert [await outbox.save(claim), await outbox.save(claim)] == [True, False]


async def test_two_leaders_at_once_tell_everything_once(server: RedisServer, outbox: Outbox) -> None:
    keys = [f"rollback:{number}" for number in range(12)]
    for key in keys:
        await outbox.put(alert(key))
    chat = Recorder()
    async with connect(server.url, 2.0) as other:
        second = Outbox(other, "rc")
        leaders = [Dispatcher(one, [chat], SETTINGS) for one in (outbox, second, outbox)]
        for _ in range(6):
            await asyncio.gather(*(leader.once(NOW) for leader in leaders))
    assert sorted(chat.keys) == sorted(keys)


_LEADER = """
import asyncio, sys, time
import httpx
from alerts.delivery import DeliverySettings
from alerts.notifiers.pagerduty import PagerDuty
from alerts.outbox import Dispatcher, Outbox
from flags.store import connect

async def main():
    notifier = PagerDuty("pager", "routing-key", httpx.AsyncClient(), url=sys.argv[2])
    await Dispatcher(Outbox(connect(sys.argv[1], 2.0), "rc"), [notifier], DeliverySettings()).once(time.time())
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_leader_killed_before_it_noted_the_answer_is_followed_by_one_who_tells_it_under_the_same_key(
    server: RedisServer, outbox: Outbox, receiver: ScriptedReceiver, http: httpx.AsyncClient, tmp_path: Path
) -> None:
    await outbox.put(alert())
    receiver.hang()
    command = [sys.executable, "-c", _LEADER, server.url, receiver.url]
    with Program(command, log=tmp_path / "log", env={"PYTHONPATH": str(ROOT)}) as leader:
        await asyncio.to_thread(eventually, lambda: receiver.requests)
        leader.stop(signal.SIGKILL)
    receiver.mend()
    pager = PagerDuty("pager", "routing-key", http, url=receiver.url)
    assert await tell(outbox, [pager], time.time()) == {}  # it may still be on its way
    assert await tell(outbox, [pager], time.time() + 11) == {("pager", "delivered"): 1}
    assert [body["dedup_key"] for body in receiver.bodies] == ["rollback:7"] * 2
    assert await tell(outbox, [pager], time.time() + 60) == {}


async def test_a_redis_that_is_killed_and_started_again_loses_nothing(server: RedisServer, outbox: Outbox) -> None:
    await outbox.put(alert())
    await outbox.put(alert("rollback:8"))
    pager, chat = Recorder("pager"), Recorder("chat", NotDelivered("HTTP 500"))
    await tell(outbox, [pager, chat])
    before = await outbox.all()
    server.program.stop(signal.SIGKILL)
    with pytest.raises((RedisError, OSError)):
        await tell(outbox, [pager, chat], NOW + 5)
    server.start()
    assert await outbox.all() == before
    chat.fault = None
    counted = await tell(outbox, [pager, chat], NOW + 5)
    counted += await tell(outbox, [pager, chat], NOW + 6)  # connections of before the restart fail once
    assert counted == {("chat", "delivered"): 2}


async def test_what_was_sent_while_redis_went_away_is_sent_again(
    server: RedisServer, outbox: Outbox, receiver: ScriptedReceiver, http: httpx.AsyncClient
) -> None:
    await outbox.put(alert())
    pager = PagerDuty("pager", "routing-key", http, url=receiver.url)
    dispatcher = Dispatcher(outbox, [pager], DeliverySettings())
    receiver.hang()
    await dispatcher.once(NOW)
    server.program.stop(signal.SIGKILL)
    receiver.mend()
    with capture_logs() as lines:
        await dispatcher.close()
    assert "alert.not_saved" in {line["event"] for line in lines}
    server.start()
    assert await tell(outbox, [pager], NOW + 11) == {("pager", "delivered"): 1}
    assert [body["dedup_key"] for body in receiver.bodies] == ["rollback:7"] * 2


async def test_one_who_never_answers_delays_no_other(
    outbox: Outbox, receiver: ScriptedReceiver, http: httpx.AsyncClient
) -> None:
    receiver.hang()
    recorder = Recorder()
    pager = PagerDuty("pager", "routing-key", http, url=receiver.url)
    dispatcher = Dispatcher(outbox, [pager, recorder], DeliverySettings(timeout_seconds=30))
    for number in range(6):
        await outbox.put(alert(f"rollback:{number}"))
        began = time.monotonic()
        await dispatcher.once(NOW)
        assert time.monotonic() - began < 2
        assert len(recorder.keys) == number + 1
    assert len(receiver.requests) == 4  # so many at once and no more
    receiver.mend()
    await dispatcher.close()
    await dispatcher.once(NOW)
    await dispatcher.close()
    await dispatcher.once(NOW)
    await dispatcher.close()
    assert sorted(body["dedup_key"] for body in receiver.bodies) == [f"rollback:{number}" for number in range(6)]


async def test_no_answer_in_time_is_a_failure(
    outbox: Outbox, receiver: ScriptedReceiver, http: httpx.AsyncClient
) -> None:
    receiver.hang()
    await outbox.put(alert())
    pager = PagerDuty("pager", "routing-key", http, url=receiver.url)
    assert await tell(outbox, [pager]) == {("pager", "failed"): 1}
    assert (await delivery(outbox, "pager")).last_error == "no answer in time"


async def test_what_one_refuses_is_told_to_the_others_until_it_is_taken(
    outbox: Outbox, receiver: ScriptedReceiver, http: httpx.AsyncClient
) -> None:
    receiver.always = HttpAnswer(400)
    await outbox.put(alert())
    pager = PagerDuty("pager", "routing-key", http, url=receiver.url)
    chat = Recorder("chat")
    assert await tell(outbox, [pager, chat]) == {("pager", "given_up"): 1, ("chat", "delivered"): 1}
    assert await tell(outbox, [pager, chat], NOW + 1) == {("chat", "delivered"): 1}
    assert chat.keys == ["rollback:7", "undelivered:rerank-canary:pager"]
    receiver.always = HttpAnswer(202)
    assert await tell(outbox, [pager, chat], NOW + 901) == {("pager", "delivered"): 1}
    await tell(outbox, [pager, chat], NOW + 902)
    assert [(one.key, one.is_over) for one in chat.heard[1:]] == [
        ("undelivered:rerank-canary:pager", False),
        ("undelivered:rerank-canary:pager", True),
    ]


async def test_a_receiver_that_is_down_for_long_is_given_up_and_the_others_hear_of_it(outbox: Outbox) -> None:
    pager, chat = Recorder("pager", NotDelivered("HTTP 503")), Recorder("chat")
    await outbox.put(alert())
    counted: Counter[Any] = Counter()
    for turn in range(1, 2000):
        counted += await tell(outbox, [pager, chat], NOW + turn, jitter=lambda: 1.0)
    assert counted == {("pager", "failed"): 47, ("pager", "given_up"): 1, ("chat", "delivered"): 2}
    assert chat.keys == ["rollback:7", "undelivered:rerank-canary:pager"]


async def test_a_receiver_that_is_throttled_is_asked_again_when_it_said(
    outbox: Outbox, receiver: ScriptedReceiver, http: httpx.AsyncClient
) -> None:
    receiver.next(HttpAnswer(429, headers={"retry-after": "30"}), HttpAnswer(500))
    await outbox.put(alert())
    chat = Slack("chat", receiver.url, http)
    outcomes = [await tell(outbox, [chat], NOW + after) for after in (0, 29, 31, 60)]
    assert outcomes == [{("chat", "failed"): 1}, {}, {("chat", "failed"): 1}, {("chat", "delivered"): 1}]


async def test_a_fault_in_a_notifier_is_a_failure_without_its_words(outbox: Outbox) -> None:
    await outbox.put(alert())
    broken, chat = Recorder("broken", KeyError(TOKEN)), Recorder("chat")
    with capture_logs() as lines:
        assert await tell(outbox, [broken, chat]) == {("broken", "failed"): 1, ("chat", "delivered"): 1}
    assert (await delivery(outbox, "broken")).last_error == "a fault of our own (KeyError)"
    assert TOKEN not in str(lines)


@pytest.mark.parametrize("answer", [202, 400, 500])
async def test_no_secret_is_logged_or_kept(
    outbox: Outbox, store: Redis, receiver: ScriptedReceiver, http: httpx.AsyncClient, answer: int
) -> None:
    receiver.always = HttpAnswer(answer, TOKEN.encode())
    notifiers: list[Notifier] = [
        PagerDuty("pager", TOKEN, http, url=receiver.url),
        Slack("chat", f"{receiver.url}/{TOKEN}", http),
        Webhook("hook", f"{receiver.url}/{TOKEN}", TOKEN, http),
        Slack("gone", f"http://127.0.0.1:1/{TOKEN}", http),
        Slack("wrong", f"nonsense://{TOKEN}", http),
    ]
    await outbox.put(alert())
    with capture_logs() as lines:
        await tell(outbox, notifiers)
    assert len(lines) == 5
    kept = await store.hgetall("{rc}:deliveries")
    assert TOKEN not in str(lines) + str(kept) + repr(notifiers)


async def test_who_saw_a_page_is_kept(outbox: Outbox) -> None:
    seen = Acknowledgement("rollback:7", "Ada", NOW + 30, is_closed=False)
    await outbox.put(alert())
    assert not await outbox.acknowledge("pager", seen)
    await tell(outbox, [Recorder("pager")])
    assert await outbox.acknowledge("pager", seen)
    assert await outbox.acknowledge("pager", seen)
    found = await delivery(outbox, "pager")
    assert (found.acknowledged_by, found.acknowledged_at, found.told_at) == ("Ada", NOW + 30, found.delivered_at)


async def test_what_is_over_is_forgotten_with_its_deliveries_after_a_day(outbox: Outbox, store: Redis) -> None:
    recorder = Recorder()
    await outbox.put(alert())
    await outbox.put(alert("hold:1", severity=Severity.WARNING))
    await tell(outbox, [recorder])
    await outbox.put(alert().ended(NOW + 10))
    await tell(outbox, [recorder], NOW + 10)
    await tell(outbox, [recorder], NOW + 86_000)
    assert "rollback:7" in (await outbox.all())[0]
    await tell(outbox, [recorder], NOW + 86_411)
    assert await store.hkeys("{rc}:alerts") == ["hold:1"]
    assert await store.hkeys("{rc}:deliveries") == ["recorder|hold:1"]


async def test_what_began_again_is_not_forgotten(outbox: Outbox) -> None:
    over = alert().ended(NOW)
    await outbox.put(over)
    await outbox.put(alert(version=3))
    assert not await outbox.forget(over, [])
    assert set((await outbox.all())[0]) == {"rollback:7"}
