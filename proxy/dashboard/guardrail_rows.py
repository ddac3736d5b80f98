"""Each guardrail as a row: what must hold, what was seen with its bounds, and how near the evidence is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
from markupsafe import Markup

from alerts.guardrails import COST_CEILING, PAIRED_RANGE, Event, Method, Value
from proxy.dashboard.charts import spark
from proxy.dashboard.plots import evidence_lines
from proxy.dashboard.tiers import FINEST
from proxy.dashboard.words import count, dollars, duration, percent
from proxy.guarding import guardrails_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from alerts.guardrails import Guardrail
    from alerts.report import Report
    from alerts.trend import Point
    from alerts.verdict import Finding
    from proxy.settings import Settings

_WIDTH, _HEIGHT = 150, 26
_SLOW = {Event.SLOW, Event.SLOW_RELATIVE}
_PAIRED = {Value.RECALL, Value.PROBE}


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One guardrail."""

    name: str
    words: str
    state: Literal["breached", "passed", "open", "unmeasured"]
    is_enforced: bool
    estimate: str
    bounds: str
    limit: str
    trials: str
    interval: Markup
    evidence: Markup
    evidence_percent: str
    detects_in: str
    passes_in: str


def rows_of(settings: Settings, report: Report | None, points: Sequence[Point]) -> list[Row]:
    """Return the rows, the most alarming first; *points* are those of the last minutes."""
    if report is None:
        return []
    guardrails = guardrails_of(settings)
    found = sorted(report.findings, key=lambda each: -each.evidence / each.threshold)
    return [_row(each, guardrails, points) for each in found]


def row_of(settings: Settings, finding: Finding, points: Sequence[Point]) -> Row:
    """Return the row of one."""
    return _row(finding, guardrails_of(settings), points)


def _row(finding: Finding, guardrails: Mapping[str, Guardrail], points: Sequence[Point]) -> Row:
    words = _reader(finding, guardrails.get(finding.guardrail))
    since = points[0].at if points else 0.0
    until = points[-1].at if points else 1.0
    is_measured = finding.trials > 0
    state: Literal["breached", "passed", "open", "unmeasured"] = "open"
    if finding.is_breached:
        state = "breached"
    elif not is_measured:
        state = "unmeasured"
    elif finding.is_passed:
        state = "passed"
    line = evidence_lines(points, finding.guardrail, 2.5 * FINEST.seconds)
    return Row(
        name=finding.guardrail,
        words=finding.words,
        state=state,
        is_enforced=finding.is_enforced,
        estimate=words(finding.estimate) if is_measured else "-",
        bounds=" to ".join(sorted_words(finding, words)) if is_measured else "",
        limit=words(finding.limit),
        trials=f"{count(finding.trials)} {_unit(guardrails.get(finding.guardrail))}",
        interval=_interval(finding, words) if is_measured else Markup(""),
        evidence=spark(line, finding.threshold, since, until),
        evidence_percent=f"{min(9.99, finding.evidence / finding.threshold):.0%}",
        detects_in=duration(finding.seconds_to_detect) if finding.seconds_to_detect is not None else "-",
        passes_in=_passes(finding),
    )


def sorted_words(finding: Finding, words: Callable[[float], str]) -> list[str]:
    """Return both bounds as they read, the lower first; of a cost the scale is turned round."""
    low, high = words(finding.lower), words(finding.upper)
    return [low, high] if finding.guardrail != "cost" else [high, low]


def _passes(finding: Finding) -> str:
    if finding.is_passed:
        return "proved"
    if not finding.trials:
        return "-"
    return duration(finding.seconds_to_pass) if finding.seconds_to_pass is not None else "never, as it stands"


def _reader(finding: Finding, guardrail: Guardrail | None) -> Callable[[float], str]:
    """Return how a value of this guardrail reads."""
    if guardrail is not None and guardrail.signal in _SLOW:
        return lambda value: f"{percent(value)} too slow"
    if finding.test is not Method.MEAN:
        return percent
    if guardrail is not None and guardrail.signal is Value.COST:
        ceiling = COST_CEILING * guardrail.limit
        return lambda value: dollars((1 - value) * ceiling)
    if guardrail is not None and guardrail.signal in _PAIRED:
        return lambda value: f"{value - PAIRED_RANGE:+.3f}"
    return lambda value: f"{value:.3f}"


def _unit(guardrail: Guardrail | None) -> str:
    """Return what is counted."""
    match guardrail.signal if guardrail else None:
        case Event.MISS:
            return "rankings that users chose from"
        case Value.RECALL | Value.PROBE:
            return "probes"
        case Value.OVERLAP:
            return "pairs"
        case Event() | Value.COST:
            return "requests"
        case _:
            return "users"


def _interval(finding: Finding, words: Callable[[float], str]) -> Markup:
    """Return the estimate with its bounds beside the limit."""
    ends = [finding.lower, finding.upper, finding.limit, finding.estimate]
    low, high = min(ends), max(ends)
    pad = (high - low) * 0.08 or 0.01
    low, high = low - pad, high + pad

    is_turned = finding.guardrail == "cost"  # counted as what is left of a ceiling: drawn as the dollars it reads as

    def x(value: float) -> float:
        place = _WIDTH * (value - low) / (high - low)
        return _WIDTH - place if is_turned else place

    left, right = sorted((x(finding.lower), x(finding.upper)))

    is_bad = finding.estimate < finding.limit if finding.test is Method.MEAN else finding.estimate > finding.limit
    middle = _HEIGHT / 2
    label = f"{words(finding.estimate)}, limit {words(finding.limit)}"
    return Markup(
        '<svg class="interval {kind}" viewBox="0 0 {w} {h}" role="img" aria-label="{label}">'
        '<path class="limit" d="M{limit:.1f} 2V{bottom}"/><path class="range" d="M{left:.1f} {mid}H{right:.1f}"/>'
        '<circle cx="{at:.1f}" cy="{mid}" r="4"/></svg>'
    ).format(
        kind="bad" if is_bad else "fine",
        w=_WIDTH,
        h=_HEIGHT,
        label=label,
        limit=x(finding.limit),
        bottom=_HEIGHT - 2,
        left=left,
        right=max(right, left + 1),
        mid=middle,
        at=x(finding.estimate),
    )
