"""What one model revision's raw logits mean: as probabilities, and as doubt."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import msgspec

from proxy.errors import InvalidModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Statistic = Literal["top1", "mean", "margin"]

FILE = "calibration.json"


class StatisticRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one statistic was on the judged set that the model was calibrated on."""

    low: float
    high: float
    threshold: float | None = None
    """The recommended fallback threshold."""


class Calibration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Platt's map from a raw logit z to a probability: sigmoid(slope * z + intercept).

    Platt 1999, "Probabilistic outputs for support vector machines", eq. 1 with A = -slope, B = -intercept.
    """

    slope: float = 1.0
    intercept: float = 0.0
    statistics: dict[Statistic, StatisticRange] = {}
    """By statistic; empty for a model that was never calibrated."""

    def wrong(self) -> str | None:
        """Return why it cannot be used, in words."""
        if not 0 < self.slope < math.inf or not math.isfinite(self.intercept):
            return "the slope must be positive and finite, or ranks would turn round"
        for name, found in self.statistics.items():
            if not -math.inf < found.low <= found.high < math.inf:
                return f"{name}: `low` must be finite and not above `high`"
            if found.threshold is not None and not found.low <= found.threshold <= found.high:
                return f"{name}: the threshold {found.threshold:g} is not between {found.low:g} and {found.high:g}"
        return None

    def probability(self, logit: float) -> float:
        """Return the probability, in (0, 1), that a document with this logit is relevant."""
        z = self.slope * logit + self.intercept
        if z >= 0:
            return 1.0 / (1.0 + math.exp(-z)) if z < 700 else 1.0
        return math.exp(z) / (1.0 + math.exp(z)) if z > -700 else 0.0


def read_calibration(folder: Path) -> Calibration:
    """Return the calibration beside a model; the plain sigmoid where there is none.

    Raises:
        InvalidModel: the file is there and is no calibration.

    """
    file = folder / FILE
    if not file.exists():
        return Calibration()
    try:
        found = msgspec.json.decode(file.read_bytes(), type=Calibration)
    except msgspec.MsgspecError as exc:
        raise InvalidModel(f"{file}: {exc}") from exc
    if wrong := found.wrong():
        raise InvalidModel(f"{file}: {wrong}")
    return found


def statistic_of(kind: Statistic, logits: Sequence[float], calibration: Calibration, margin_k: int) -> float:
    """Return how sure a ranking looks; low means doubt.

    top1: the calibrated probability of the best document. mean: the mean raw logit (it falls with every
    irrelevant candidate, so it says more of the retriever than of the ranking). margin: the best raw logit
    minus the `margin_k`-th best, infinite for fewer documents than that.
    """
    match kind:
        case "top1":
            return calibration.probability(max(logits))
        case "mean":
            return sum(logits) / len(logits)
        case "margin":
            ranked = sorted(logits, reverse=True)
            return ranked[0] - ranked[margin_k - 1] if len(ranked) >= margin_k else math.inf


def reachable(kind: Statistic, calibration: Calibration, probes: Sequence[float]) -> tuple[float, float]:
    """Return the lowest and highest value that the statistic can be expected to take.

    From the calibration where it knows; else from the raw logits of *probes*: pairs that could hardly be
    more, and hardly less, relevant. A mean is over all candidates of a request, of which half being as
    relevant as can be, as among the probes, is more than a retriever achieves.
    """
    if known := calibration.statistics.get(kind):
        return known.low, known.high
    low, high = min(probes), max(probes)
    match kind:
        case "top1":
            return calibration.probability(low), calibration.probability(high)
        case "mean":
            return low, sum(probes) / len(probes)
        case "margin":
            return 0.0, high - low
