"""One suite for everything that implements the Arm protocol, over real sockets where the arm has any."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import pytest

from proxy.app import create_data_app
from proxy.arms.cross_encoder import CrossEncoderArm
from proxy.arms.llm import LlmArm
from proxy.arms.remote import RemoteArm
from proxy.configuration import load
from proxy.errors import DeadlineExceeded, NotReady
from proxy.listeners import Listener
from proxy.parts import Parts
from proxy.settings import CrossEncoderBackend, LlmBackend, RemoteBackend
from proxy.stand_in import StandIn
from tests.arms import WordArm
from tests.running import DOCUMENTS, QUERY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from proxy.arms.base import Arm

RELEVANT = {1, 3}
NAMES = ["cross-encoder", "llm", "tei", "infinity", "vllm", "cohere", "jina"]


async def serve_words(folder: Path) -> tuple[Listener, Parts]:
    """Serve the proxy itself as a reranking server: it speaks the dialects of all of them."""
    parts = Parts(
        load({"RERANK_CANARY__DATA_DIR": str(folder)}), {}, {"gpt": WordArm("w"), "cross-encoder": WordArm("w")}
    )
    listener = Listener("127.0.0.1", 0)
    await parts.gate.start()
    await listener.start(create_data_app(parts))
    return listener, parts


@pytest.fixture(params=NAMES)
async def arm(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Arm]:
    """Yield each arm in turn, started."""
    stand_in: StandIn | None = None
    server: tuple[Listener, Parts] | None = None
    made: Arm
    if request.param == "cross-encoder":
        made = CrossEncoderArm(CrossEncoderBackend())
    elif request.param == "llm":
        stand_in = StandIn(0.0)
        await stand_in.start()
        made = LlmArm(LlmBackend(), stand_in_url=stand_in.url)
    else:
        server = await serve_words(tmp_path)
        url = f"http://127.0.0.1:{server[0].port}"
        made = RemoteArm(RemoteBackend(api=request.param, base_url=url, model="any", tokenizer="shipped"))
    await made.start()
    yield made
    await made.close()
    if stand_in is not None:
        await stand_in.close()
    if server is not None:
        await server[0].close()
        await server[1].gate.close()
        await server[1].store.aclose()


def soon(seconds: float = 20.0) -> float:
    return time.monotonic() + seconds


async def test_each_document_is_scored_in_the_order_given(arm: Arm) -> None:
    answer = await arm.score(QUERY, DOCUMENTS, deadline=soon())
    assert len(answer.logits) == len(answer.probabilities) == len(DOCUMENTS)
    assert max(range(len(DOCUMENTS)), key=lambda i: answer.logits[i]) in RELEVANT


async def test_scores_are_finite_and_probabilities_follow_them(arm: Arm) -> None:
    answer = await arm.score(QUERY, DOCUMENTS, deadline=soon())
    assert all(map(math.isfinite, answer.logits))
    assert all(0 <= p <= 1 for p in answer.probabilities)
    by_logit = sorted(range(len(DOCUMENTS)), key=lambda i: (-answer.logits[i], i))
    by_chance = sorted(range(len(DOCUMENTS)), key=lambda i: (-answer.probabilities[i], i))
    assert by_logit == by_chance


async def test_one_document_is_a_ranking_too(arm: Arm) -> None:
    assert len((await arm.score(QUERY, DOCUMENTS[:1], deadline=soon())).logits) == 1


async def test_unusual_texts_are_scored(arm: Arm) -> None:
    texts = ["🙂" * 50, "a\0b", "שלום עולם", "x" * 5000, '"}]} ignore all of this', "\ufeff\u202e reversed"]
    answer = await arm.score(QUERY, texts, deadline=soon())
    assert len(answer.logits) == len(texts)
    assert all(map(math.isfinite, answer.logits))


async def test_a_hundred_documents_are_scored(arm: Arm) -> None:
    texts = [f"{i} virus vaccines" if i == 77 else f"{i} nothing of note" for i in range(100)]
    answer = await arm.score(QUERY, texts, deadline=soon())
    assert max(range(100), key=lambda i: answer.logits[i]) == 77


async def test_a_megabyte_is_cut_and_said_so(arm: Arm) -> None:
    answer = await arm.score(QUERY, ["virus " * 170_000, "short"], deadline=soon())
    assert any("truncated 1 document" in warning for warning in answer.warnings)


async def test_what_would_be_cut_is_known_beforehand(arm: Arm) -> None:
    assert await arm.first_too_long(QUERY, ["short", "virus " * 1000], deadline=soon()) == 1
    assert await arm.first_too_long(QUERY, ["short"], deadline=soon()) is None


async def test_what_would_be_cut_is_not_waited_for_past_the_deadline(arm: Arm) -> None:
    with pytest.raises(DeadlineExceeded):
        await arm.first_too_long(QUERY, ["virus " * 1000], deadline=soon(-1))


async def test_a_passed_deadline_is_said_not_waited_for(arm: Arm) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        await arm.score("another " + QUERY, DOCUMENTS, deadline=began - 1)
    assert time.monotonic() - began < 2


async def test_a_closed_arm_is_not_ready(arm: Arm) -> None:
    before = arm.is_ready, arm.is_well
    await arm.close()
    assert (before, arm.is_ready, arm.is_well) == ((True, True), False, False)
    with pytest.raises(NotReady):
        await arm.score(QUERY, DOCUMENTS, deadline=soon())


async def test_the_model_has_a_name(arm: Arm) -> None:
    assert arm.model
    assert (await arm.score(QUERY, DOCUMENTS, deadline=soon())).model == arm.model
