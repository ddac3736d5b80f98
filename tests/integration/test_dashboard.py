"""The dashboard over sockets: who may see and do what, and that no other site can do it for them."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.integration.pages import status
from tests.parts.callers import QUICK
from tests.parts.dashboard import Visitor
from tests.parts.fleet import control_tokens
from tests.parts.programs import eventually
from tests.running import DOCUMENTS, QUERY, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ENV = QUICK | {
    "RERANK_CANARY__AUTH__CONTROL_TOKENS": json.dumps(control_tokens()),
    "RERANK_CANARY__RAMP__COOL_DOWN_SECONDS": "0",
    "RERANK_CANARY__FLAG__INITIAL_SHARE_PERCENT": "5",
    "RERANK_CANARY__SHADOW__IS_ON": "true",
    "RERANK_CANARY__SHADOW__CONTROL_PERCENT": "100",
    "RERANK_CANARY__ALERTS__TRACES_URL": "https://traces.example/{trace_id}",
}
PAGES = ("/ui", "/ui/incidents", "/ui/requests", "/ui/history", "/ui/replicas", "/ui/confirm/hold")
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    with Proxy(tmp_path_factory.mktemp("dashboard"), ENV) as made:
        eventually(lambda: rollout(made)["phase"] == "ramping")
        yield made


@pytest.fixture
def adam(proxy: Proxy) -> Iterator[Visitor]:
    with Visitor(proxy) as made:
        assert made.sign_in("adam-key").status_code == 303
        yield made


def rollout(proxy: Proxy) -> dict[str, Any]:
    answer = httpx.get(f"{proxy.control_url}/status", headers={"Authorization": "Bearer adam-key"}, timeout=30)
    found: dict[str, Any] = answer.json()["rollout"]
    return found


def newest(proxy: Proxy, action: str) -> dict[str, Any]:
    headers = {"Authorization": "Bearer vera-key"}
    entries = httpx.get(f"{proxy.control_url}/history", headers=headers, timeout=30).json()
    found: dict[str, Any] = next(each for each in entries if each["action"] == action)
    return found


def test_who_is_not_signed_in_is_sent_to_the_door_and_back(proxy: Proxy) -> None:
    with Visitor(proxy) as nobody:
        for path in PAGES:
            answer = nobody.client.get(path)
            assert (answer.status_code, answer.headers["location"].split("?")[0]) == (303, "/ui/login")
        sent = nobody.client.get("/ui/requests?id=a%26b").headers["location"]
        assert 'value="/ui/requests?id=a%26b"' in nobody.page(sent)
        assert nobody.sign_in("vera-key", "/ui/requests?id=a%26b").headers["location"] == "/ui/requests?id=a%26b"


def test_a_wrong_token_opens_nothing(proxy: Proxy) -> None:
    with Visitor(proxy) as nobody:
        answer = nobody.sign_in("vera-kex")
        assert (answer.status_code, "no valid control token" in answer.text) == (401, True)
        assert "set-cookie" not in answer.headers
        assert nobody.client.get("/ui").status_code == 303


@pytest.mark.parametrize(
    "following",
    ["https://evil.example", "//evil.example", "/ui/../x\\y", "/ui/../metrics", "/ui/..//evil.example/x", "/uix", ""],
)
def test_signing_in_leads_nowhere_else(proxy: Proxy, following: str) -> None:
    with Visitor(proxy) as vera:
        location = vera.sign_in("vera-key", following).headers["location"]
        assert location == "/ui"


def test_the_cookie_is_for_these_pages_only_and_for_no_script(proxy: Proxy) -> None:
    with Visitor(proxy) as vera:
        cookie = vera.sign_in("vera-key").headers["set-cookie"].lower()
        assert {"httponly", "path=/ui", "samesite=lax"} <= {each.strip() for each in cookie.split(";")}
        assert "secure" not in cookie
    https = httpx.post(
        f"{proxy.control_url}/ui/login",
        data={"token": "vera-key"},
        headers={"x-forwarded-proto": "https"},
    )
    assert "secure" in https.headers["set-cookie"].lower()


def test_signing_out_ends_it_for_a_copy_of_the_cookie_too(proxy: Proxy) -> None:
    with Visitor(proxy) as vera:
        vera.sign_in("vera-key")
        copy = dict(vera.client.cookies)
        assert httpx.get(f"{proxy.control_url}/ui", cookies=copy).status_code == 200
        assert vera.client.post("/ui/logout", data=vera.fields("/ui")).status_code == 303
        assert vera.client.get("/ui").status_code == 303
        assert httpx.get(f"{proxy.control_url}/ui", cookies=copy).status_code == 303
        vera.sign_in("vera-key")
        assert vera.client.get("/ui").status_code == 200


def test_another_site_cannot_sign_somebody_in(proxy: Proxy) -> None:
    answer = httpx.post(
        f"{proxy.control_url}/ui/login", data={"token": "vera-key"}, headers={"origin": "https://evil.example"}
    )
    assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/ui/nothing", 404), ("GET", "/ui/actions/ramp", 303), ("GET", "/ui/logout", 303), ("POST", "/ui", 303)],
)
def test_an_address_that_leads_nowhere_is_a_page_too(adam: Visitor, method: str, path: str, status: int) -> None:
    answer = adam.client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_an_action_that_others_have_overtaken_is_not_done(proxy: Proxy, adam: Visitor) -> None:
    adam.act("ramp", share_percent=5)
    fields = adam.fields("/ui/confirm/ramp?share_percent=25") | {"force": "yes"}
    adam.act("ramp", share_percent=50)
    answer = adam.client.post("/ui/actions/ramp", data=fields)
    assert (answer.status_code, "it is ramping at 50 % now" in answer.text) == (409, True)
    assert "(50 % → 25 %)" in answer.text  # asked anew, by what it would do now
    assert rollout(proxy)["share_percent"]["desired"] == 50
    stale = adam.fields("/ui/confirm/rollback")
    adam.act("ramp", share_percent=5)
    assert adam.client.post("/ui/actions/rollback", data=stale).status_code == 303  # this one is never refused
    assert rollout(proxy)["phase"] == "rolled_back"
    adam.act("rearm", reason="a test", force="yes")
    adam.act("ramp", share_percent=5)


def test_stages_that_are_skipped_are_named(adam: Visitor) -> None:
    adam.act("ramp", share_percent=5)
    assert "This skips 25 % and 50 %." in adam.page("/ui/confirm/ramp?share_percent=100")
    assert 'name="force"' not in adam.page("/ui/confirm/ramp?share_percent=100")
    assert 'name="force"' in adam.page("/ui/confirm/ramp?share_percent=30")
    assert "skips" not in adam.page("/ui/confirm/ramp?share_percent=25")


def test_what_cannot_be_done_is_not_offered_with_an_effect(adam: Visitor) -> None:
    adam.act("ramp", share_percent=5)
    assert "nothing to re-arm" in adam.page("/ui/confirm/rearm", status=409)
    adam.act("rollback")
    assert "rolled back already" in adam.page("/ui/confirm/rollback", status=409)
    assert "<form method" not in adam.page("/ui/confirm/advance", status=409)
    adam.act("rearm", reason="a test", force="yes")
    adam.act("ramp", share_percent=5)


def test_a_request_is_found_by_how_its_id_begins(proxy: Proxy, adam: Visitor) -> None:
    request_id = proxy.rerank(headers={"x-user-id": "begins"}).headers["x-request-id"]
    assert eventually(lambda: request_id in adam.page("/ui/requests"))
    assert f"<h2>{request_id}</h2>" in adam.page(f"/ui/requests?id={request_id[:12].upper()}")


def test_no_page_takes_anything_from_elsewhere(adam: Visitor) -> None:
    for path in PAGES:
        answer = adam.client.get(path)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert "style=" not in answer.text
        assert "<script>" not in answer.text
        assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")


def test_static_files_may_be_kept_for_ever_under_the_name_of_their_content(adam: Visitor) -> None:
    page = adam.client.get("/ui").text
    found = {part.split('"')[0] for part in page.split('"/ui/static/')[1:]}
    assert len(found) == 6
    for each in found:
        answer = adam.client.get(f"/ui/static/{each}")
        assert (answer.status_code, "immutable" in answer.headers["cache-control"]) == (200, True)
    name = next(iter(found)).partition("/")[2]
    assert adam.client.get(f"/ui/static/000000000000/{name}").status_code == 404
    assert adam.client.get("/ui/static/x/..%2Frender.py").status_code == 404


def test_a_viewer_sees_everything_and_may_do_nothing(proxy: Proxy) -> None:
    with Visitor(proxy) as vera:
        vera.sign_in("vera-key")
        assert "Ramping at" in vera.page("/ui")
        assert "/ui/confirm/" not in vera.page("/ui")
        for action in ("ramp", "advance", "hold", "rollback", "rearm", "retire"):
            assert "this takes the role" in vera.page(f"/ui/confirm/{action}", status=403)
            answer = vera.client.post(f"/ui/actions/{action}", data=vera.fields("/ui"))
            assert (answer.status_code, "vera is a viewer" in answer.text) == (403, True)


def test_an_operator_may_not_rearm_nor_retire(proxy: Proxy) -> None:
    with Visitor(proxy) as olga:
        olga.sign_in("olga-key")
        assert "/ui/confirm/rollback" in olga.page("/ui")
        for action in ("rearm", "retire"):
            assert olga.client.get(f"/ui/confirm/{action}").status_code == 403
            assert olga.client.post(f"/ui/actions/{action}", data=olga.fields("/ui")).status_code == 403


def test_a_form_of_another_site_or_session_does_nothing(proxy: Proxy, adam: Visitor) -> None:
    before = rollout(proxy)["record_version"]
    fields = adam.fields("/ui/confirm/ramp?share_percent=50")
    with Visitor(proxy) as olga:
        olga.sign_in("olga-key")
        foreign = olga.fields("/ui")["csrf"]
    for wrong in ({"csrf": ""}, {"csrf": "x"}, {"csrf": foreign}):
        assert adam.client.post("/ui/actions/ramp", data=fields | wrong).status_code == 403
    assert adam.client.post("/ui/actions/ramp", data={"share_percent": "50"}).status_code == 403
    headers = {"origin": "https://evil.example"}
    assert adam.client.post("/ui/actions/ramp", data=fields, headers=headers).status_code == 403
    assert rollout(proxy)["record_version"] == before


def test_each_action_is_done_and_in_the_trail_under_who_did_it(proxy: Proxy, adam: Visitor) -> None:
    def order(action: str, **given: Any) -> dict[str, Any]:
        answer = adam.act(action, reason=f"because of {action}", **given)
        assert (answer.status_code, answer.headers.get("location")) == (303, "/ui"), answer.text[-1500:]
        found = newest(proxy, action)
        assert (found["actor"], found["through"], found["reason"]) == ("adam", "dashboard", f"because of {action}")
        return found

    assert order("ramp", share_percent=25)["to_share_percent"] == 25
    assert order("hold")["phase"] == "held"
    assert order("ramp", share_percent=25)["phase"] == "ramping"
    assert order("advance", force="yes")["to_share_percent"] == 50
    assert order("rollback")["phase"] == "rolled_back"
    assert "Rolled back" in adam.page("/ui")
    assert order("rearm")["phase"] == "ramping"
    order("ramp", share_percent=100)
    assert order("retire", force="yes")["phase"] == "retired"
    order("rollback")
    assert order("rearm", fresh_users="yes")["to_share_percent"] == 0
    order("ramp", share_percent=5)


def test_a_form_sent_twice_does_it_once(proxy: Proxy, adam: Visitor) -> None:
    fields = adam.fields("/ui/confirm/ramp?share_percent=50") | {"reason": "twice"}
    assert [adam.client.post("/ui/actions/ramp", data=fields).status_code for _ in range(2)] == [303, 303]
    version = rollout(proxy)["record_version"]
    assert adam.client.post("/ui/actions/ramp", data=fields).status_code == 303
    assert rollout(proxy)["record_version"] == version
    adam.act("ramp", share_percent=5)


def test_what_the_rollout_refuses_is_said_and_the_reason_is_kept(adam: Visitor) -> None:
    answer = adam.act("advance", reason="too soon <b>")
    assert answer.status_code == 409
    assert "the stage bakes for another" in answer.text
    assert 'value="too soon &lt;b&gt;"' in answer.text
    assert adam.act("hold", reason="x" * 501).status_code == 400
    adam.act("rollback")
    missing = adam.act("rearm", force="yes")
    assert (missing.status_code, "reason: a rollback is re-armed for a reason" in missing.text) == (400, True)
    adam.act("rearm", reason="a test", force="yes")
    adam.act("ramp", share_percent=5)


@pytest.mark.parametrize("share", ["101", "-1", "5.5", "x", "99999", "\u0665"])
def test_a_share_that_is_none_is_named(adam: Visitor, share: str) -> None:
    asked = adam.client.get("/ui/confirm/ramp", params={"share_percent": share})
    assert (asked.status_code, "share_percent" in asked.text) == (400, True)
    fields = adam.fields("/ui/confirm/ramp?share_percent=25") | {"share_percent": share}
    answer = adam.client.post("/ui/actions/ramp", data=fields)
    assert (answer.status_code, "share_percent" in answer.text) == (400, True)


def test_an_unknown_action_is_named(adam: Visitor) -> None:
    assert adam.client.get("/ui/confirm/delete").status_code == 400
    assert adam.client.post("/ui/actions/delete", data=adam.fields("/ui")).status_code == 400


def test_the_effect_is_named_in_users(proxy: Proxy, adam: Visitor) -> None:
    adam.act("ramp", share_percent=5)

    def effect() -> str:
        page = adam.page("/ui/confirm/ramp?share_percent=25")
        return page.split('<p class="effect">')[1].split("</p>")[0]

    def users_that_move() -> int:
        for number in range(40):  # again and again: who asks before the flag says 5 % is not counted yet
            assert proxy.rerank(headers={"x-user-id": f"effect-{number}"}).is_success
        words = effect().split()
        return int(words[1]) if words[0] == "About" else 0

    assert eventually(lambda: users_that_move() >= 8)
    assert users_that_move() <= 20
    assert "to the candidate (5 % → 25 %)" in effect()


def test_one_request_is_explained_without_a_word_of_it(proxy: Proxy, adam: Visitor) -> None:
    headers = {"x-user-id": "secret-user", "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
    request_id = proxy.rerank(headers=headers).headers["x-request-id"]
    page = adam.page(f"/ui/requests?id={request_id}")
    assert "the flag splits by the user's bucket" in page
    assert f"https://traces.example/{TRACE}" in page
    shadowed = eventually(lambda: "Scores of both arms" in adam.page(f"/ui/requests?id={request_id}"))
    assert shadowed
    for secret in ("secret-user", QUERY, *DOCUMENTS):
        assert secret not in adam.page(f"/ui/requests?id={request_id}")


def test_a_request_that_nobody_kept_is_said(adam: Visitor) -> None:
    assert "No request nobody-knows is kept" in adam.page("/ui/requests?id=nobody-knows", status=404)
    assert "No request <b>x</b>" in adam.page("/ui/requests?id=<b>x</b>", status=404)
    assert "<b>x</b>" not in adam.client.get("/ui/requests?id=<b>x</b>").text


def test_history_is_searched(proxy: Proxy, adam: Visitor) -> None:
    adam.act("hold", reason="waiting for Godot")
    adam.act("ramp", share_percent=5)
    found = adam.page("/ui/history?q=godot+adam")
    assert "waiting for Godot" in found
    assert "1 of " in found
    assert "0 of " in adam.page("/ui/history?q=godot+olga")
    assert rollout(proxy)["phase"] == "ramping"


def test_a_rollback_has_a_page_of_its_own(proxy: Proxy, adam: Visitor) -> None:
    adam.act("ramp", share_percent=100)
    assert eventually(lambda: proxy.rerank(headers={"x-user-id": "last"}).headers["x-rerank-arm"] == "candidate")
    adam.act("rollback", reason="just to see")
    path = f"/ui/incidents/{newest(proxy, 'rollback')['rollback_id']}"
    assert path in adam.page("/ui/incidents")
    page = eventually(lambda: found if "last request of the candidate" in (found := adam.page(path)) else None)
    assert page is not None
    for words in ("just to see", "verdict: adam rolls back", "the flag says 0 %", "Nobody: no receivers", "Re-arm"):
        assert words in page
    assert adam.act("rearm", reason="seen").status_code == 303
    assert "re-armed since" in adam.page(path)
    assert "No such rollback" in adam.page("/ui/incidents/nothing", status=404)


def test_what_changes_is_sent_while_somebody_looks(proxy: Proxy, adam: Visitor) -> None:
    proxy.rerank()
    seen: dict[str, str] = {}
    with adam.client.stream("GET", "/ui/live") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        name = ""
        for line in answer.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                seen[name] = seen.get(name, "") + line.removeprefix("data: ")
            if len(seen) == 5 and not line:
                break
    assert seen.keys() == {"beat", "state", "actions", "guardrails", "charts"}
    assert "headline" in seen["state"]
    assert seen["charts"].count("<figure") == 10


def test_a_stream_is_for_who_is_signed_in(proxy: Proxy) -> None:
    assert httpx.get(f"{proxy.control_url}/ui/live").status_code == 401


def test_with_somebody_looking_the_process_ends_as_soon_as_without(tmp_path: Path) -> None:
    with Proxy(tmp_path, ENV) as proxy, Visitor(proxy) as adam:
        adam.sign_in("adam-key")
        with adam.client.stream("GET", "/ui/live") as answer:
            assert next(answer.iter_lines()) == "retry: 2000"
            assert proxy.stop() == 0


def test_with_the_store_gone_the_pages_say_what_was_last_known(tmp_path: Path) -> None:
    env = ENV | {"REDIS_URL": f"unix://{tmp_path}/no.sock"}
    with Proxy(tmp_path, env) as proxy, Visitor(proxy) as adam:
        adam.sign_in("adam-key")
        assert "The shared store cannot be reached" in adam.page("/ui")
        for path in ("/ui/incidents", "/ui/requests", "/ui/history", "/ui/replicas"):
            adam.page(path)
        assert "there is no record of the rollout yet" in adam.page("/ui/confirm/hold", status=503)


def test_without_a_dashboard_there_are_no_pages(tmp_path: Path) -> None:
    with Proxy(tmp_path, ENV | {"RERANK_CANARY__DASHBOARD__IS_ON": "false"}) as proxy:
        assert httpx.get(f"{proxy.control_url}/ui").status_code == 404
        assert proxy.rerank().is_success
        assert status(proxy)["store"]["error"] is None


def test_an_older_request_is_looked_up_in_the_event_log(tmp_path: Path) -> None:
    env = ENV | {"RERANK_CANARY__EVENTS__IS_ON": "true", "RERANK_CANARY__EVENTS__FLUSH_SECONDS": "0.2"}
    with Proxy(tmp_path, env, has_extras=True) as proxy:
        request_id = proxy.rerank(headers={"x-user-id": "ann"}).headers["x-request-id"]
        eventually(lambda: list((tmp_path / "var/events").rglob("*.parquet")))
        proxy.stop()
        shutil.rmtree(tmp_path / "var/store")
        proxy.start()
        with Visitor(proxy) as adam:
            adam.sign_in("adam-key")
            page = adam.page(f"/ui/requests?id={request_id}")
            assert "the flag splits by the user's bucket" in page
            assert "Scores" in page
            assert "No request nothing is kept" in adam.page("/ui/requests?id=nothing", status=404)
