"""``POST /v1/feedback`` in process: what counts, once; what does not, and why; and what is made of it."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from alerts.guardrails import EVENTS, Event
from flags.vocabulary import Arm
from proxy.errors import BackendError
from proxy.feedback.told import MOST_EVENTS
from proxy.guarding import guardrails_of
from proxy.status import status_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from proxy.events.records import FeedbackEvent
    from proxy.feedback.intake import Intake
    from tests.conftest import Plane

CANDIDATE, CONTROL = {"x-user-id": "u7"}, {"x-user-id": "u1"}
DOCUMENTS = [" ".join("abcdefghijkl"[:words]) for words in (3, 1, 12, 5, 8, 2, 10, 4, 7, 6, 11, 9)]
"""Twelve that all have another number of the query's words: 2, 10, 6, 11, 4, ... is the right order."""
BODY = {"query": "a b c d e f g h i j k l", "documents": DOCUMENTS}
BEST, SIXTH, LAST = 2, 8, 1
HEADER = "x-rerank-feedback"
MISS = EVENTS.index(Event.MISS)


async def token_of(plane: Plane, headers: dict[str, str], path: str = "/v1/rerank", **fields: Any) -> str:
    answer = await plane.client.post(path, json=BODY | fields, headers=headers)
    assert answer.status_code == 200, answer.text
    return str(answer.headers[HEADER])


async def say(plane: Plane, request_id: str, **said: Any) -> httpx.Response:
    return await plane.client.post("/v1/feedback", json={"request_id": request_id, **said})


async def counted(plane: Plane, request_id: str, **said: Any) -> dict[str, Any]:
    answer = await say(plane, request_id, **said)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def sample(plane: Plane, name: str, **labels: str) -> float:
    return plane.parts.otel.registry.get_sample_value(name, labels) or 0.0


def documents(plane: Plane, arm: str, kind: str, result: str) -> float:
    labels = {"rerank_arm": arm, "rerank_feedback_kind": kind, "rerank_feedback_result": result}
    return sample(plane, "rerank_feedback_documents_total", rerank_fallback="false", **labels)


def intake_of(plane: Plane) -> Intake:
    assert plane.parts.feedback is not None
    return plane.parts.feedback.intake


DIALECTS = {
    "jina": ("/v1/rerank", BODY),
    "cohere-v2": ("/v2/rerank", BODY | {"model": "any"}),
    "voyage": ("/v1/rerank", {"query": BODY["query"], "documents": DOCUMENTS, "top_k": 12, "truncation": True}),
    "tei": ("/rerank", {"query": BODY["query"], "texts": DOCUMENTS}),
    "nim": ("/v1/ranking", {"query": {"text": BODY["query"]}, "passages": [{"text": text} for text in DOCUMENTS]}),
}


@pytest.mark.parametrize(("path", "body"), DIALECTS.values(), ids=DIALECTS)
async def test_an_answer_of_every_dialect_can_be_said_something_of(plane: Plane, path: str, body: Any) -> None:
    answer = await plane.client.post(path, json=body, headers=CANDIDATE)
    assert await counted(plane, answer.headers[HEADER], clicked=[BEST]) == {"counted": 1, "double": 0}
    assert documents(plane, "candidate", "clicked", "counted") == 1


@pytest.mark.parametrize("name", ["jina", "cohere-v2", "voyage"])
async def test_clients_that_show_no_headers_find_it_in_the_answer(plane: Plane, name: str) -> None:
    path, body = DIALECTS[name]
    answer = await plane.client.post(path, json=body, headers=CANDIDATE)
    assert answer.json()["meta"]["feedback"] == answer.headers[HEADER]


async def test_what_is_chosen_is_measured_by_its_place_in_the_answer(plane: Plane) -> None:
    await counted(plane, await token_of(plane, CONTROL), clicked=[BEST])
    await counted(plane, await token_of(plane, CANDIDATE), cited=[SIXTH, BEST])
    found = status_of(plane.parts)["feedback"]["arms"]
    assert found["control"] == {
        "rankings": 1,
        "click_recall_at_5": 1,
        "click_recall_at_10": 1,
        "corrected_recall_at_5": 1,
        "corrected_recall_at_10": 1,
        "reciprocal_rank": 1,
        "votes": 0,
        "good_votes": None,
    }
    assert found["candidate"]["click_recall_at_5"] == 0.5
    assert found["candidate"]["click_recall_at_10"] == 1
    assert found["candidate"]["corrected_recall_at_5"] == pytest.approx(1 / (1 + 6))
    assert found["candidate"]["reciprocal_rank"] == 1
    labels = {"rerank_arm": "candidate", "rerank_fallback": "false"}
    assert sample(plane, "rerank_feedback_weight_total", rerank_feedback_place="top_10", **labels) == 6
    name = "rerank_feedback_quality_sum"
    assert sample(plane, name, rerank_feedback_metric="recall_at_5", **labels) == 0.5


async def test_votes_are_counted_good_and_bad(plane: Plane) -> None:
    request_id = await token_of(plane, CANDIDATE)
    assert await counted(plane, request_id, voted=[2, 10, 6], voted_down=[1]) == {"counted": 4, "double": 0}
    found = status_of(plane.parts)["feedback"]["arms"]["candidate"]
    assert (found["votes"], found["good_votes"], found["rankings"]) == (4, 0.75, 0)


async def test_the_same_counts_once_and_another_document_as_well(plane: Plane) -> None:
    request_id = await token_of(plane, CANDIDATE)
    assert await counted(plane, request_id, clicked=[2, 10, 2]) == {"counted": 2, "double": 0}
    assert await counted(plane, request_id, clicked=[10, 6]) == {"counted": 1, "double": 1}
    assert await counted(plane, request_id, cited=[10]) == {"counted": 1, "double": 0}
    assert documents(plane, "candidate", "clicked", "counted") == 3
    assert documents(plane, "candidate", "clicked", "double") == 1
    assert status_of(plane.parts)["feedback"]["arms"]["candidate"]["rankings"] == 1


async def test_documents_may_be_named_by_the_ids_they_were_sent_with(plane: Plane) -> None:
    with_ids = [{"id": f"doc-{place}", "text": text} for place, text in enumerate(DOCUMENTS)]
    request_id = await token_of(plane, CANDIDATE, documents=with_ids)
    assert await counted(plane, request_id, clicked=["doc-2", "doc-8", 2]) == {"counted": 2, "double": 0}
    answer = await say(plane, request_id, clicked=["doc-2", "doc-77"])
    assert answer.status_code == 400
    assert "clicked[1]: no document of that id" in answer.json()["message"]


async def test_what_cannot_be_meant_is_refused_with_the_field(plane: Plane) -> None:
    request_id = await token_of(plane, CANDIDATE)
    short = await token_of(plane, CANDIDATE, top_n=3)
    cases: list[tuple[dict[str, Any], str]] = [
        ({"request_id": request_id, "clicked": [12]}, "clicked[0]: 12 of 12 documents"),
        ({"request_id": request_id, "cited": [1, -1]}, "cited[1]"),
        ({"request_id": request_id, "cited": [1.5]}, "cited[0]"),
        ({"request_id": request_id, "clicked": 3}, "clicked"),
        ({"request_id": request_id, "clicked": ["doc-1"]}, "clicked[0]: the documents had no ids"),
        ({"request_id": request_id, "clicked": list(range(101))}, "clicked"),
        ({"request_id": request_id}, "one of them has to name a document"),
        ({"request_id": request_id, "liked": [1]}, "liked"),
        ({"clicked": [1]}, "request_id: is missing"),
        ({"request_id": 7, "clicked": [1]}, "request_id"),
        ({"request_id": "0123", "clicked": [1]}, "request_id: is no value of the header x-rerank-feedback"),
        ({"request_id": short, "clicked": [LAST]}, "clicked[0]: document 1 was not among those served"),
        ({"events": []}, "events"),
        ({"events": [{}] * (MOST_EVENTS + 1)}, "events"),
        ({"events": 3}, "events"),
        ({"events": [{"request_id": request_id, "clicked": list(range(100))}] * 21}, "name 2100 documents together"),
    ]
    for body, words in cases:
        answer = await plane.client.post("/v1/feedback", json=body)
        assert answer.status_code == 400, body
        assert words in answer.json()["message"], (body, answer.text)
    for raw in (b"{", b"", b"[]", b"3", b'{"request_id": "\xff"}'):
        answer = await plane.client.post("/v1/feedback", content=raw)
        assert answer.status_code == 400
        assert answer.json()["message"]
    assert documents(plane, "none", "none", "unknown") == 1
    assert documents(plane, "candidate", "none", "invalid") == 4
    assert await counted(plane, request_id, clicked=[BEST]) == {"counted": 1, "double": 0}


async def test_forged_late_and_early_ones_are_told_apart(plane: Plane) -> None:
    request_id = await token_of(plane, CONTROL)
    raw = bytearray(base64.urlsafe_b64decode(request_id + "=" * (-len(request_id) % 4)))
    raw[1] ^= 1  # the other arm
    forged = base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode()
    answer = await say(plane, forged, clicked=[BEST])
    assert (answer.status_code, answer.json()["message"]) == (400, "request_id: was not signed here, or was changed")
    intake = intake_of(plane)
    now = intake._now
    for hours in (25.0, -1.0):
        intake._now = lambda hours=hours: now() + hours * 3600  # type: ignore[misc]
        answer = await say(plane, request_id, clicked=[BEST])
        assert answer.status_code == 400
        assert "and feedback is taken for 24 h" in answer.json()["message"]
    intake._now = now
    assert documents(plane, "none", "none", "forged") == 1
    assert documents(plane, "control", "none", "late") == 2
    assert status_of(plane.parts)["feedback"]["refused"] == {"forged": 1, "late": 2}


async def test_of_a_batch_each_counts_or_fails_by_itself(plane: Plane) -> None:
    first, second = await token_of(plane, CANDIDATE), await token_of(plane, CONTROL)
    events: list[Any] = [
        {"request_id": first, "clicked": [2]},
        {"request_id": first, "clicked": [2]},
        {"request_id": second, "clicked": [99]},
        {"request_id": "x", "clicked": [2]},
        {"clicked": [2]},
        "no event",
        {"request_id": second, "cited": [2, 10]},
    ]
    answer = await plane.client.post("/v1/feedback", json={"events": events})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [(each["counted"], each["double"]) for each in results] == [(1, 0), (0, 1)] + [(0, 0)] * 4 + [(2, 0)]
    errors = [each["error"] for each in results]
    assert [error and error["field"] for error in errors] == [
        None,
        None,
        "events[2].clicked[0]",
        "events[3].request_id",
        "events[4].request_id",
        "events[5]",
        None,
    ]
    assert errors[2]["message"].startswith("events[2].clicked[0]: 99 of 12 documents")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rerank", {"query": "q", "documents": []}),
        ("/score", {"text_1": "a", "text_2": ["a", "b"]}),
        ("/v1/rerank", {"query": "q"}),
    ],
    ids=["nothing to rank", "scores", "refused"],
)
async def test_what_ranks_nothing_has_no_token(plane: Plane, path: str, body: Any) -> None:
    assert HEADER not in (await plane.client.post(path, json=body, headers=CANDIDATE)).headers


async def test_a_testers_forced_ranking_has_no_token(plane: Plane) -> None:
    control_key = (plane.parts.settings.data_dir / "control.token").read_text().strip()
    headers = {"x-rerank-force-arm": "candidate", "x-rerank-control-key": control_key}
    answer = await plane.client.post("/v1/rerank", json=BODY, headers=headers)
    assert answer.status_code == 200
    assert HEADER not in answer.headers


async def test_it_can_be_switched_off(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(RERANK_CANARY__FEEDBACK__IS_ON="false")
    assert HEADER not in (await plane.client.post("/v1/rerank", json=BODY)).headers
    assert (await say(plane, "x", clicked=[1])).status_code == 404
    assert status_of(plane.parts)["feedback"] is None


async def test_it_needs_the_key_that_rankings_need(make_plane: Callable[..., Plane]) -> None:
    digest = "sha256:" + "0" * 64
    plane = make_plane(RERANK_CANARY__AUTH__DATA_KEYS=f'["{digest}"]')
    assert (await say(plane, "x", clicked=[1])).status_code == 401


async def test_a_key_that_was_changed_is_known_for_a_while(make_plane: Callable[..., Plane]) -> None:
    old = make_plane(RERANK_CANARY__FEEDBACK__KEY="the first key")
    new = make_plane(
        RERANK_CANARY__FEEDBACK__KEY="the second key", RERANK_CANARY__FEEDBACK__PREVIOUS_KEYS='["the first key"]'
    )
    request_id = await token_of(old, CANDIDATE)
    assert (await counted(new, request_id, clicked=[BEST]))["counted"] == 1
    assert (await say(old, await token_of(new, CANDIDATE), clicked=[BEST])).status_code == 400


async def test_a_fallbacks_ranking_is_measured_apart(plane: Plane) -> None:
    plane.cross_encoder.fault = BackendError("boom")
    request_id = await token_of(plane, CANDIDATE)
    await counted(plane, request_id, clicked=[BEST])
    labels = {"rerank_arm": "candidate", "rerank_feedback_kind": "clicked", "rerank_feedback_result": "counted"}
    assert sample(plane, "rerank_feedback_documents_total", rerank_fallback="true", **labels) == 1
    assert status_of(plane.parts)["feedback"]["arms"]["candidate"]["rankings"] == 1


def misses(plane: Plane, arm: Arm) -> tuple[int, int]:
    found = plane.parts.signals.signals.arms[arm is Arm.CANDIDATE]
    return found.bad[MISS], found.trials[MISS]


async def test_the_guard_counts_what_was_chosen_first_of_each_ranking(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(RERANK_CANARY__FEEDBACK__JUDGE="true")
    assert "misses_relative" in guardrails_of(plane.parts.settings)
    request_id = await token_of(plane, CANDIDATE)
    await counted(plane, request_id, voted=[LAST])
    assert misses(plane, Arm.CANDIDATE) == (0, 0)
    await counted(plane, request_id, clicked=[LAST])
    await counted(plane, request_id, clicked=[BEST], cited=[BEST])
    assert misses(plane, Arm.CANDIDATE) == (1, 1)
    await counted(plane, await token_of(plane, CANDIDATE), clicked=[LAST, BEST])
    assert misses(plane, Arm.CANDIDATE) == (1, 2)
    await counted(plane, await token_of(plane, CONTROL), cited=[SIXTH])
    assert misses(plane, Arm.CONTROL) == (1, 1)


async def test_the_guard_counts_a_fallback_for_the_arm_that_passed_it_on(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(RERANK_CANARY__FEEDBACK__JUDGE="true")
    plane.cross_encoder.fault = BackendError("boom")
    await counted(plane, await token_of(plane, CANDIDATE), clicked=[LAST])
    assert misses(plane, Arm.CANDIDATE) == (1, 1)


async def test_an_order_that_nobody_made_has_no_token(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(RERANK_CANARY__FALLBACK__LAST_RESORT="received")
    plane.cross_encoder.fault = plane.gpt.fault = BackendError("boom")
    answer = await plane.client.post("/v1/rerank", json=BODY, headers=CANDIDATE)
    assert (answer.status_code, answer.headers["x-rerank-served-by"]) == (200, "received")
    assert HEADER not in answer.headers


async def test_a_token_of_another_rollout_is_none(make_plane: Callable[..., Plane]) -> None:
    one = make_plane(RERANK_CANARY__FEEDBACK__KEY="the key")
    other = make_plane(RERANK_CANARY__FEEDBACK__KEY="the key", RERANK_CANARY__FLAG__KEY="another-flag")
    assert (await say(other, await token_of(one, CANDIDATE), clicked=[BEST])).status_code == 400


async def test_the_guard_does_not_count_other_stages_few_documents_or_one_user_for_all(
    make_plane: Callable[..., Plane],
) -> None:
    plane = make_plane(RERANK_CANARY__FEEDBACK__JUDGE="true")
    before = await token_of(plane, CANDIDATE)
    intake_of(plane)._stage = lambda: "another stage"
    of_another = await token_of(plane, CANDIDATE)
    intake_of(plane)._stage = plane.parts.rollout.stage_name
    of_few = await token_of(plane, CANDIDATE, documents=DOCUMENTS[:5])
    for request_id in (of_another, of_few):
        await counted(plane, request_id, clicked=[LAST])
    await counted(plane, await token_of(plane, CANDIDATE, top_n=5), clicked=[BEST])
    assert misses(plane, Arm.CANDIDATE) == (0, 0)
    await counted(plane, before, clicked=[LAST])
    for _ in range(30):
        await counted(plane, await token_of(plane, CONTROL), clicked=[LAST])
    assert misses(plane, Arm.CANDIDATE) == (1, 1)
    assert misses(plane, Arm.CONTROL)[0] <= 2 * 20  # a minute may end in between


async def test_without_being_told_to_the_guard_hears_nothing(plane: Plane) -> None:
    await counted(plane, await token_of(plane, CANDIDATE), clicked=[LAST])
    assert misses(plane, Arm.CANDIDATE) == (0, 0)
    assert "misses_relative" not in guardrails_of(plane.parts.settings)


async def test_what_is_said_goes_to_the_event_log(plane: Plane) -> None:
    kept: list[FeedbackEvent] = []
    listener = next(each for each in intake_of(plane)._listeners if type(each).__name__ == "FeedbackLog")
    listener._record = kept.append  # type: ignore[attr-defined]
    answer = await plane.client.post("/v1/rerank", json=BODY, headers=CANDIDATE | {"x-request-id": "my-own-id"})
    await counted(plane, answer.headers[HEADER], clicked=[SIXTH], voted_down=[LAST])
    click, vote = kept
    assert (click.request_id, click.arm, click.action, click.vote) == ("my-own-id", "candidate", "clicked", None)
    assert (click.indices, click.ranks, click.share_percent) == ((SIXTH,), (6,), 5)
    assert (vote.action, vote.vote, vote.ranks) == ("voted", -1, (12,))
    assert click.served_at is not None
    assert 0 <= click.received_at - click.served_at < 60


async def test_no_token_says_who_asked_or_what(plane: Plane) -> None:
    answer = await plane.client.post("/v1/rerank", json=BODY, headers={"x-user-id": "somebody@example.org"})
    raw = base64.urlsafe_b64decode(answer.headers[HEADER] + "==")
    assert b"somebody" not in raw
