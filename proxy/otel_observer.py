"""Turns an exposure into metrics, spans and the flag event. No query, document or raw user id in any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec
from opentelemetry import trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from flags.ramp import Verdict
from flags.vocabulary import Reason
from proxy.exposure import Attempt, Exposure, Outcome, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.context import Context
    from opentelemetry.util.types import AttributeValue

    from alerts.quality import Quality
    from alerts.report import Report
    from flags.record import AuditEntry
    from proxy.otel import OpenTelemetry

_FLAG_REASONS = {
    Reason.SPLIT: "split",
    Reason.TARGETED: "targeting_match",
    Reason.DISABLED: "disabled",
    Reason.NO_FLAG: "error",
    Reason.NEVER_SEEN: "default",
}
"""`feature_flag.result.reason` of OpenTelemetry; whatever overrides the flag is ``static``."""
_NS = 1_000_000_000
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_STATISTICS = (-10, -8, -6, -4, -2, -1, 0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1, 2, 3, 4, 6, 8)
"""Fine where probabilities are, coarse where means and margins of raw scores are."""


class HttpFacts(Protocol):
    """What is measured of any HTTP request."""

    method: str
    scheme: str
    route: str | None
    """None: no path of ours."""
    status: int
    error_code: str | None


class OtelObserver:
    """Every instrument of the data plane is made here."""

    def __init__(self, telemetry: OpenTelemetry) -> None:
        meter = telemetry.meters.get_meter("rerank-canary")
        self._meter = meter
        self._requests = meter.create_counter("rerank.requests", "{request}", "Served requests by assigned arm")
        self._duration = meter.create_histogram("rerank.request.duration", "s", "Whole requests by assigned arm")
        self._attempts = meter.create_histogram("rerank.attempt.duration", "s", "Calls of an arm by role")
        self._queue = meter.create_histogram("rerank.queue.duration", "s", "Waiting for the model")
        self._fallbacks = meter.create_counter("rerank.fallbacks", "{fallback}", "Requests answered by another arm")
        self._statistic = meter.create_histogram(
            "rerank.score.statistic",
            "1",
            "What decides on a fallback: the statistic of the candidate's scores",
            explicit_bucket_boundaries_advisory=_STATISTICS,
        )
        self._cost = meter.create_counter("rerank.cost", "USD", "Dollars by assigned arm and by who spent them")
        self._documents = meter.create_counter("rerank.documents", "{document}", "Documents ranked")
        self._llm_duration = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", "Calls of the language model"
        )
        self._llm_tokens = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", "Tokens of the language model"
        )
        self._changes = meter.create_counter("rerank.ramp.changes", "{change}", "Changes of the rollout's record")
        self._verdicts = meter.create_counter("rerank.guard.verdicts", "{verdict}", "Changes of the guard's verdict")
        self._judgement = ("", "")
        self._quality = meter.create_histogram(
            "rerank.probe.quality",
            "1",
            "nDCG, recall and reciprocal rank of judged probes",
            explicit_bucket_boundaries_advisory=[n / 20 for n in range(21)],
        )
        self._deliveries = meter.create_counter("rerank.alerts.deliveries", "{delivery}", "Alerts told, or not")
        self._http = meter.create_histogram("http.server.request.duration", "s", "HTTP requests by route")
        self._tracer = telemetry.traces.get_tracer("rerank-canary") if telemetry.traces else None
        self._events = telemetry.logs.get_logger("rerank-canary") if telemetry.logs else None
        self._propagator = TraceContextTextMapPropagator()

    def gauge(
        self, name: str, unit: str, description: str, read: Callable[[], Iterable[tuple[float, dict[str, str]]]]
    ) -> None:
        """Export what *read* returns, asked whenever metrics are collected."""

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(value, labels) for value, labels in read()]

        self._meter.create_observable_gauge(name, [observe], unit, description)

    def http(self, about: HttpFacts, seconds: float) -> None:
        """Take note of one HTTP request, served or refused."""
        labels: dict[str, AttributeValue] = {
            "http.request.method": about.method if about.method in _METHODS else "_OTHER",
            "url.scheme": about.scheme,
            "http.response.status_code": about.status,
        }
        if about.route is not None:
            labels["http.route"] = about.route
        if about.status >= 500:
            labels["error.type"] = about.error_code or str(about.status)
        self._http.record(seconds, labels)

    def judged(self, report: Report) -> None:
        """Take note of a verdict that is another one than before."""
        judgement = report.judgement
        about = (judgement.verdict.value, judgement.hold.value if judgement.hold else "")
        if about == self._judgement:
            return
        self._judgement = about
        labels = {"rerank.verdict": about[0], "rerank.hold.reason": about[1]}
        self._verdicts.add(1, labels)
        if self._events is not None:
            is_rollback = judgement.verdict is Verdict.ROLLBACK
            self._events.emit(
                timestamp=int(report.at * _NS),
                severity_number=SeverityNumber.ERROR if is_rollback else SeverityNumber.INFO,
                event_name="rerank.guard.verdict",
                attributes=labels | {"rerank.guard.reason": judgement.reason},
            )

    def probed(self, role: Role, quality: Quality) -> None:
        """Take note of how well an arm ranked a judged probe."""
        for metric in quality.__struct_fields__:
            if (value := getattr(quality, metric)) is not None:
                self._quality.record(value, {"rerank.role": role.value, "rerank.quality.metric": metric})

    def delivery(self, receiver: str, outcome: str) -> None:
        """Take note of an alert that a receiver was told, or was not."""
        self._deliveries.add(1, {"rerank.alerts.receiver": receiver, "rerank.outcome": outcome})

    def audit(self, entry: AuditEntry) -> None:
        """Take note of a change of the rollout."""
        self._changes.add(1, {"rerank.ramp.action": entry.action, "rerank.ramp.through": entry.through.value})
        if self._events is not None:
            self._events.emit(
                timestamp=int(entry.at * _NS),
                severity_number=SeverityNumber.WARN if entry.rollback_id else SeverityNumber.INFO,
                event_name="rerank.ramp.changed",
                attributes={
                    f"rerank.ramp.{name}": value
                    for name, value in msgspec.to_builtins(entry).items()
                    if isinstance(value, str | int | float)
                },
            )

    def observe(self, exposure: Exposure) -> None:
        """Take note of one served request."""
        self._measure(exposure)
        if self._tracer is not None:
            self._trace(exposure, self._tracer)
        if self._events is not None:
            self._events.emit(
                timestamp=int(exposure.started_at * _NS),
                severity_number=SeverityNumber.INFO,
                event_name="feature_flag.evaluation",
                attributes=_flag_attributes(exposure) | {"feature_flag.context.id": exposure.user_hash},
                context=self._parent(exposure),
            )

    def _measure(self, exposure: Exposure) -> None:
        arm = exposure.assignment.arm.value
        labels = {
            "rerank.arm": arm,
            "rerank.served_by": exposure.served_by.value,
            "rerank.outcome": exposure.outcome.value,
            "rerank.reason": exposure.assignment.reason.value,
        }
        self._requests.add(1, labels)
        self._duration.record(exposure.seconds, {"rerank.arm": arm, "rerank.outcome": exposure.outcome.value})
        self._documents.add(exposure.documents, {"rerank.arm": arm})
        if exposure.has_fallen_back:
            self._fallbacks.add(1, {"rerank.arm": arm, "rerank.fallback.reason": exposure.outcome.value})
        for attempt in exposure.attempts:
            self._measure_attempt(arm, attempt)

    def _measure_attempt(self, arm: str, attempt: Attempt) -> None:
        labels = {"rerank.role": attempt.role.value, "rerank.outcome": attempt.outcome.value}
        self._attempts.record(attempt.seconds, labels)
        if attempt.role is Role.CANDIDATE:
            self._queue.record(attempt.queue_seconds, {"rerank.role": attempt.role.value})
        if attempt.statistic is not None:
            self._statistic.record(attempt.statistic, labels)
        if attempt.cost_dollars:
            self._cost.add(attempt.cost_dollars, {"rerank.arm": arm, "rerank.role": attempt.role.value})
        if attempt.kind == "llm" and attempt.outcome is not Outcome.BREAKER:
            about = _llm_attributes(attempt)
            self._llm_duration.record(attempt.seconds, about)
            self._llm_tokens.record(attempt.tokens, about | {"gen_ai.token.type": "input"})
            self._llm_tokens.record(attempt.output_tokens, about | {"gen_ai.token.type": "output"})

    def _parent(self, exposure: Exposure) -> Context:
        carrier = {"traceparent": exposure.traceparent} if exposure.traceparent else {}
        return self._propagator.extract(carrier)

    def _trace(self, exposure: Exposure, tracer: trace.Tracer) -> None:
        """Make the spans of a request that is over, from the times it was measured at."""
        attributes: dict[str, AttributeValue] = {
            "http.request.method": "POST",
            "http.route": exposure.route,
            "http.response.status_code": exposure.status,
            "rerank.request.id": exposure.request_id,
            "rerank.arm": exposure.assignment.arm.value,
            "rerank.served_by": exposure.served_by.value,
            "rerank.outcome": exposure.outcome.value,
            "rerank.dialect": exposure.dialect,
        }
        span = tracer.start_span(
            f"POST {exposure.route}",
            context=self._parent(exposure),
            kind=SpanKind.SERVER,
            attributes=attributes | _flag_attributes(exposure),
            start_time=int(exposure.started_at * _NS),
        )
        context = trace.set_span_in_context(span)
        for attempt in exposure.attempts:
            _trace_attempt(tracer, attempt, exposure.documents, context)
        if exposure.error_code:
            span.set_status(Status(StatusCode.ERROR if exposure.status >= 500 else StatusCode.UNSET))
            span.set_attribute("error.type", exposure.error_code)
        span.end(int((exposure.started_at + exposure.seconds) * _NS))


def _trace_attempt(tracer: trace.Tracer, attempt: Attempt, documents: int, context: Context) -> None:
    start, end = int(attempt.started_at * _NS), int((attempt.started_at + attempt.seconds) * _NS)
    span = tracer.start_span(
        f"rerank {attempt.model}",
        context=context,
        kind=SpanKind.INTERNAL,
        attributes={
            "gen_ai.operation.name": "rerank",
            "gen_ai.request.model": attempt.model,
            "gen_ai.rerank.candidate.count": documents,
            "rerank.role": attempt.role.value,
            "rerank.outcome": attempt.outcome.value,
        },
        start_time=start,
    )
    if attempt.statistic is not None:
        span.set_attribute("rerank.score.statistic", attempt.statistic)
    if attempt.kind == "llm" and attempt.outcome is not Outcome.BREAKER:
        call = tracer.start_span(
            f"chat {attempt.model}",
            context=trace.set_span_in_context(span),
            kind=SpanKind.CLIENT,
            attributes=_llm_attributes(attempt)
            | {"gen_ai.usage.input_tokens": attempt.tokens, "gen_ai.usage.output_tokens": attempt.output_tokens},
            start_time=start,
        )
        call.end(end)
    if attempt.outcome not in {Outcome.OK, Outcome.LOW_SCORE}:
        span.set_status(Status(StatusCode.ERROR))
        span.set_attribute("error.type", attempt.outcome.value)
    span.end(end)


def _llm_attributes(attempt: Attempt) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": attempt.model,
    }
    if attempt.outcome not in {Outcome.OK, Outcome.LOW_SCORE}:
        attributes["error.type"] = attempt.outcome.value
    return attributes


def _flag_attributes(exposure: Exposure) -> dict[str, AttributeValue]:
    assignment = exposure.assignment
    return {
        "feature_flag.key": exposure.flag,
        "feature_flag.result.variant": assignment.arm.value,
        "feature_flag.provider.name": "Unleash",
        "feature_flag.result.reason": _FLAG_REASONS.get(assignment.reason, "static"),
    }
