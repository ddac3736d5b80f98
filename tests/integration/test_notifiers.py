"""Notifiers against a real Alertmanager, and against receivers that answer as the real ones do on bad days."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest

from alerts.alert import Alert, Severity
from alerts.notifiers.alertmanager import Alertmanager
from alerts.notifiers.base import NotDelivered
from alerts.notifiers.http import new_client
from alerts.notifiers.pagerduty import PagerDuty
from alerts.notifiers.slack import Slack
from alerts.notifiers.webhook import Webhook
from tests.conftest import require_part
from tests.parts import alertmanager
from tests.parts.http_server import HttpAnswer
from tests.parts.programs import eventually
from tests.parts.receiver import GARBAGE, ScriptedReceiver

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

    import httpx

    from alerts.notifiers.base import Notifier

SECRET = "secret-of-the-tests"


def alert(**fields: Any) -> Alert:
    given: dict[str, Any] = {
        "key": "rollback:7",
        "kind": "rollback",
        "severity": Severity.PAGE,
        "flag": "rerank-canary",
        "title": "The candidate was rolled back.",
        "starts_at": time.time(),
        "facts": (("Evidence", "p95 is 312 ms, the limit is 150 ms"),),
        "links": (("dashboard", "https://grafana.example/d/1"), ("runbook", "https://docs.example/rollback")),
    }
    return Alert(**(given | fields))


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with new_client() as client:
        yield client


@pytest.fixture
def receiver() -> Iterator[ScriptedReceiver]:
    with ScriptedReceiver(HttpAnswer(202, b"ok")) as started:
        yield started


@pytest.fixture
def make_alertmanager(receiver: ScriptedReceiver, tmp_path: Path) -> Iterator[Callable[..., alertmanager.Alertmanager]]:
    """Return a maker of Alertmanagers that tell *receiver*."""
    require_part("Alertmanager and amtool", found=alertmanager.is_alertmanager_here())
    made: list[alertmanager.Alertmanager] = []

    def make(**fields: str) -> alertmanager.Alertmanager:
        server = alertmanager.Alertmanager(tmp_path / str(len(made)), receiver.url, **fields)
        made.append(server)
        server.start()
        return server

    yield make
    for server in made:
        server.program.stop()


def statuses(receiver: ScriptedReceiver) -> list[str]:
    """Return what came out of Alertmanager, one word an alert."""
    return [one["status"] for body in receiver.bodies for one in body["alerts"]]


@pytest.mark.part("alertmanager")
async def test_one_incident_comes_out_of_alertmanager_however_often_it_is_posted(
    make_alertmanager: Callable[..., alertmanager.Alertmanager], receiver: ScriptedReceiver, http: httpx.AsyncClient
) -> None:
    server = make_alertmanager()
    replicas = [Alertmanager("am", [server.url], http, labels={"team": "search"}) for _ in range(3)]
    first = alert()
    for _ in range(3):
        await asyncio.gather(*(replica.send(first) for replica in replicas))
    await asyncio.to_thread(eventually, lambda: statuses(receiver) == ["firing"])
    await replicas[0].send(alert(title="It got worse.", starts_at=first.starts_at, version=2))
    assert len(server.alerts()) == 1
    await replicas[1].send(first.ended(time.time()))
    await asyncio.to_thread(eventually, lambda: statuses(receiver)[-1] == "resolved")
    assert statuses(receiver) == ["firing", "resolved"]
    told = receiver.bodies[0]["alerts"][0]
    assert told["labels"] == {
        "alertname": "RerankCanaryRollback",
        "severity": "critical",
        "flag": "rerank-canary",
        "incident": "rollback:7",
        "team": "search",
    }
    assert told["annotations"]["runbook_url"] == "https://docs.example/rollback"
    assert told["generatorURL"] == "https://grafana.example/d/1"


@pytest.mark.part("alertmanager")
async def test_an_alert_lasts_while_it_is_posted_and_ends_with_its_guard(
    make_alertmanager: Callable[..., alertmanager.Alertmanager], receiver: ScriptedReceiver, http: httpx.AsyncClient
) -> None:
    server = make_alertmanager(resolve_timeout="1s")
    notifier = Alertmanager("am", [server.url], http)
    lasting = alert()
    until = time.monotonic() + 3
    while time.monotonic() < until:
        await notifier.send(lasting)
        await asyncio.sleep(0.2)
    assert statuses(receiver) == ["firing"]
    await asyncio.to_thread(eventually, lambda: statuses(receiver) == ["firing", "resolved"])


@pytest.mark.part("alertmanager")
def test_amtool_has_nothing_against_the_configuration_of_the_tests(
    make_alertmanager: Callable[..., alertmanager.Alertmanager],
) -> None:
    assert "SUCCESS" in make_alertmanager().check_config()


@pytest.mark.part("alertmanager")
async def test_alertmanager_takes_whatever_an_alert_says(
    make_alertmanager: Callable[..., alertmanager.Alertmanager], http: httpx.AsyncClient
) -> None:
    server = make_alertmanager()
    odd = alert(
        key="hold:ü|\n" + "x" * 240,
        title="",
        facts=(("", ""), ("é\x00", "<&>" * 5000)),
        links=(("dashboard", "no url at all"), ("runbook", "https://a b")),
    )
    await Alertmanager("am", [server.url], http).send(odd)
    assert [one["labels"]["incident"] for one in server.alerts()] == [odd.key]
    await Alertmanager("am", [server.url], http).send(odd.ended(odd.starts_at - 60))


async def test_an_alert_taken_by_one_of_a_cluster_is_delivered_and_all_are_told(
    receiver: ScriptedReceiver, http: httpx.AsyncClient
) -> None:
    with ScriptedReceiver(HttpAnswer(500)) as second, ScriptedReceiver(HttpAnswer(200)) as hangs:
        hangs.hang()
        urls = [second.url, "http://127.0.0.1:1", hangs.url, f"{receiver.url}/prefix/"]
        headers = {"Authorization": f"Bearer {SECRET}"}
        await Alertmanager("am", urls, http, headers=headers, member_timeout_seconds=0.5).send(alert())
        assert [len(one.requests) for one in (receiver, second, hangs)] == [1, 1, 1]
    assert receiver.requests[0].path == "/prefix/api/v2/alerts"
    assert receiver.requests[0].headers["authorization"] == f"Bearer {SECRET}"


async def test_an_alert_taken_by_none_of_a_cluster_is_not_delivered(
    receiver: ScriptedReceiver, http: httpx.AsyncClient
) -> None:
    receiver.always = HttpAnswer(400)
    both = Alertmanager("am", [receiver.url, "http://127.0.0.1:1"], http)
    with pytest.raises(NotDelivered, match=r"HTTP 400, no connection \(ConnectError\)") as found:
        await both.send(alert())
    assert not found.value.is_final
    with pytest.raises(NotDelivered) as found:
        await Alertmanager("am", [receiver.url] * 2, http).send(alert())
    assert found.value.is_final


async def test_pagerduty_is_told_of_the_beginning_and_the_end_under_one_key(
    receiver: ScriptedReceiver, http: httpx.AsyncClient
) -> None:
    notifier = PagerDuty("pager", SECRET, http, url=receiver.url)
    await notifier.send(alert())
    await notifier.send(alert().ended(time.time()))
    assert {request.path for request in receiver.requests} == {"/v2/enqueue"}
    assert [(body["routing_key"], body["event_action"], body["dedup_key"]) for body in receiver.bodies] == [
        (SECRET, "trigger", "rollback:7"),
        (SECRET, "resolve", "rollback:7"),
    ]


async def test_slack_is_told_of_the_beginning_and_the_end(receiver: ScriptedReceiver, http: httpx.AsyncClient) -> None:
    receiver.always = HttpAnswer(200, b"ok")
    notifier = Slack("chat", f"{receiver.url}/services/T/B/x", http)
    await notifier.send(alert())
    await notifier.send(alert().ended(time.time()))
    assert [body["text"] for body in receiver.bodies] == [
        "[page] The candidate was rolled back.",
        "[over] The candidate was rolled back.",
    ]
    assert receiver.requests[0].headers["content-type"] == "application/json"


async def test_whoever_has_the_secret_can_verify_a_webhook(receiver: ScriptedReceiver, http: httpx.AsyncClient) -> None:
    await Webhook("hook", receiver.url, SECRET, http).send(alert())
    (request,) = receiver.requests
    timestamp = request.headers["x-rerank-canary-timestamp"]
    digest = hmac.new(SECRET.encode(), timestamp.encode() + b"." + request.body, hashlib.sha256).hexdigest()
    assert request.headers["x-rerank-canary-signature"] == f"v1={digest}"
    assert abs(time.time() - int(timestamp)) < 60


Make: TypeAlias = "Callable[[str, httpx.AsyncClient], Notifier]"
EACH: dict[str, Make] = {
    "alertmanager": lambda url, http: Alertmanager("a", [url], http),
    "pagerduty": lambda url, http: PagerDuty("a", SECRET, http, url=url),
    "slack": lambda url, http: Slack("a", f"{url}/{SECRET}", http),
    "webhook": lambda url, http: Webhook("a", f"{url}/{SECRET}", SECRET, http),
}


@pytest.mark.parametrize("make", EACH.values(), ids=EACH)
class TestEachOnABadDay:
    @pytest.mark.parametrize(
        ("status", "is_final"),
        [(400, True), (401, True), (404, True), (302, True), (408, False), (429, False), (500, False), (503, False)],
    )
    async def test_a_refusal_says_whether_it_is_for_good(
        self, receiver: ScriptedReceiver, http: httpx.AsyncClient, make: Make, status: int, *, is_final: bool
    ) -> None:
        receiver.always = HttpAnswer(status, SECRET.encode(), {"location": "/elsewhere", "retry-after": "17"})
        with pytest.raises(NotDelivered) as found:
            await make(receiver.url, http).send(alert())
        assert (found.value.reason, found.value.is_final) == (f"HTTP {status}", is_final)
        assert found.value.retry_after_seconds == 17
        assert len(receiver.requests) == 1  # no redirect is followed

    async def test_a_server_that_breaks_off_is_asked_again(
        self, receiver: ScriptedReceiver, http: httpx.AsyncClient, make: Make
    ) -> None:
        receiver.always = HttpAnswer(500, b"x" * 1000, sent_bytes=0)
        with pytest.raises(NotDelivered) as found:
            await make(receiver.url, http).send(alert())
        assert not found.value.is_final

    async def test_a_server_that_never_answers_is_asked_again(self, receiver: ScriptedReceiver, make: Make) -> None:
        receiver.hang()
        async with new_client(0.2) as impatient:
            with pytest.raises(NotDelivered, match="no answer in time") as found:
                await make(receiver.url, impatient).send(alert())
        assert not found.value.is_final

    async def test_a_server_that_is_not_there_is_asked_again(self, http: httpx.AsyncClient, make: Make) -> None:
        with pytest.raises(NotDelivered, match="no connection") as found:
            await make("http://127.0.0.1:1", http).send(alert())
        assert not found.value.is_final

    async def test_what_is_no_url_is_refused_for_good(self, http: httpx.AsyncClient, make: Make) -> None:
        for url in ("nonsense", "http://host:port", "ftp://127.0.0.1", ""):
            with pytest.raises(NotDelivered) as found:
                await make(url, http).send(alert())
            assert found.value.is_final, url


async def test_what_a_captive_portal_says_is_no_word_of_pagerduty(
    receiver: ScriptedReceiver, http: httpx.AsyncClient
) -> None:
    receiver.always = GARBAGE
    with pytest.raises(NotDelivered, match="HTTP 200") as found:
        await PagerDuty("pager", SECRET, http, url=receiver.url).send(alert())
    assert not found.value.is_final


async def test_slack_s_word_for_what_is_wrong_is_passed_on(receiver: ScriptedReceiver, http: httpx.AsyncClient) -> None:
    receiver.always = HttpAnswer(404, b"no_service")
    with pytest.raises(NotDelivered, match=r"^HTTP 404 \(no_service\)$"):
        await Slack("chat", receiver.url, http).send(alert())


async def test_an_answer_without_end_does_not_fill_the_memory(
    receiver: ScriptedReceiver, http: httpx.AsyncClient
) -> None:
    receiver.always = HttpAnswer(500, b"x" * 50_000_000)
    began = time.monotonic()
    with pytest.raises(NotDelivered, match=r"^HTTP 500$"):
        await Slack("chat", receiver.url, http).send(alert())
    assert time.monotonic() - began < 1
