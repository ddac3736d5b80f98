"""DESIGN's table of failures, in process: what the caller gets, and that it is counted."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs

from proxy.arms.base import Usage
from proxy.doubt import Doubt
from proxy.engine.calibration import Calibration
from proxy.errors import BackendError, DeadlineExceeded, InvalidAnswer, NotReady, Overloaded
from proxy.exposure import Exposure, Outcome, Role

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from tests.conftest import Plane

CANDIDATE, CONTROL = {"x-user-id": "u7"}, {"x-user-id": "u1"}
BODY = {"query": "a b", "documents": ["c", "a", "a b"]}
FAULTS = {
    "error": (BackendError("boom"), Outcome.ERROR),
    "timeout": (DeadlineExceeded("late"), Outcome.TIMEOUT),
    "nonsense": (InvalidAnswer("what"), Outcome.INVALID),
    "not ready": (NotReady("no"), Outcome.ERROR),
    "foreign": (ZeroDivisionError("secret words"), Outcome.ERROR),
}
faults = pytest.mark.parametrize(("fault", "outcome"), FAULTS.values(), ids=FAULTS.keys())


class Watch:
    """Keeps the exposures that the plane's observers are given."""

    def __init__(self, plane: Plane) -> None:
        self.seen: list[Exposure] = []
        plane.parts.observers._observers = [*plane.parts.observers._observers, self]

    def observe(self, exposure: Exposure) -> None:
        self.seen.append(exposure)

    @property
    def last(self) -> Exposure:
        return self.seen[-1]


async def ask(plane: Plane, headers: dict[str, str], **fields: Any) -> httpx.Response:
    return await plane.client.post("/v1/rerank", json=BODY | fields, headers=headers)


def order(response: httpx.Response) -> list[int]:
    return [result["index"] for result in response.json()["results"]]


def warnings(response: httpx.Response) -> str:
    return " | ".join(response.json()["meta"].get("warnings", []))


@faults
async def test_a_candidate_that_fails_is_answered_by_the_fallback(
    plane: Plane, fault: Exception, outcome: Outcome
) -> None:
    watch = Watch(plane)
    plane.cross_encoder.fault = fault
    response = await ask(plane, CANDIDATE)
    assert response.status_code == 200
    assert order(response) == [2, 1, 0]
    assert response.headers["x-rerank-arm"] == "candidate"
    assert response.headers["x-rerank-served-by"] == "fallback"
    assert "answered by the fallback" in warnings(response)
    assert "secret" not in response.text
    assert (watch.last.outcome, watch.last.served_by, watch.last.has_fallen_back) == (outcome, Role.FALLBACK, True)


async def test_scores_that_are_not_finite_fall_back(plane: Plane) -> None:
    plane.cross_encoder.score_one = lambda _, d: math.nan if d == "c" else 1.0
    watch = Watch(plane)
    response = await ask(plane, CANDIDATE)
    assert response.headers["x-rerank-served-by"] == "fallback"
    assert watch.last.outcome is Outcome.INVALID


async def test_a_candidate_over_its_time_falls_back_within_one_deadline(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(RERANK_CANARY__DEADLINE__CANDIDATE_SECONDS="0.05")
    deadlines: list[float] = []
    original = plane.parts.trier.try_arm

    async def spy(role: Role, *args: Any, deadline: float, **fields: Any) -> Any:
        deadlines.append(deadline)
        return await original(role, *args, deadline=deadline, **fields)

    plane.parts.trier.try_arm = spy  # type: ignore[method-assign]
    plane.cross_encoder.fault = DeadlineExceeded("late")
    await ask(plane, CANDIDATE)
    assert 14 < deadlines[1] - deadlines[0] < 15


def forced(plane: Plane) -> dict[str, str]:
    """Return the headers of a tester who wants the candidate."""
    token = (plane.parts.settings.data_dir / "control.token").read_text().strip()
    return {"x-rerank-force-arm": "candidate", "x-rerank-control-key": token}


@pytest.mark.parametrize("documents", [["a"], []], ids=["one document", "none"])
@pytest.mark.parametrize("path", ["/v1/rerank", "/v2/rerank"])
async def test_a_tester_cannot_force_a_candidate_that_is_switched_off(
    make_plane: Callable[..., Plane], documents: list[str], path: str
) -> None:
    plane = make_plane(USE_CROSS_ENCODER="false")
    body = {"model": "m", "query": "a", "documents": documents}
    response = await plane.client.post(path, json=body, headers=forced(plane))
    assert 400 <= response.status_code < 500
    assert "x-rerank-force-arm" in response.text
    assert "USE_CROSS_ENCODER" in response.text


def doubtful(plane: Plane, threshold: float = 100.0) -> None:
    plane.parts.trier.doubt = Doubt("mean", 2, threshold, Calibration())


async def test_a_low_score_is_left_to_the_fallback_and_judged_as_the_candidates(plane: Plane) -> None:
    doubtful(plane)
    watch = Watch(plane)
    response = await ask(plane, CANDIDATE)
    assert response.headers["x-rerank-served-by"] == "fallback"
    assert "not sure enough" in warnings(response)
    assert watch.last.outcome is Outcome.LOW_SCORE
    assert watch.last.assignment.arm == "candidate"
    assert watch.last.attempts[0].statistic == pytest.approx(1.0)


async def test_a_score_over_the_threshold_is_served(plane: Plane) -> None:
    doubtful(plane, threshold=0.9)
    response = await ask(plane, CANDIDATE)
    assert response.headers["x-rerank-served-by"] == "candidate"
    assert not plane.gpt.calls


async def test_a_spent_share_serves_the_candidates_order_with_a_warning(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(RERANK_CANARY__FALLBACK__MIN_REQUESTS="4", RERANK_CANARY__FALLBACK__MAX_SHARE="0.5")
    doubtful(plane)
    served_by = [(await ask(plane, CANDIDATE)).headers["x-rerank-served-by"] for _ in range(6)]
    assert served_by == ["fallback"] * 4 + ["candidate"] * 2
    response = await ask(plane, CANDIDATE)
    assert "budget of 50% of the requests is spent" in warnings(response)
    assert order(response) == [2, 1, 0]


async def test_a_share_of_nothing_lets_no_low_score_fall_back(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(RERANK_CANARY__FALLBACK__MAX_SHARE="0")
    doubtful(plane)
    assert (await ask(plane, CANDIDATE)).headers["x-rerank-served-by"] == "candidate"


async def test_a_testers_fallbacks_count_for_the_dollars_and_not_for_the_share(plane: Plane) -> None:
    doubtful(plane)
    plane.gpt.cost_dollars = 0.25
    await ask(plane, forced(plane))
    spend = plane.parts.budget.last_hour(time.time())
    assert (spend.requests, spend.low_scores, spend.microdollars) == (0, 0, 250_000)


async def test_a_fallback_that_fails_is_paid_for_too(plane: Plane) -> None:
    watch = Watch(plane)
    doubtful(plane)
    plane.gpt.fault = InvalidAnswer("cut off")
    plane.gpt.fault.usage = Usage(1000, 500, 0.5)
    await ask(plane, CANDIDATE)
    attempt = watch.last.attempts[1]
    assert (attempt.tokens, attempt.output_tokens, attempt.cost_dollars) == (1000, 500, 0.5)
    assert plane.parts.budget.last_hour(time.time()).microdollars == 500_000


async def test_what_the_scores_came_to_is_logged_and_exported(plane: Plane) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    plane.parts.telemetry._tracer = provider.get_tracer("test")
    doubtful(plane)
    with capture_logs() as logged:
        await ask(plane, CANDIDATE)
    [line] = [line for line in logged if line["event"] == "rerank.served"]
    assert line["statistic"] == pytest.approx(1.0)
    found = [span.attributes.get("rerank.score.statistic") for span in spans.get_finished_spans() if span.attributes]
    assert [value for value in found if value is not None] == pytest.approx([1.0])
    registry = plane.parts.otel.registry
    labels = {"rerank_role": "candidate", "rerank_outcome": "low_score"}
    counted = [registry.get_sample_value("rerank_score_statistic_bucket", labels | {"le": le}) for le in ("0.95", "1")]
    assert counted == [0, 1]


async def test_a_spent_dollar_budget_serves_the_candidates_order_with_a_warning(
    make_plane: Callable[..., Plane],
) -> None:
    plane = make_plane(RERANK_CANARY__FALLBACK__MAX_DOLLARS_PER_HOUR="0.002")
    doubtful(plane)
    plane.gpt.cost_dollars = 0.001
    served_by = [(await ask(plane, CANDIDATE)).headers["x-rerank-served-by"] for _ in range(4)]
    assert served_by == ["fallback", "fallback", "candidate", "candidate"]


async def test_a_spent_budget_never_leaves_a_failure_without_an_answer(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(RERANK_CANARY__FALLBACK__MAX_DOLLARS_PER_HOUR="0")
    plane.cross_encoder.fault = BackendError("boom")
    response = await ask(plane, CANDIDATE)
    assert response.headers["x-rerank-served-by"] == "fallback"


async def test_a_low_score_is_served_when_the_fallback_fails_too(plane: Plane) -> None:
    doubtful(plane)
    plane.gpt.fault = BackendError("boom")
    response = await ask(plane, CANDIDATE)
    assert response.headers["x-rerank-served-by"] == "candidate"
    assert order(response) == [2, 1, 0]
    assert "the fallback arm failed" in warnings(response)


@faults
async def test_a_control_that_fails_is_answered_by_the_candidate(
    plane: Plane, fault: Exception, outcome: Outcome
) -> None:
    watch = Watch(plane)
    plane.gpt.fault = fault
    response = await ask(plane, CONTROL)
    assert order(response) == [2, 1, 0]
    assert (response.headers["x-rerank-arm"], response.headers["x-rerank-served-by"]) == ("control", "candidate")
    assert "answered by the candidate" in warnings(response)
    assert (watch.last.outcome, watch.last.served_by) == (outcome, Role.CANDIDATE)


@pytest.mark.parametrize("headers", [CANDIDATE, CONTROL], ids=["candidate", "control"])
async def test_when_no_arm_can_rank_it_is_503_with_retry_after(plane: Plane, headers: dict[str, str]) -> None:
    watch = Watch(plane)
    plane.gpt.fault = plane.cross_encoder.fault = BackendError("boom")
    response = await ask(plane, headers)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert response.headers["x-rerank-served-by"] == "nobody"
    assert (watch.last.served_by, watch.last.status) == (Role.NOBODY, 503)


async def test_when_all_time_is_used_up_it_is_504(plane: Plane) -> None:
    plane.gpt.fault = plane.cross_encoder.fault = DeadlineExceeded("late")
    assert (await ask(plane, CONTROL)).status_code == 504


@pytest.mark.parametrize("headers", [CANDIDATE, CONTROL], ids=["candidate", "control"])
async def test_the_order_received_is_the_last_resort_where_configured(
    make_plane: Callable[..., Plane], headers: dict[str, str]
) -> None:
    plane = make_plane(RERANK_CANARY__FALLBACK__LAST_RESORT="received")
    plane.gpt.fault = plane.cross_encoder.fault = BackendError("boom")
    response = await ask(plane, headers)
    assert response.status_code == 200
    assert order(response) == [0, 1, 2]
    assert response.headers["x-rerank-served-by"] == "received"
    assert "not ranked" in warnings(response)


async def test_control_stands_alone_where_the_candidate_must_not_rescue_it(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(RERANK_CANARY__FALLBACK__ON_CONTROL_FAILURE="error")
    plane.gpt.fault = BackendError("boom")
    assert (await ask(plane, CONTROL)).status_code == 503
    assert not plane.cross_encoder.calls


@pytest.mark.parametrize(
    ("headers", "arm"), [(CANDIDATE, "cross_encoder"), (CONTROL, "gpt")], ids=["candidate", "control"]
)
async def test_a_full_queue_is_429_with_retry_after_and_no_invented_score(
    plane: Plane, headers: dict[str, str], arm: str
) -> None:
    watch = Watch(plane)
    getattr(plane, arm).fault = Overloaded("full", retry_after_seconds=2.4)
    response = await ask(plane, headers)
    assert response.status_code == 429
    assert response.headers["retry-after"] == "3"
    assert int(response.headers["x-ratelimit-reset"]) > 1_700_000_000
    assert watch.last.outcome is Outcome.OVERLOADED


async def test_too_many_requests_at_once_are_429(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(RERANK_CANARY__SERVER__MAX_CONNECTIONS="1")
    with plane.parts.in_flight:
        response = await ask(plane, CONTROL)
    assert response.status_code == 429
    assert (await ask(plane, CONTROL)).status_code == 200


async def test_an_arm_that_keeps_failing_is_spared_and_tried_again_later(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(RERANK_CANARY__FALLBACK__BREAKER_FAILURES="3", RERANK_CANARY__FALLBACK__BREAKER_SECONDS="0.001")
    watch = Watch(plane)
    plane.cross_encoder.fault = BackendError("boom")
    breaker = plane.parts.trier.arms[Role.CANDIDATE].breaker
    for _ in range(3):
        await ask(plane, CANDIDATE)
    breaker._retry_at = math.inf
    assert (await ask(plane, CANDIDATE)).headers["x-rerank-served-by"] == "fallback"
    assert (len(plane.cross_encoder.calls), watch.last.outcome) == (3, Outcome.BREAKER)
    breaker._retry_at = 0.0
    plane.cross_encoder.fault = None
    assert (await ask(plane, CANDIDATE)).headers["x-rerank-served-by"] == "candidate"


async def test_refusals_to_one_user_do_not_spare_the_arm_to_others(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(RERANK_CANARY__FALLBACK__BREAKER_FAILURES="2")
    plane.gpt.fault = InvalidAnswer("refused")
    for i in range(5):
        await ask(plane, CONTROL, query=f"how to {i}")
    plane.gpt.fault = None
    assert (await ask(plane, {"x-user-id": "u2"})).headers["x-rerank-served-by"] == "control"


async def test_heavy_requests_that_time_out_do_not_spare_the_arm_to_light_ones(
    make_plane: Callable[..., Plane],
) -> None:
    plane = make_plane(RERANK_CANARY__FALLBACK__BREAKER_FAILURES="2")

    def late(_: str, document: str) -> float:
        if len(document) > 1000:
            raise DeadlineExceeded("late")
        return 1.0

    plane.cross_encoder.score_one = late
    watch = Watch(plane)
    for _ in range(4):
        await ask(plane, CANDIDATE, documents=["x" * 9000])
    assert watch.last.outcome is Outcome.BREAKER
    assert (await ask(plane, CANDIDATE)).headers["x-rerank-served-by"] == "candidate"


async def test_while_the_candidate_is_spared_the_replica_still_serves(make_plane: Callable[..., Plane]) -> None:
    plane = make_plane(RERANK_CANARY__FALLBACK__BREAKER_FAILURES="2")
    plane.cross_encoder.fault = BackendError("boom")
    for _ in range(2):
        await ask(plane, CANDIDATE)
    assert plane.parts.trier.arms[Role.CANDIDATE].breaker.is_open
    assert (await plane.client.get("/readyz")).status_code == 200


async def test_an_arm_that_is_not_well_makes_the_replica_not_ready(plane: Plane) -> None:
    plane.cross_encoder.is_well = False
    response = await plane.client.get("/readyz")
    assert (response.status_code, response.json()["checks"]["candidate_ready"]) == (503, False)
    assert (await plane.client.get("/livez")).status_code == 200
    assert (await ask(plane, CANDIDATE)).headers["x-rerank-served-by"] == "candidate"


async def test_top_n_holds_whoever_answers(plane: Plane) -> None:
    plane.cross_encoder.fault = BackendError("boom")
    assert order(await ask(plane, CANDIDATE, top_n=2)) == [2, 1]


async def test_an_observer_that_fails_is_counted_and_hurts_nobody(plane: Plane) -> None:
    class Broken:
        def observe(self, exposure: Exposure) -> None:
            raise RuntimeError(exposure.request_id)

    plane.parts.observers._observers = [Broken()]
    assert (await ask(plane, CONTROL)).status_code == 200
    assert plane.parts.observers.failures == {"Broken": 1}
