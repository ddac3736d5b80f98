"""Shadows in process: who is shadowed and who is not, what is compared, and that nobody who is served feels it."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor

from alerts.guardrails import EVENTS, VALUES, Value
from alerts.signals import LEVELS, tick_of
from flags.bucketing import bucket
from flags.ramp import Rollback
from proxy.arms.base import Shared, Usage
from proxy.arms.cross_encoder import CrossEncoderArm
from proxy.arms.llm import LlmArm
from proxy.arms.remote import RemoteArm
from proxy.doubt import Doubt
from proxy.engine.calibration import Calibration
from proxy.errors import BackendError
from proxy.exposure import Exposure, Outcome, Role
from proxy.settings import CrossEncoderBackend, LlmBackend, RemoteBackend
from proxy.shadow import Shadower, Skip, is_sampled
from proxy.shadow_metrics import ShadowMetrics
from proxy.status import status_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from proxy.shadow import Shadowed
    from tests.conftest import Plane

CANDIDATE, CONTROL = {"x-user-id": "u7"}, {"x-user-id": "u1"}
DOCUMENTS = [" ".join("abcdefghijkl"[:words]) for words in (3, 1, 12, 5, 8, 2, 10, 4, 7, 6, 11, 9)]
"""Twelve that all have another number of the query's words."""
BODY = {"query": "a b c d e f g h i j k l", "documents": DOCUMENTS}
ALL = {"RERANK_CANARY__SHADOW__IS_ON": "true", "RERANK_CANARY__SHADOW__CONTROL_PERCENT": "100"} | {
    "RERANK_CANARY__SHADOW__CANDIDATE_PERCENT": "100"
}


class Shadowing:
    """A plane that shadows every user, unless *env* says otherwise."""

    def __init__(self, make_plane: Callable[..., Plane], **env: str) -> None:
        self.plane = make_plane(**ALL | env)
        found = self.plane.parts.shadower
        assert found is not None
        self.shadower: Shadower = found
        self.seen: list[Shadowed] = []
        self.exposures: list[Exposure] = []
        self.shadower._observers = [*self.shadower._observers, self.seen.append]
        self.plane.parts.observers._observers = [*self.plane.parts.observers._observers, self]

    def observe(self, exposure: Exposure) -> None:
        self.exposures.append(exposure)

    async def ask(self, headers: dict[str, str], **fields: Any) -> httpx.Response:
        """Ask, and leave the shadows under way."""
        return await self.plane.client.post("/v1/rerank", json=BODY | fields, headers=headers)

    async def settle(self) -> None:
        while tasks := list(self.shadower._tasks):
            await asyncio.gather(*tasks)

    async def shadowed(self, headers: dict[str, str], **fields: Any) -> Shadowed:
        """Ask, and return what came of the shadow."""
        assert (await self.ask(headers, **fields)).status_code == 200
        await self.settle()
        return self.seen[-1]

    async def skips(self, headers: dict[str, str], **fields: Any) -> dict[Skip, int]:
        """Ask, and return why requests were not shadowed so far."""
        await self.ask(headers, **fields)
        await self.settle()
        return dict(self.shadower.skipped)

    def sample(self, name: str, **labels: str) -> float:
        return self.plane.parts.otel.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def shadowing(make_plane: Callable[..., Plane]) -> Shadowing:
    return Shadowing(make_plane)


def reverse(shadowing: Shadowing) -> None:
    """Let the candidate rank everything the wrong way round."""
    right = shadowing.plane.gpt.score_one
    shadowing.plane.cross_encoder.score_one = lambda query, document: -right(query, document)


def measures(found: Shadowed) -> list[float | None]:
    assert found.agreement is not None
    return [getattr(found.agreement, name) for name in found.agreement.__struct_fields__]


@pytest.mark.parametrize("headers", [CONTROL, CANDIDATE], ids=["control", "candidate"])
async def test_the_same_arm_twice_agrees_wholly(make_plane: Callable[..., Plane], headers: dict[str, str]) -> None:
    shadowing = Shadowing(make_plane, RERANK_CANARY__ARMS__CANDIDATE="gpt")
    found = await shadowing.shadowed(headers)
    assert measures(found) == [pytest.approx(1)] * 6
    assert len(shadowing.plane.gpt.calls) == 2


@pytest.mark.parametrize(
    ("headers", "role"), [(CONTROL, Role.CANDIDATE), (CANDIDATE, Role.CONTROL)], ids=["control", "candidate"]
)
async def test_a_candidate_whose_order_is_reversed_is_seen(
    shadowing: Shadowing, headers: dict[str, str], role: Role
) -> None:
    reverse(shadowing)
    found = await shadowing.shadowed(headers)
    assert found.agreement is not None
    assert (found.arm.value, found.attempt.role) == ("candidate" if headers == CANDIDATE else "control", role)
    assert (found.agreement.overlap_at_5, found.agreement.top_1) == (0, 0)
    arm = found.arm.value
    assert shadowing.sample("rerank_overlap_count", rerank_arm=arm, rerank_overlap_metric="rbo") == 1
    assert shadowing.sample("rerank_overlap_sum", rerank_arm=arm, rerank_overlap_metric="overlap_at_5") == 0


async def test_each_recall_is_of_the_arm_it_is_named_after(shadowing: Shadowing) -> None:
    """The candidate puts what control has at the very end to the top, and else agrees."""
    last = {"a", "a b"}
    right = shadowing.plane.gpt.score_one
    shadowing.plane.cross_encoder.score_one = lambda q, d: 1000.0 if d in last else right(q, d)
    for headers in (CONTROL, CANDIDATE):
        found = await shadowing.shadowed(headers)
        assert found.agreement is not None
        assert (found.agreement.candidate_recall_at_10, found.agreement.control_recall_at_10) == (1, 3 / 5)


async def test_an_answer_does_not_wait_for_its_shadow(shadowing: Shadowing) -> None:
    release = asyncio.Event()
    score = shadowing.plane.cross_encoder.score

    async def gated(*args: Any, **fields: Any) -> Any:
        await release.wait()
        return await score(*args, **fields)

    shadowing.plane.cross_encoder.score = gated  # type: ignore[method-assign]
    response = await shadowing.ask(CONTROL)
    assert response.status_code == 200
    assert shadowing.shadower.under_way == 1
    release.set()
    await shadowing.settle()
    assert len(shadowing.seen) == 1


async def test_while_nobody_has_the_candidate_it_is_shadowed(make_plane: Callable[..., Plane]) -> None:
    shadowing = Shadowing(make_plane, RERANK_CANARY__FLAG__INITIAL_SHARE_PERCENT="0")
    found = await shadowing.shadowed(CANDIDATE)
    assert (found.arm.value, found.attempt.role) == ("control", Role.CANDIDATE)


async def test_a_shadow_is_no_users_request(shadowing: Shadowing) -> None:
    shadowing.plane.gpt.cost_dollars = 0.001
    await shadowing.shadowed(CANDIDATE)
    [exposure] = shadowing.exposures
    assert [attempt.role for attempt in exposure.attempts] == [Role.CANDIDATE]
    assert exposure.cost_dollars == 0
    parts = shadowing.plane.parts
    assert [arm.requests for arm in parts.signals.signals.arms] == [0, 1]
    assert parts.budget.last_hour(time.time()).microdollars == 0
    labels = {"rerank_role": "control", "rerank_outcome": "ok"}
    assert shadowing.sample("rerank_attempt_duration_seconds_count", **labels) == 0
    assert shadowing.sample("rerank_shadow_duration_seconds_count", **labels) == 1
    assert shadowing.sample("rerank_shadow_cost_USD_total", rerank_role="control") == pytest.approx(0.001)
    assert shadowing.sample("rerank_cost_USD_total", rerank_arm="candidate", rerank_role="control") == 0


async def test_a_spent_budget_shadows_no_more(make_plane: Callable[..., Plane]) -> None:
    shadowing = Shadowing(make_plane, RERANK_CANARY__SHADOW__MAX_DOLLARS_PER_HOUR="0.005")
    shadowing.plane.gpt.cost_dollars = 0.003
    for _ in range(4):
        await shadowing.skips(CANDIDATE)
    assert shadowing.shadower.skipped == {Skip.BUDGET: 2}
    assert len(shadowing.seen) == 2
    labels = {"rerank_role": "control", "rerank_skip_reason": "budget"}
    assert shadowing.sample("rerank_shadow_skipped_total", **labels) == 2
    found = status_of(shadowing.plane.parts)["shadow"]
    assert (found["last_minute"], found["is_budget_spent"], found["skipped"]) == (2, True, {"budget": 2})
    assert found["dollars_last_hour"] == pytest.approx(0.006)


async def test_a_shadow_that_fails_is_paid_for(shadowing: Shadowing) -> None:
    shadowing.plane.gpt.fault = BackendError("boom")
    shadowing.plane.gpt.fault.usage = Usage(10, 10, 0.5)
    found = await shadowing.shadowed(CANDIDATE)
    assert (found.attempt.outcome, found.agreement) == (Outcome.ERROR, None)
    assert shadowing.shadower.budget.last_hour(time.time()).microdollars == 500_000


async def test_over_the_cap_nothing_is_shadowed(make_plane: Callable[..., Plane]) -> None:
    shadowing = Shadowing(make_plane, RERANK_CANARY__SHADOW__MAX_CONCURRENCY="2")
    shadowing.plane.cross_encoder.delay_seconds = 60
    for _ in range(3):
        assert (await shadowing.ask(CONTROL)).status_code == 200
    assert (shadowing.shadower.under_way, shadowing.shadower.skipped) == (2, {Skip.CONCURRENCY: 1})
    await shadowing.shadower.close()


async def test_a_shutdown_drops_what_is_under_way_and_counts_it(shadowing: Shadowing) -> None:
    shadowing.plane.cross_encoder.delay_seconds = 60
    for _ in range(2):
        await shadowing.ask(CONTROL)
    await asyncio.sleep(0)
    await shadowing.shadower.close()
    await shadowing.ask(CONTROL)
    assert (shadowing.shadower.under_way, shadowing.shadower.skipped) == (0, {Skip.SHUTDOWN: 3})


async def test_shadows_that_fail_open_a_breaker_of_their_own_and_not_the_users(
    make_plane: Callable[..., Plane],
) -> None:
    shadowing = Shadowing(make_plane, RERANK_CANARY__FALLBACK__BREAKER_FAILURES="3")
    shadowing.plane.cross_encoder.fault = BackendError("boom")
    for _ in range(5):
        await shadowing.skips(CONTROL)
    assert not shadowing.plane.parts.trier.arms[Role.CANDIDATE].breaker.is_open
    assert (len(shadowing.seen), shadowing.shadower.skipped) == (3, {Skip.BREAKER: 2})
    shadowing.plane.cross_encoder.fault = None
    assert (await shadowing.ask(CANDIDATE)).headers["x-rerank-served-by"] == "candidate"


async def test_an_arm_that_is_spared_for_users_is_spared_by_shadows_and_stays_so(
    make_plane: Callable[..., Plane],
) -> None:
    shadowing = Shadowing(make_plane, RERANK_CANARY__FALLBACK__BREAKER_FAILURES="1")
    breaker = shadowing.plane.parts.trier.arms[Role.CANDIDATE].breaker
    breaker.failed(time.monotonic() - 60)  # its next user is the trial
    assert await shadowing.skips(CONTROL) == {Skip.BREAKER: 1}
    assert not shadowing.plane.cross_encoder.calls
    assert breaker.is_open
    assert breaker.allows(time.monotonic())


async def test_after_a_rollback_the_candidate_is_left_alone(shadowing: Shadowing) -> None:
    roll_back(shadowing)
    assert await shadowing.skips(CONTROL) == {Skip.ROLLED_BACK: 1}
    assert not shadowing.plane.cross_encoder.calls


async def test_after_a_rollback_the_candidate_is_shadowed_where_configured(make_plane: Callable[..., Plane]) -> None:
    shadowing = Shadowing(make_plane, RERANK_CANARY__SHADOW__AFTER_ROLLBACK="true")
    roll_back(shadowing)
    assert (await shadowing.shadowed(CANDIDATE)).arm.value == "control"


def roll_back(shadowing: Shadowing) -> None:
    told = Rollback(rollback_id="r", at=0.0, actor="adam", reason="", from_share_percent=5)
    shadowing.plane.parts.rollout.latch.decide(told)


async def test_a_request_that_fell_back_is_compared_by_the_candidates_own_order(shadowing: Shadowing) -> None:
    """The fallback is control here, so its order is known already: it is asked once, and paid for once."""
    shadowing.plane.parts.trier.doubt = Doubt("mean", 2, 1000.0, Calibration())
    shadowing.plane.gpt.cost_dollars = 0.001
    reverse(shadowing)
    found = await shadowing.shadowed(CANDIDATE)
    assert (found.was_known, found.agreement and found.agreement.overlap_at_5) == (True, 0)
    assert len(shadowing.plane.gpt.calls) == 1
    assert shadowing.shadower.budget.last_hour(time.time()).microdollars == 0
    assert shadowing.sample("rerank_shadow_cost_USD_total", rerank_role="control") == 0


async def test_what_is_known_already_is_a_fair_sample_only_if_the_budget_holds_for_it_too(
    make_plane: Callable[..., Plane],
) -> None:
    shadowing = Shadowing(make_plane, RERANK_CANARY__SHADOW__MAX_DOLLARS_PER_HOUR="0")
    shadowing.plane.parts.trier.doubt = Doubt("mean", 2, 1000.0, Calibration())
    assert await shadowing.skips(CANDIDATE) == {Skip.BUDGET: 1}


async def test_without_an_order_of_the_assigned_arm_there_is_nothing_to_compare(shadowing: Shadowing) -> None:
    shadowing.plane.cross_encoder.fault = BackendError("boom")
    assert await shadowing.skips(CANDIDATE) == {Skip.NO_RANKING: 1}


@pytest.mark.parametrize("documents", [[], ["a"], ["a", "a", " "]], ids=["none", "one", "one that counts"])
async def test_one_order_is_all_there_is_of_one_document(shadowing: Shadowing, documents: list[str]) -> None:
    assert await shadowing.skips(CONTROL, documents=documents) == {Skip.TOO_FEW: 1}


async def test_an_arm_that_is_not_well_is_left_alone(shadowing: Shadowing) -> None:
    shadowing.plane.cross_encoder.is_well = False
    assert await shadowing.skips(CONTROL) == {Skip.NOT_READY: 1}


async def test_an_arm_without_an_idle_moment_is_left_to_the_users(make_plane: Callable[..., Plane]) -> None:
    shadowing = Shadowing(make_plane, RERANK_CANARY__SHADOW__DEADLINE_SECONDS="0.05")
    shadowing.plane.cross_encoder.is_idle = False  # type: ignore[attr-defined]
    assert await shadowing.skips(CONTROL) == {Skip.BUSY: 1}
    assert not shadowing.plane.cross_encoder.calls


async def test_a_shadow_waits_for_an_idle_moment(shadowing: Shadowing) -> None:
    shadowing.plane.cross_encoder.is_idle = False  # type: ignore[attr-defined]
    await shadowing.ask(CONTROL)
    await asyncio.sleep(0)
    assert not shadowing.plane.cross_encoder.calls
    shadowing.plane.cross_encoder.is_idle = True  # type: ignore[attr-defined]
    await shadowing.settle()
    assert len(shadowing.seen) == 1


async def test_a_testers_forced_request_is_not_shadowed(shadowing: Shadowing) -> None:
    token = (shadowing.plane.parts.settings.data_dir / "control.token").read_text().strip()
    headers = {**CONTROL, "x-rerank-force-arm": "control", "x-rerank-control-key": token}
    assert await shadowing.skips(headers) == {}
    assert not shadowing.seen


async def test_a_request_that_nobody_could_answer_is_not_shadowed(shadowing: Shadowing) -> None:
    shadowing.plane.gpt.fault = shadowing.plane.cross_encoder.fault = BackendError("boom")
    assert (await shadowing.ask(CONTROL)).status_code == 503
    assert (shadowing.shadower.under_way, shadowing.shadower.skipped) == (0, {})


async def test_every_ranking_of_a_score_request_is_shadowed(shadowing: Shadowing) -> None:
    body = {"text_1": ["a", "a", "b", "b"], "text_2": ["a", "b", "a", "b"]}
    response = await shadowing.plane.client.post("/score", json=body, headers=CONTROL)
    assert response.status_code == 200
    await shadowing.settle()
    assert [query for query, _ in shadowing.plane.cross_encoder.calls] == ["a", "b"]


async def test_a_defect_of_ours_costs_that_shadow_and_is_counted(shadowing: Shadowing) -> None:
    def broken(_: Shadowed) -> None:
        raise ZeroDivisionError

    shadowing.shadower._observers = [broken]
    assert await shadowing.skips(CONTROL) == {Skip.FAILED: 1}


async def test_the_guard_counts_the_overlap_with_the_users_group(shadowing: Shadowing) -> None:
    reverse(shadowing)
    for headers in (CONTROL, CANDIDATE):
        await shadowing.shadowed(headers)
    tick = tick_of(shadowing.plane.parts.signals.signals, None)
    assert tick.values[0, VALUES.index(Value.OVERLAP), 0] == 2
    stream = len(EVENTS) + VALUES.index(Value.OVERLAP)
    groups = {exposure.user_group for exposure in shadowing.exposures}
    assert {*tick.group_trials[0, 1, stream].nonzero()[0].tolist()} == groups
    assert tick.group_bad[0, 1, stream].sum() == 0


async def test_equal_orders_count_as_one_for_the_guard(shadowing: Shadowing) -> None:
    await shadowing.shadowed(CONTROL)
    tick = tick_of(shadowing.plane.parts.signals.signals, None)
    assert tick.values[0, VALUES.index(Value.OVERLAP), LEVELS - 1] == 1


async def test_an_overlap_that_cannot_vary_says_nothing_to_the_guard(shadowing: Shadowing) -> None:
    found = await shadowing.shadowed(CONTROL, documents=DOCUMENTS[:5])
    assert found.agreement is not None
    assert tick_of(shadowing.plane.parts.signals.signals, None).values.sum() == 0


@pytest.mark.parametrize(
    "env",
    [{"RERANK_CANARY__SHADOW__IS_ON": "false"}, {"USE_CROSS_ENCODER": "false"}],
    ids=["shadows off", "candidate off"],
)
async def test_nothing_is_shadowed_where_it_is_off(make_plane: Callable[..., Plane], env: dict[str, str]) -> None:
    plane = make_plane(**ALL | env)
    assert plane.parts.shadower is None
    assert status_of(plane.parts)["shadow"] is None
    assert (await plane.client.post("/v1/rerank", json=BODY, headers=CONTROL)).status_code == 200


async def test_each_arms_users_have_a_rate_of_their_own(make_plane: Callable[..., Plane]) -> None:
    shadowing = Shadowing(make_plane, RERANK_CANARY__SHADOW__CANDIDATE_PERCENT="0")
    await shadowing.ask(CANDIDATE)
    await shadowing.settle()
    assert not shadowing.seen
    assert (await shadowing.shadowed(CONTROL)).arm.value == "control"


def test_a_sample_has_its_share_of_the_users_and_grows_without_changing_them() -> None:
    users = [f"user-{number}" for number in range(20_000)]
    few, more = ({user for user in users if is_sampled(user, percent)} for percent in (1.5, 10))
    assert few < more
    assert len(few) == pytest.approx(300, abs=80)
    assert len(more) == pytest.approx(2000, abs=200)
    assert not any(is_sampled(user, 0) for user in users)
    assert all(is_sampled(user, 100) for user in users)


def test_the_sample_has_nothing_to_do_with_who_has_the_candidate() -> None:
    sampled = [user for user in (f"user-{number}" for number in range(40_000)) if is_sampled(user, 10)]
    share = sum(bucket("rerank-canary", user) <= 10 for user in sampled) / len(sampled)
    assert share == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize(("concurrency", "is_idle"), [(1, False), (2, False), (3, True)])
async def test_a_server_is_idle_for_shadows_while_half_of_its_places_are_free(
    concurrency: int, *, is_idle: bool
) -> None:
    arms: list[RemoteArm | LlmArm] = [
        RemoteArm(RemoteBackend(api="tei", base_url="http://127.0.0.1:9", concurrency=concurrency)),
        LlmArm(LlmBackend(concurrency=concurrency)),
    ]
    for arm in arms:
        assert arm.is_idle
        arm._running = 1
        assert arm.is_idle is is_idle
        assert isinstance(arm, Shared)


async def test_the_model_is_idle_for_shadows_while_nothing_waits_for_it() -> None:
    arm = CrossEncoderArm(CrossEncoderBackend())
    idle = [arm.is_idle]
    await arm.start()
    idle.append(arm.is_idle)
    under_way = asyncio.create_task(arm.score("a", ["b", "c"], deadline=time.monotonic() + 30))
    await asyncio.sleep(0)
    idle.append(arm.is_idle)
    await under_way
    idle.append(arm.is_idle)
    await arm.close()
    assert idle == [False, True, False, True]


async def test_a_pair_is_an_evaluation_event_of_the_users_trace(shadowing: Shadowing) -> None:
    exported = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exported))
    metrics = next(each.__self__ for each in shadowing.shadower._observers if isinstance(each.__self__, ShadowMetrics))  # type: ignore[attr-defined]
    metrics._evaluations._events = provider.get_logger("test")
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    await shadowing.shadowed({**CONTROL, "traceparent": f"00-{trace_id}-b7ad6b7169203331-01"})
    [record] = [data.log_record for data in exported.get_finished_logs()]
    assert record.event_name == "gen_ai.evaluation.result"
    assert record.trace_id == int(trace_id, 16)
    assert record.attributes == {
        "gen_ai.evaluation.name": "rerank.overlap.rbo",
        "gen_ai.evaluation.score.value": pytest.approx(1),
        "rerank.arm": "control",
    }
