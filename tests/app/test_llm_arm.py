"""What the language model's arm says that its calls cost, over a real socket to a scripted server."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from proxy.arms.llm import LlmArm
from proxy.errors import BackendError, DeadlineExceeded, InvalidAnswer, ProxyError
from proxy.secrets import Secret
from proxy.settings import LlmBackend
from proxy.stand_in import StandIn
from proxy.status import status_of
from tests.parts import llm_replies as llm_says
from tests.parts.llm import ScriptedLlm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Plane
    from tests.parts.llm import Reply

TEXTS = ["one two", "two three", "four"]
TOKENS = llm_says.USAGE["prompt_tokens"], llm_says.USAGE["completion_tokens"]


@pytest.fixture
def llm() -> Iterator[ScriptedLlm]:
    with ScriptedLlm(llm_says.scores()) as started:
        yield started


async def started(llm: ScriptedLlm, **fields: object) -> LlmArm:
    arm = LlmArm(LlmBackend(base_url=llm.base_url, api_key=Secret("k"), **fields))  # type: ignore[arg-type]
    await arm.start()
    return arm


async def failure(arm: LlmArm, seconds: float = 5.0) -> ProxyError:
    with pytest.raises(ProxyError) as caught:
        await arm.score("two", TEXTS, deadline=time.monotonic() + seconds)
    await arm.close()
    return caught.value


@pytest.mark.parametrize(
    "reply",
    [llm_says.cut_off(), llm_says.refusal(), llm_says.filtered(), llm_says.garbage(), llm_says.wrong_ids()],
    ids=["cut off", "refusal", "filtered", "garbage", "wrong ids"],
)
async def test_an_answer_that_is_no_ranking_costs_what_the_server_says(llm: ScriptedLlm, reply: Reply) -> None:
    arm = await started(llm)
    good = await arm.score("two", TEXTS, deadline=time.monotonic() + 5)
    llm.next(reply)
    error = await failure(arm)
    assert isinstance(error, InvalidAnswer)
    assert error.usage is not None
    assert (error.usage.tokens, error.usage.output_tokens) == TOKENS
    assert error.usage.cost_dollars == pytest.approx(good.cost_dollars) != 0


async def test_a_call_given_up_on_costs_the_prompt(llm: ScriptedLlm) -> None:
    llm.next(llm_says.delayed(1.0, llm_says.scores()))
    error = await failure(await started(llm), seconds=0.3)
    assert isinstance(error, DeadlineExceeded)
    assert error.usage is not None
    assert error.usage.tokens > 100
    assert error.usage.cost_dollars > 0


async def test_a_call_that_the_server_refuses_costs_nothing(llm: ScriptedLlm) -> None:
    llm.next(llm_says.error(500))
    error = await failure(await started(llm))
    assert isinstance(error, BackendError)
    assert error.usage is not None
    assert (error.usage.tokens, error.usage.cost_dollars) == (0, 0)


async def test_a_window_that_fails_loses_nothing_of_what_the_others_cost_and_leaves_none_running(
    llm: ScriptedLlm,
) -> None:
    arm = await started(llm, max_context_tokens=arm_overhead() + 15, window_overlap=0)
    before = asyncio.all_tasks()
    llm.always = lambda call: (
        llm_says.delayed(0.3, llm_says.cut_off())(call) if "four" in call.documents.values() else GOOD(call)
    )
    error = await failure(arm)
    assert len(llm.calls) == 3
    assert error.usage is not None
    assert (error.usage.tokens, error.usage.output_tokens) == (3 * TOKENS[0], 3 * TOKENS[1])
    assert asyncio.all_tasks() == before


GOOD = llm_says.scores()


def arm_overhead() -> int:
    overhead: int = LlmArm(LlmBackend())._overhead
    return overhead


async def test_a_model_without_a_price_is_said_to_be_counted_as_free(llm: ScriptedLlm) -> None:
    with capture_logs() as logged:
        arm = await started(llm, model="gpt-unknown")
    assert not arm.has_price
    assert [line["log_level"] for line in logged if line["event"] == "llm.no_price"] == ["warning"]
    assert (await arm.score("two", TEXTS, deadline=time.monotonic() + 5)).cost_dollars == 0
    await arm.close()


async def test_the_stand_in_costs_nothing_and_needs_no_price() -> None:
    stand_in = StandIn(0.0)
    await stand_in.start()
    arm = LlmArm(LlmBackend(), stand_in_url=stand_in.url)
    await arm.start()
    answer = await arm.score("two", TEXTS, deadline=time.monotonic() + 5)
    assert arm.has_price
    assert answer.tokens > 0
    assert answer.cost_dollars == 0
    await arm.close()
    await stand_in.close()


async def test_the_status_names_the_models_that_no_dollar_budget_sees(plane: Plane) -> None:
    plane.parts.arms["gpt"] = LlmArm(LlmBackend(model="gpt-unknown", api_key=Secret("k")))
    assert status_of(plane.parts)["fallback"]["without_a_price"] == ["gpt-unknown"]
