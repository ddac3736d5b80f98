"""What a calibration found, as tables and as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.offline.benchmark_tables import Table
from proxy.offline.calibrate import QUALITY
from proxy.offline.charts import Axis, Line, line_chart
from proxy.offline.page import html_table, page, section
from proxy.offline.thresholds import PLANS_THRESHOLD

if TYPE_CHECKING:
    from proxy.offline.calibrate import CalibrationReport, Scores
    from proxy.offline.thresholds import Fit, Point, Target

_SHARES = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)
_WORDS = {
    "share": "at most {:.1%} of the requests fall back",
    "loss": f"at most {{:.4f}} of {QUALITY} is lost against always falling back",
    "dollars": "fallbacks cost at most ${:g} a thousand requests",
}


def target_words(target: Target) -> str:
    """Return the target as a sentence."""
    return _WORDS[target.kind].format(target.most)


def threshold_table(report: CalibrationReport) -> Table:
    """Return what each statistic can do for the target."""
    star = "*" if report.stand_in else ""
    columns = ["statistic", "threshold", "falls back", QUALITY, f"loss to always GPT{star}", "95 % of the loss"]
    columns += ["$/1000", "unseen: falls back", "unseen: loss"]
    rows = [_row(name, found, is_used=name == report.statistic) for name, found in report.fits.items()]
    always = f"always GPT {_figure(report.legacy_quality)}{star}"
    captions = [
        f"target: {target_words(report.target)}; {report.queries} queries of {report.collection}; for {report.model}",
        f"{QUALITY}: candidate alone {report.candidate_quality:.3f}, {always}",
        "unseen: fitted on four fifths of the queries, measured on the fifth left out",
        *([f"* {report.stand_in}"] if report.stand_in else []),
    ]
    return Table("fallback thresholds", columns, rows, captions)


def _row(name: str, found: Fit, *, is_used: bool) -> list[str]:
    point, unseen = found.chosen, found.held_out
    words = f"{name} (in use)" if is_used else name
    if point is None:
        return [words, "none keeps to it", *["-"] * 7]
    between = "-" if found.loss_low is None else f"{found.loss_low:+.4f} to {found.loss_high:+.4f}"
    return [
        words,
        f"{point.threshold:.4g}",
        f"{point.share:.1%}",
        _figure(point.quality),
        _figure(point.loss, "+.4f"),
        between,
        _figure(point.dollars_per_thousand, ".4f"),
        _figure(unseen.share if unseen else None, ".1%"),
        _figure(unseen.loss if unseen else None, "+.4f"),
    ]


def curve_table(report: CalibrationReport) -> Table:
    """Return the trade-off of the statistic in use, at a few shares."""
    rows = [_point_row(f"{each.share:.1%}", each) for each in points_shown(report.fits[report.statistic])]
    columns = ["falls back", "threshold", QUALITY, "loss to always GPT", "$/1000"]
    return Table(f"trade-off of `{report.statistic}`", columns, rows)


def points_shown(found: Fit) -> list[Point]:
    """Return the points of a curve at a few shares."""
    return [min(found.curve, key=lambda each: abs(each.share - share)) for share in _SHARES]


def plan_table(report: CalibrationReport) -> Table:
    """Return what the plan's own rule would have done."""
    rule = report.plans_rule
    rows = [
        [f"mean logit < {PLANS_THRESHOLD}", *_point_row(f"{rule.by_logits.share:.0%}", rule.by_logits)[:1]],
        [
            f"mean probability < {PLANS_THRESHOLD}",
            *_point_row(f"{rule.by_probabilities.share:.0%}", rule.by_probabilities)[:1],
        ],
    ]
    for row, point in zip(rows, (rule.by_logits, rule.by_probabilities), strict=True):
        row += [_figure(point.quality), _figure(point.dollars_per_thousand, ".4f")]
    caption = f"the highest mean logit of any query is {rule.highest_mean_logit:.2f}"
    return Table("the plan's LLM_FALLBACK_THRESHOLD = 6.5", ["rule", "falls back", QUALITY, "$/1000"], rows, [caption])


def score_table(report: CalibrationReport) -> Table:
    """Return what the scores of both arms mean, before and after."""
    rows = [
        [
            f"{each.model}{'*' if each.stand_in else ''}",
            f"{each.slope:.4f}",
            f"{each.intercept:+.4f}",
            *(f"{x.log_loss:.4f}" for x in (each.before, each.after)),
            *(f"{x.calibration_error:.4f}" for x in (each.before, each.after)),
            f"{each.relevant}/{each.pairs}",
        ]
        for each in report.scores
    ]
    columns = ["model", "slope", "intercept", "log loss", "after", "calibration error", "after", "relevant pairs"]
    return Table("what the scores mean (Platt)", columns, rows, ["passages that nobody judged count as not relevant"])


def page_of(report: CalibrationReport) -> str:
    """Return the report as a page."""
    notes = [*([f"* {report.stand_in}"] if report.stand_in else []), *report.notes]
    parts = [
        html_table(threshold_table(report)),
        *([section("quality against fallbacks", _trade_off(report))] if report.legacy_quality is not None else []),
        html_table(curve_table(report)),
        section("share that falls back, by threshold", by_threshold(report.fits[report.statistic])),
        html_table(plan_table(report)),
        html_table(score_table(report)),
        *(section(f"reliability of {each.model}", _reliability(each)) for each in report.scores),
    ]
    return page(f"Calibration of {report.model}", notes, parts)


def _trade_off(report: CalibrationReport) -> str:
    lines = [
        Line(name, [(point.share, point.quality) for point in found.curve if point.quality is not None])
        for name, found in report.fits.items()
    ]
    last = report.legacy_quality if report.legacy_quality is not None else report.candidate_quality
    lines.append(Line("by chance", [(0.0, report.candidate_quality), (1.0, last)]))
    heights = [y for line in lines for _, y in line.points]
    room = 0.1 * (max(heights) - min(heights) or 0.1)
    chosen = report.fits[report.statistic].chosen
    y = Axis(QUALITY, min(heights) - room, max(heights) + room)
    marks = [(chosen.share, f"{report.statistic} < {chosen.threshold:.4g}")] if chosen else []
    return line_chart(f"{QUALITY} by the share that falls back", Axis("share that falls back", 0, 1), y, lines, marks)


def by_threshold(found: Fit) -> str:
    """Draw which share falls back by which threshold."""
    points = [(point.threshold, point.share) for point in found.curve if found.low <= point.threshold <= found.high]
    marks = [(found.chosen.threshold, "chosen")] if found.chosen and found.chosen.threshold <= found.high else []
    x = Axis(f"threshold on {found.statistic}", found.low, found.high)
    title = "share that falls back by threshold"
    return line_chart(title, x, Axis("share that falls back", 0, 1), [Line(found.statistic, points)], marks)


def _reliability(scores: Scores) -> str:
    lines = [
        Line("before", [(chance, share) for chance, share, _ in scores.before.bins]),
        Line("after", [(chance, share) for chance, share, _ in scores.after.bins]),
        Line("as it should be", [(0.0, 0.0), (1.0, 1.0)]),
    ]
    x, y = Axis("probability said", 0, 1), Axis("share judged relevant", 0, 1)
    return line_chart(f"probability said and share judged relevant, {scores.model}", x, y, lines)


def _point_row(first: str, point: Point) -> list[str]:
    return [
        first,
        f"{point.threshold:.4g}",
        _figure(point.quality),
        _figure(point.loss, "+.4f"),
        _figure(point.dollars_per_thousand, ".4f"),
    ]


def _figure(value: float | None, form: str = ".3f") -> str:
    return "-" if value is None else f"{value:{form}}"
