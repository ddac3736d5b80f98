"""What a real OTLP receiver gets of a run with every kind of request in it, and that nobody's words are among it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.pages import metrics_page
from tests.integration.told import DOCUMENT, PARENT_SPAN, PARENT_TRACE, SECRETS, USER, tell_everything
from tests.parts import llm_replies
from tests.parts.llm import ScriptedLlm
from tests.parts.otlp import OtlpReceiver, Protocol, attributes, points
from tests.parts.programs import eventually
from tests.running import Proxy

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.told import Told


class Run:
    """A proxy that was asked everything and then stopped, and what it had told by then."""

    def __init__(self, folder: Path, protocol: Protocol) -> None:
        with OtlpReceiver() as self.receiver, ScriptedLlm(llm_replies.scores()) as llm:
            env = self.receiver.env(protocol) | llm.env
            noisy = {"RERANK_CANARY__TELEMETRY__LOG_LEVEL": "debug", "OPENAI_LOG": "debug"}
            threshold = {"LLM_FALLBACK_THRESHOLD": "0.5"}
            with Proxy(folder, env | noisy | threshold) as proxy:
                self.told: Told = tell_everything(proxy, llm)
                self.page = metrics_page(proxy)
                eventually(lambda: self.receiver.metrics("rerank.requests"))
            self.log = proxy.log.read_text(errors="replace")

    @property
    def exported(self) -> str:
        return self.receiver.text()

    def span_of(self, request: str) -> Any:
        """Return the server span of one of the requests."""
        wanted = self.told.request_ids[request]
        [span] = [s for s in self.receiver.spans() if attributes(s).get("rerank.request.id") == wanted]
        return span

    def children_of(self, span: Any) -> list[Any]:
        return [s for s in self.receiver.spans() if s.parent_span_id == span.span_id]


@pytest.fixture(scope="module", params=["grpc", "http/protobuf"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return the run, once over each protocol; it is told to stop before anything is looked at."""
    return Run(tmp_path_factory.mktemp("run"), request.param)


def total(run: Run, name: str, **wanted: str) -> float:
    """Return the last value of a counter, or of a histogram's count, over the points with these attributes."""
    last: dict[str, float] = {}
    for metric in run.receiver.metrics(name):
        for point in points(metric):
            found = attributes(point)
            if all(found.get(key.replace("__", ".")) == value for key, value in wanted.items()):
                last[str(sorted(found.items()))] = point.count if hasattr(point, "count") else _number(point)
    return sum(last.values())


def _number(point: Any) -> float:
    value: float = getattr(point, point.WhichOneof("value"))
    return value


def test_every_ranking_is_counted(run: Run) -> None:
    assert total(run, "rerank.requests") == len(run.told.request_ids)


@pytest.mark.parametrize("arm", ["candidate", "control"])
def test_rankings_are_counted_by_the_assigned_arm(run: Run, arm: str) -> None:
    assert total(run, "rerank.requests", rerank__arm=arm) == run.told.by_arm[arm]


def test_the_duration_of_every_ranking_is_measured(run: Run) -> None:
    assert total(run, "rerank.request.duration") == len(run.told.request_ids)


@pytest.mark.parametrize(
    ("name", "unit"),
    [
        ("rerank.requests", "{request}"),
        ("rerank.request.duration", "s"),
        ("rerank.attempt.duration", "s"),
        ("rerank.queue.duration", "s"),
        ("rerank.fallbacks", "{fallback}"),
        ("rerank.cost", "USD"),
        ("rerank.documents", "{document}"),
        ("rerank.flag.age", "s"),
        ("rerank.flag.share", "%"),
        ("rerank.store.up", "1"),
        ("gen_ai.client.operation.duration", "s"),
        ("gen_ai.client.token.usage", "{token}"),
        ("http.server.request.duration", "s"),
    ],
)
def test_the_receiver_gets_the_instrument(run: Run, name: str, unit: str) -> None:
    assert {metric.unit for metric in run.receiver.metrics(name)} == {unit}


def test_each_ranking_has_a_server_span(run: Run) -> None:
    found = {attributes(span).get("rerank.request.id") for span in run.receiver.spans()} - {None}
    assert found == set(run.told.request_ids.values())


def test_the_server_span_continues_the_callers_trace(run: Run) -> None:
    span = run.span_of("candidate")
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (PARENT_TRACE, PARENT_SPAN)


def test_the_server_span_names_the_flag_and_the_arm(run: Run) -> None:
    found = attributes(run.span_of("candidate"))
    assert found["feature_flag.key"] == "rerank-canary"
    assert found["feature_flag.result.variant"] == "candidate"


def test_the_call_of_an_arm_is_a_span_under_the_request(run: Run) -> None:
    [child] = run.children_of(run.span_of("candidate"))
    assert child.name.startswith("rerank minilm")
    assert child.trace_id.hex() == PARENT_TRACE


def test_the_call_of_the_language_model_is_a_span_under_its_arm(run: Run) -> None:
    [arm] = run.children_of(run.span_of("control"))
    [call] = run.children_of(arm)
    assert (arm.name, call.name) == ("rerank gpt-4o-mini", "chat gpt-4o-mini")
    assert attributes(call)["gen_ai.usage.input_tokens"] == llm_replies.USAGE["prompt_tokens"]


def test_a_fallback_has_a_span_for_either_arm(run: Run) -> None:
    found = run.children_of(run.span_of("low score"))
    assert [attributes(span)["rerank.role"] for span in found] == ["candidate", "fallback"]


def test_an_arm_that_failed_has_a_failed_span(run: Run) -> None:
    failed, rescue = run.children_of(run.span_of("control fails"))
    assert (failed.status.code, rescue.status.code) == (2, 0)
    assert attributes(failed)["error.type"] == "error"


def test_each_ranking_has_a_flag_event(run: Run) -> None:
    assert len(run.receiver.events("feature_flag.evaluation")) == len(run.told.request_ids)


def test_the_flag_event_belongs_to_the_trace_and_names_flag_variant_and_context(run: Run) -> None:
    trace = [e for e in run.receiver.events("feature_flag.evaluation") if e.trace_id.hex() == PARENT_TRACE]
    found = attributes(trace[0])
    assert (found["feature_flag.key"], found["feature_flag.result.variant"]) == ("rerank-canary", "candidate")
    assert (found["feature_flag.provider.name"], found["feature_flag.result.reason"]) == ("Unleash", "split")
    assert len(found["feature_flag.context.id"]) == 16


@pytest.mark.parametrize("place", ["exported", "log", "page"], ids=["exports", "log", "metrics page"])
@pytest.mark.parametrize("secret", SECRETS)
def test_nobodys_words_are_in_what_is_told(run: Run, place: str, secret: str) -> None:
    told: str = getattr(run, place)
    assert told
    assert secret not in told.lower()


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256", "blake2b"])
def test_no_hash_in_what_is_told_can_be_made_without_the_salt(run: Run, algorithm: str) -> None:
    digest = hashlib.new(algorithm, USER.encode()).hexdigest()[:16]
    short = hashlib.blake2b(USER.encode(), digest_size=8).hexdigest()
    told = run.exported + run.log + run.page
    assert digest not in told
    assert short not in told


def test_the_words_did_reach_the_arms(run: Run) -> None:
    assert any(DOCUMENT in text.lower() for text in run.told.seen_by_the_model)
