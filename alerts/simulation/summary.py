"""What many runs of a scenario say, rule by rule."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from alerts.simulation.run import Result, RuleResult


def summary_of(result: Result) -> dict[str, Any]:
    """Return counts, and the quantiles of what it took from the fault to the verdict."""
    return {
        "runs": result.runs,
        "hours": result.seconds / 3600,
        "fault_at_hour": None if result.fault_second is None else result.fault_second / 3600,
        "guardrails": result.guardrails,
        "held_runs": result.held,
        "final_share_percent": dict(sorted(Counter(result.final_share_percent).items())),
        "rules": [_rule(each, result.fault_second) for each in result.rules],
    }


def _rule(rule: RuleResult, fault_second: float | None) -> dict[str, Any]:
    at = np.array(rule.at_second)
    is_decided = np.isfinite(at)
    is_false = is_decided & (at <= fault_second if fault_second is not None else True)
    found: dict[str, Any] = {
        "name": rule.name,
        "false_rollbacks": int(is_false.sum()),
        "verdicts_by_guardrail": dict(Counter(name for name in rule.guardrails if name)),
    }
    if fault_second is not None:
        is_hit = is_decided & ~is_false
        found |= {
            "rollbacks": int(is_hit.sum()),
            "missed": int((~is_decided).sum()),
            "seconds_to_verdict": _quantiles(at[is_hit] - fault_second),
            "candidate_requests_to_verdict": _quantiles(np.array(rule.candidate_requests)[is_hit]),
        }
    return found


def _quantiles(values: np.ndarray[Any, np.dtype[np.float64]]) -> dict[str, float] | None:
    if not len(values):
        return None
    return {name: float(np.percentile(values, q)) for name, q in (("median", 50), ("p90", 90), ("p99", 99))}
