"""One request drawn: when each arm worked, and where each document stood in both orders."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from markupsafe import Markup

from flags.vocabulary import Arm, Reason
from proxy.dashboard.words import latency

if TYPE_CHECKING:
    from collections.abc import Sequence

    from flags.vocabulary import Assignment
    from proxy.dashboard.recent import SeenRequest

_WIDTH = 640
_ROW = 18
_SHOWN = 25
_BAR = 190
_WHY = {
    Reason.SPLIT: "the flag splits by the user's bucket",
    Reason.TARGETED: "the flag has a strategy for such users",
    Reason.DISABLED: "the flag is off in this environment",
    Reason.NO_FLAG: "the flag server does not know the flag",
    Reason.NEVER_SEEN: "no state of the flag was ever received",
    Reason.FORCED: "a tester asked for it",
    Reason.SWITCHED_OFF: "the candidate is switched off in the settings",
    Reason.NOT_READY: "the candidate could not serve",
    Reason.LATCHED: "a rollback holds",
    Reason.UNSURE: "the replica had slept and did not know yet whether a rollback holds",
    Reason.RETIRED: "the old arm is retired",
}


def why(assignment: Assignment) -> str:
    """Return why a request was given its arm."""
    text = _WHY[assignment.reason]
    if assignment.bucket is None or assignment.share_percent is None:
        return text
    side = "at most" if assignment.bucket <= assignment.share_percent else "above"
    return f"{text}: bucket {assignment.bucket}, {side} the {assignment.share_percent} % of the flag"


def timings(seen: SeenRequest) -> Markup:
    """Return a bar for each attempt, on the time axis of the request."""
    exposure = seen.exposure
    if not exposure.attempts:
        return Markup("")
    left = 110
    scale = (_WIDTH - left - 90) / max(exposure.seconds, 1e-6)
    height = _ROW * len(exposure.attempts) + 4
    label = f"attempts: {len(exposure.attempts)}"
    parts = [f'<svg class="timing" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{label}">']
    for place, attempt in enumerate(exposure.attempts):
        y = place * _ROW + 2
        begin = left + max(0.0, attempt.started_at - exposure.started_at) * scale
        waited, took = attempt.queue_seconds * scale, max(1.5, attempt.seconds * scale)
        role, end = escape(attempt.role.value), begin + took + 6
        parts.append(
            f'<text x="0" y="{y + 12}">{role}</text>'
            f'<rect class="bar {role}" x="{begin:.1f}" y="{y}" width="{took:.1f}" height="13" rx="3"/>'
            f'<rect class="bar queue" x="{begin:.1f}" y="{y + 4}" width="{waited:.1f}" height="5"/>'
            f'<text class="dimmed" x="{end:.1f}" y="{y + 12}">{escape(latency(attempt.seconds))}</text>'
        )
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 - every text in it was escaped


def orders(seen: SeenRequest) -> Markup:
    """Return the scores as bars: of both arms side by side with a line from each document to itself, where known."""
    if seen.both:
        return _side_by_side(seen)
    rows = seen.scores[:_SHOWN]
    if not rows:
        return Markup("")
    parts = [_begin(len(rows), "Scores of the answer, best first")]
    arm = "candidate" if seen.exposure.served_by == "candidate" else ""
    parts += [_bar(0, place, document, score, arm) for place, (document, score) in enumerate(rows)]
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 - numbers only


def _side_by_side(seen: SeenRequest) -> Markup:
    own_is_candidate = seen.exposure.assignment.arm is Arm.CANDIDATE
    control = sorted(((d, theirs if own_is_candidate else own) for d, own, theirs in seen.both), key=_by_score)
    candidate = sorted(((d, own if own_is_candidate else theirs) for d, own, theirs in seen.both), key=_by_score)
    control, candidate = control[:_SHOWN], candidate[:_SHOWN]
    right = _WIDTH - _BAR - 60
    parts = [_begin(max(len(control), len(candidate)) + 1, "Control's order on the left, the candidate's on the right")]
    parts.append(
        f'<text class="dimmed" x="0" y="12">control</text><text class="dimmed" x="{right}" y="12">candidate</text>'
    )
    parts += [_bar(0, place + 1, d, score, "") for place, (d, score) in enumerate(control)]
    parts += [_bar(right, place + 1, d, score, "candidate") for place, (d, score) in enumerate(candidate)]
    places = {document: place for place, (document, _) in enumerate(candidate)}
    for place, (document, _) in enumerate(control):
        other = places.get(document)
        if other is not None:
            kind = "up" if other < place else "down" if other > place else ""
            y0, y1 = (_ROW * (p + 1) + 9 for p in (place, other))
            parts.append(f'<path class="link {kind}" d="M{_BAR + 66} {y0}L{right - 6} {y1}"/>')
    return Markup("".join([*parts, "</svg>"]))  # noqa: S704 - numbers only


def _by_score(row: tuple[int, float]) -> float:
    return -row[1]


def _begin(rows: int, words: str) -> str:
    return f'<svg class="scores" viewBox="0 0 {_WIDTH} {_ROW * rows + 4}" role="img" aria-label="{escape(words)}">'


def _bar(left: float, place: int, document: int, score: float, arm: str) -> str:
    y = place * _ROW + 2
    width = max(1.0, (_BAR - 60) * min(1.0, max(0.0, score)))
    return (
        f'<text x="{left}" y="{y + 12}">{document}</text>'
        f'<rect class="bar {arm}" x="{left + 28}" y="{y}" width="{width:.1f}" height="13" rx="2"/>'
        f'<text class="dimmed" x="{left + 34 + width:.1f}" y="{y + 12}">{score:.3f}</text>'
    )


def trace_of(traceparent: str | None) -> str:
    """Return the id of the caller's trace; empty: it sent none."""
    pieces: Sequence[str] = (traceparent or "").split("-")
    return pieces[1] if len(pieces) == 4 else ""
