"""OpenTelemetry's event for a judged answer (semantic conventions for generative AI, ``gen_ai.evaluation.result``)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from opentelemetry._logs import SeverityNumber
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.otel import OpenTelemetry


class Evaluations:
    """Emits them, where logs are exported at all."""

    def __init__(self, telemetry: OpenTelemetry) -> None:
        self._events = telemetry.logs.get_logger("rerank-canary") if telemetry.logs else None
        self._propagator = TraceContextTextMapPropagator()

    def emit(self, name: str, score: float, labels: Mapping[str, str], *, traceparent: str | None = None) -> None:
        """Emit one: *score* by the measure called *name*, within the caller's trace where that is known."""
        if self._events is None:
            return
        self._events.emit(
            timestamp=time.time_ns(),
            severity_number=SeverityNumber.INFO,
            event_name="gen_ai.evaluation.result",
            attributes={"gen_ai.evaluation.name": name, "gen_ai.evaluation.score.value": score, **labels},
            context=self._propagator.extract({"traceparent": traceparent} if traceparent else {}),
        )
