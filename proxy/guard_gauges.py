"""What the guard found, as metrics. Every replica shows the leader's newest report."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from alerts.verdict import HoldReason
from flags.ramp import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from alerts.report import Report
    from alerts.verdict import Finding
    from proxy.otel_observer import OtelObserver

    Points = Iterable[tuple[float, dict[str, str]]]

_LOG_10 = math.log(10)


def export_guard(telemetry: OtelObserver, report: Callable[[], Report | None]) -> None:
    """Export what *report* returns, asked whenever metrics are collected."""

    def of_findings(read: Callable[[Finding], float]) -> Callable[[], Points]:
        def points() -> Points:
            found = report()
            return [(read(each), {"rerank.guardrail": each.guardrail}) for each in found.findings] if found else []

        return points

    def heartbeat() -> Points:
        found = report()
        return [(found.at, {})] if found else []

    def verdicts() -> Points:
        found = report()
        return [(float(each is found.judgement.verdict), {"rerank.verdict": each}) for each in Verdict] if found else []

    def held() -> Points:
        found = report()
        return (
            [(found.held_seconds.get(each, 0.0), {"rerank.hold.reason": each}) for each in HoldReason] if found else []
        )

    gauge = telemetry.gauge
    gauge("rerank.guard.heartbeat", "s", "Unix time of the last tick that was judged", heartbeat)
    gauge("rerank.guard.verdict", "1", "1 for the verdict that stands", verdicts)
    gauge("rerank.guard.held", "s", "How long a reason to hold has lasted; 0: there is none", held)
    evidence = of_findings(lambda each: each.evidence / _LOG_10)
    gauge("rerank.guardrail.evidence", "1", "Evidence against a guardrail, as a power of ten", evidence)
    threshold = of_findings(lambda each: each.threshold / _LOG_10)
    gauge("rerank.guardrail.threshold", "1", "Power of ten from which on a guardrail is breached", threshold)
    gauge("rerank.guardrail.estimate", "1", "Share or mean of the stage", of_findings(lambda each: each.estimate))
    gauge("rerank.guardrail.lower", "1", "Lower bound of the estimate", of_findings(lambda each: each.lower))
    gauge("rerank.guardrail.upper", "1", "Upper bound of the estimate", of_findings(lambda each: each.upper))
    gauge("rerank.guardrail.limit", "1", "What the estimate is compared with", of_findings(lambda each: each.limit))
    gauge("rerank.guardrail.breached", "1", "1 once breached", of_findings(lambda each: float(each.is_breached)))
    gauge("rerank.guardrail.passed", "1", "1 while proved to hold", of_findings(lambda each: float(each.is_passed)))
