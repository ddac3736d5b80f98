"""When a ranking is too doubtful to serve: a statistic of its raw scores under a threshold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from proxy.engine.calibration import Calibration, Statistic, reachable, statistic_of
from proxy.errors import InvalidSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.engine.loading import LoadedModel
    from proxy.settings import Fallback


class Doubt(msgspec.Struct, frozen=True):
    """One statistic, and the threshold that holds for one model revision on one engine."""

    statistic: Statistic = "top1"
    margin_k: int = 2
    threshold: float | None = None
    """None: never doubts."""
    calibration: Calibration = Calibration()

    def value(self, logits: Sequence[float]) -> float:
        """Return the statistic of these raw logits, one or more."""
        return statistic_of(self.statistic, logits, self.calibration, self.margin_k)

    def doubts(self, value: float) -> bool:
        """Tell whether a ranking with this value should be left to the fallback."""
        return self.threshold is not None and value < self.threshold


def doubt_of(settings: Fallback, model: LoadedModel) -> Doubt:
    """Return the rule for *model*: the configured threshold, else the one of its calibration, else none.

    Raises:
        InvalidSettings: the model's scores cannot reach the threshold, so that every request would fall
            back, or can never be under it, so that none would.

    """
    low, high = reachable(settings.statistic, model.calibration, model.probes)
    known = model.calibration.statistics.get(settings.statistic)
    if settings.threshold is None:
        threshold = known.threshold if known else None
        return Doubt(settings.statistic, settings.margin_k, threshold, model.calibration)
    if not low <= settings.threshold <= high:
        what = "every request would fall back" if settings.threshold > high else "no request would ever fall back"
        raise InvalidSettings(
            f"$.fallback.threshold (LLM_FALLBACK_THRESHOLD): {settings.threshold:g} is out of reach of "
            f"{model.label}, whose `{settings.statistic}` lies between {low:.3g} and {high:.3g}: {what}"
            + (f". Its calibration recommends {known.threshold:g}" if known and known.threshold is not None else "")
        )
    return Doubt(settings.statistic, settings.margin_k, settings.threshold, model.calibration)
