"""Alerts as each receiver reads them, and what receivers say back."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.alert import Alert, Severity, alert_name
from alerts.notifiers import slack
from alerts.notifiers.alertmanager import Alertmanager, alert_body
from alerts.notifiers.base import Acknowledgement, as_text, web_links
from alerts.notifiers.http import retry_after_seconds
from alerts.notifiers.pagerduty import acknowledgement_of, event
from alerts.notifiers.webhook import signature, webhook_body

DASHBOARD = "https://grafana.example/d/1?a=b&c=d"


def alert(**fields: Any) -> Alert:
    given: dict[str, Any] = {
        "key": "rollback:7",
        "kind": "rollback",
        "severity": Severity.PAGE,
        "flag": "rerank-canary",
        "title": "The candidate was rolled back: it is too slow.",
        "starts_at": 1_700_000_000.0,
        "facts": (("Evidence", "p95 is 312 ms & the limit is 150 ms"), ("Done", "All users get control.")),
        "links": (("dashboard", DASHBOARD), ("runbook", "https://docs.example/rollback"), ("shell", "ssh box")),
        "details": {"limit_seconds": 0.15},
    }
    return Alert(**(given | fields))


OVER = alert().ended(1_700_000_600.0)


def test_an_alert_as_text_says_what_since_when_why_and_where() -> None:
    assert as_text(alert()).splitlines() == [
        "[page] The candidate was rolled back: it is too slow.",
        "Since 2023-11-14 22:13:20 UTC",
        "Evidence: p95 is 312 ms & the limit is 150 ms",
        "Done: All users get control.",
        f"dashboard: {DASHBOARD}",
        "runbook: https://docs.example/rollback",
        "shell: ssh box",
    ]
    assert as_text(OVER).splitlines()[:2] == [
        "[over] The candidate was rolled back: it is too slow.",
        "From 2023-11-14 22:13:20 to 2023-11-14 22:23:20 UTC",
    ]


@pytest.mark.parametrize("url", ["ftp://a", "javascript:alert(1)", "https://a b", "https://a\nb", "nonsense", ""])
def test_what_is_no_page_is_no_link(url: str) -> None:
    assert web_links(alert(links=(("dashboard", DASHBOARD), ("runbook", url)))) == {"dashboard": DASHBOARD}


@pytest.mark.parametrize(
    ("kind", "name"),
    [("rollback", "RerankCanaryRollback"), ("flags_stale", "RerankCanaryFlagsStale"), ("a-b", "RerankCanaryAB")],
)
def test_a_kind_has_a_name_of_its_own_in_alertmanager(kind: str, name: str) -> None:
    assert alert_name(kind) == name


def test_alertmanager_gets_labels_annotations_and_links() -> None:
    assert alert_body(alert(), {"team": "search", "severity": "mine"}) == {
        "labels": {
            "team": "search",
            "alertname": "RerankCanaryRollback",
            "severity": "critical",
            "flag": "rerank-canary",
            "incident": "rollback:7",
        },
        "annotations": {
            "summary": "The candidate was rolled back: it is too slow.",
            "description": "Since 2023-11-14 22:13:20 UTC\n"
            "Evidence: p95 is 312 ms & the limit is 150 ms\nDone: All users get control.",
            "runbook_url": "https://docs.example/rollback",
            "dashboard": DASHBOARD,
        },
        "startsAt": "2023-11-14T22:13:20.000+00:00",
        "generatorURL": DASHBOARD,
    }


def test_nothing_that_changes_is_part_of_the_identity_in_alertmanager() -> None:
    changed = alert(title="Worse", starts_at=5.0, facts=(), links=(), details={"n": 3}, version=9)
    labels = [alert_body(one, {})["labels"] for one in (alert(), changed, OVER)]
    assert labels[0] == labels[1] == labels[2]


def test_an_end_before_the_beginning_becomes_one_that_alertmanager_takes() -> None:
    body = alert_body(alert(ends_at=5.0), {})
    assert body["endsAt"] == body["startsAt"]


def test_a_label_that_alertmanager_would_refuse_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="my-team"):
        Alertmanager("am", ["http://a"], httpx.AsyncClient(), labels={"my-team": "search"})


def test_pagerduty_gets_an_event_under_the_key() -> None:
    found = event(alert())
    assert (found["event_action"], found["dedup_key"]) == ("trigger", "rollback:7")
    assert found["payload"] == {
        "summary": "The candidate was rolled back: it is too slow.",
        "source": "rerank-canary",
        "severity": "critical",
        "timestamp": "2023-11-14T22:13:20.000+00:00",
        "component": "rerank-canary",
        "group": "rerank-canary",
        "class": "rollback",
        "custom_details": {
            "limit_seconds": 0.15,
            "Evidence": "p95 is 312 ms & the limit is 150 ms",
            "Done": "All users get control.",
        },
    }
    assert [link["text"] for link in found["links"]] == ["dashboard", "runbook"]
    assert event(OVER) == {"event_action": "resolve", "dedup_key": "rollback:7"}


def test_a_long_title_is_cut_to_what_pagerduty_takes() -> None:
    assert len(event(alert(title="x" * 5000))["payload"]["summary"]) == 1024


SECRET = "pd-webhook-secret"


def heard(event_type: str, **fields: Any) -> bytes:
    """Return a webhook as PagerDuty documents it."""
    found = {
        "id": "5ac64822-4adc-4fda-ade0-410becf0de4f",
        "event_type": event_type,
        "resource_type": "incident",
        "occurred_at": "2023-11-14T22:15:00.500Z",
        "agent": {"id": "PLH1HKV", "summary": "Tenex Engineer", "type": "user_reference"},
        "client": {"name": "PagerDuty"},
        "data": {"id": "PGR0VU2", "type": "incident", "status": "acknowledged", "incident_key": "rollback:7"},
    }
    return json.dumps({"event": found | fields}).encode()


def signed(body: bytes, *secrets: str) -> dict[str, str]:
    signatures = [hmac.new(secret.encode(), body, hashlib.sha256).hexdigest() for secret in secrets]
    return {"X-PagerDuty-Signature": ",".join(f"v1={one}" for one in signatures)}


@pytest.mark.parametrize(("event_type", "is_closed"), [("incident.acknowledged", False), ("incident.resolved", True)])
def test_pagerduty_says_who_saw_it(event_type: str, *, is_closed: bool) -> None:
    body = heard(event_type)
    expected = Acknowledgement("rollback:7", "Tenex Engineer", 1_700_000_100.5, is_closed)
    assert acknowledgement_of(body, signed(body, SECRET), SECRET) == expected
    assert acknowledgement_of(body, signed(body, "the-old-one", SECRET), SECRET) == expected
    lower = {name.lower(): value for name, value in signed(body, SECRET).items()}
    assert acknowledgement_of(body, lower, SECRET) == expected


def test_whoever_does_not_say_who_saw_it_is_pagerduty_itself() -> None:
    body = heard("incident.acknowledged", agent=None)
    found = acknowledgement_of(body, signed(body, SECRET), SECRET)
    assert found is not None
    assert found.who == "PagerDuty"


@pytest.mark.parametrize(
    "headers", [{}, {"X-PagerDuty-Signature": ""}, {"X-PagerDuty-Signature": "v1=é"}, signed(b"other", SECRET)]
)
def test_what_pagerduty_did_not_sign_counts_for_nothing(headers: dict[str, str]) -> None:
    assert acknowledgement_of(heard("incident.acknowledged"), headers, SECRET) is None


def test_without_a_secret_nothing_is_signed() -> None:
    body = heard("incident.acknowledged")
    assert acknowledgement_of(body, signed(body, ""), "") is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        heard("incident.triggered"),
        heard("incident.acknowledged", data={"incident_key": None}),
        heard("incident.acknowledged", occurred_at="soon"),
        heard("pagey.ping", data={"message": "Hello from your friend Pagey!", "type": "ping"}),
    ],
    ids=["empty", "list", "triggered", "no key", "no time", "ping"],
)
def test_any_other_word_of_pagerduty_is_passed_over(body: bytes) -> None:
    assert acknowledgement_of(body, signed(body, SECRET), SECRET) is None


def test_slack_gets_a_header_times_facts_and_links() -> None:
    found = slack.message(alert(links=(("board|1", "https://g.example/?a=<b>|c&d"),)))
    assert found["text"] == "[page] The candidate was rolled back: it is too slow."
    header, times, facts, links = found["blocks"]
    assert header["text"] == {"type": "plain_text", "text": found["text"]}
    assert times["elements"][0]["text"] == "rerank-canary · Since 2023-11-14 22:13:20 UTC"
    assert facts["text"]["text"] == (
        "*Evidence:* p95 is 312 ms &amp; the limit is 150 ms\n*Done:* All users get control."
    )
    assert links["text"]["text"] == "<https://g.example/?a=%3Cb%3E%7Cc&amp;d|board|1>"


def test_nobody_can_call_a_whole_channel_through_an_alert() -> None:
    found = slack.message(alert(title="<!channel>", facts=(("<!here>", "<@U1>"),), flag="<!everyone>"))
    texts = [found["text"], found["blocks"][1]["elements"][0]["text"], found["blocks"][2]["text"]["text"]]
    assert not [text for text in texts if "<" in text]


TEXT = st.builds(
    lambda text, times: text * times, st.text(st.sampled_from("a&<>| é\n"), max_size=9), st.integers(0, 700)
)


@given(TEXT, st.lists(st.tuples(TEXT, TEXT), max_size=80))
def test_slack_takes_whatever_an_alert_says(title: str, facts: list[tuple[str, str]]) -> None:
    found = slack.message(alert(title=title, facts=tuple(facts)))
    assert len(found["blocks"]) <= 50
    assert len(found["blocks"][0]["text"]["text"]) <= 150
    assert len(found["text"]) <= 3000
    for block in found["blocks"][2:]:
        text = block["text"]["text"]
        assert 0 < len(text) <= 3000
        assert "<https://" in text or not re.search(r"[<>]|&(?!amp;|lt;|gt;)", text)


def test_slack_gets_as_many_facts_as_it_takes_and_the_links_after_them() -> None:
    found = slack.message(alert(facts=(("Evidence", "x" * 2900),) * 80))
    assert len(found["blocks"]) <= 50
    assert DASHBOARD.partition("?")[0] in found["blocks"][-1]["text"]["text"]


def test_a_webhook_gets_the_alert_and_whether_it_lasts() -> None:
    body = json.loads(webhook_body(alert()))
    assert (body["status"], body["key"], body["severity"], body["ends_at"]) == ("firing", "rollback:7", "page", None)
    assert json.loads(webhook_body(OVER))["status"] == "resolved"


def test_the_signature_is_the_one_that_openssl_computes() -> None:
    # printf '%s' '1700000000.{}' | openssl dgst -sha256 -hmac secret
    assert (
        signature("secret", "1700000000", b"{}")
        == "v1=b8569b78799ff9e3cbff0fc2d63a33a2b57f3282abd07c37ae5e8e7d79a5f163"
    )


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        (" 120 ", 120.0),
        ("Wed, 15 Nov 2023 22:13:50 GMT", 30.0),
        ("Wed, 15 Nov 2023 22:13:00 GMT", 0.0),
        ("", None),
        ("-5", None),
        ("nan", None),
        ("soon", None),
        ("9" * 400, None),
        ("Fri, 99 Foo 2023 99:99:99 GMT", None),
    ],
)
def test_a_retry_after_is_read_or_passed_over(header: str, seconds: float | None) -> None:
    assert retry_after_seconds(header, 1_700_086_400.0) == seconds
