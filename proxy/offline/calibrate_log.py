"""Fits the fallback threshold to what the candidate's scores were in the event log. Needs pyarrow.

Nobody judged those rankings, so a target is a share of the requests or a sum of dollars, and only the statistic that
was logged, the one in use, can be fitted. Rankings that the candidate was forced to make are none of the users'.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from proxy.engine.calibration import Calibration, Statistic, StatisticRange
from proxy.errors import InvalidModel
from proxy.events.records import Kind
from proxy.offline.thresholds import Case, Fit, Target, fit_values

if TYPE_CHECKING:
    from collections.abc import Iterable

    from proxy.events.reading import EventReader, Period

_COLUMNS = ("attempts", "is_forced")
_QUANTILES = 1000
"""That stand for the statistics of a long log: a share is right to half a thousandth."""


class LogCalibration(msgspec.Struct, frozen=True, kw_only=True):
    """What the event log says of one model's threshold."""

    events: str
    """Where the log lies, without its secrets."""
    since: float
    until: float
    """Unix seconds."""
    model: str
    statistic: Statistic
    requests: int
    """That the model ranked, with a statistic."""
    fallback_calls: int
    """Of the language model, whose mean cost is what a fallback is counted at."""
    target: Target
    fit: Fit

    def calibration(self, known: Calibration) -> Calibration:
        """Return *known* with the threshold that was found.

        Raises:
            InvalidModel: no threshold keeps to the target short of always falling back.

        """
        chosen = self.fit.chosen
        if chosen is None or chosen.threshold > self.fit.high:
            raise InvalidModel(
                f"no threshold of `{self.statistic}` keeps to the target; only always falling back might"
            )
        before = known.statistics.get(self.statistic)
        low, high = (min(self.fit.low, chosen.threshold), self.fit.high)
        if before is not None:
            low, high = min(low, before.low), max(high, before.high)
        found = StatisticRange(*(float(f"{x:.6g}") for x in (low, high, chosen.threshold)))
        return msgspec.structs.replace(known, statistics=known.statistics | {self.statistic: found})


def calibrate_log(
    reader: EventReader, period: Period, model: str, statistic: Statistic, target: Target, *, events: str
) -> LogCalibration:
    """Fit the threshold of *model*, as ``status`` names it, to the rankings of *period*.

    Raises:
        InvalidModel: the log has no ranking of it, or no call of a language model where the target is in dollars.
        UnreadableEvents: the log cannot be read.

    """
    values, dollars, others = _read(reader.rows(Kind.EXPOSURES, period, _COLUMNS), model)
    if not values:
        seen = ", ".join(f"{name} ({count:,})" for name, count in others.most_common(5)) or "no candidate"
        raise InvalidModel(f"{model}: {events} has no ranking by it in that time; it has those of {seen}")
    if target.kind == "dollars" and not dollars:
        raise InvalidModel(f"{events}: no language model was called in that time: what a fallback costs is not known")
    each = sum(dollars) / len(dollars) if dollars else None
    values, count = _thinned(values), len(values)
    cases = [Case((), legacy_dollars=each)] * len(values)
    return LogCalibration(
        events=events,
        since=period.since,
        until=period.until,
        model=model,
        statistic=statistic,
        requests=count,
        fallback_calls=len(dollars),
        target=target,
        fit=fit_values(statistic, values, cases, target),
    )


def _thinned(values: list[float]) -> list[float]:
    """Return the middles of as many equal parts of the sorted *values*."""
    if len(values) <= _QUANTILES:
        return values
    return [float(x) for x in np.quantile(values, (np.arange(_QUANTILES) + 0.5) / _QUANTILES)]


def _read(rows: Iterable[dict[str, Any]], model: str) -> tuple[list[float], list[float], Counter[str]]:
    """Return the statistics of *model*'s rankings, what calls of a language model cost, and whose rankings else."""
    values: list[float] = []
    dollars: list[float] = []
    others: Counter[str] = Counter()
    for row in rows:
        for attempt in () if row["is_forced"] else row["attempts"] or ():
            if attempt["kind"] == "llm" and attempt["cost_dollars"]:
                dollars.append(attempt["cost_dollars"])
            elif attempt["statistic"] is None:
                continue
            elif attempt["model"] == model:
                values.append(attempt["statistic"])
            else:
                others[attempt["model"]] += 1
    return values, dollars, others
