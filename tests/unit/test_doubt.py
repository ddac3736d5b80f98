from __future__ import annotations

import math
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.doubt import doubt_of
from proxy.engine.calibration import Calibration, StatisticRange, read_calibration, statistic_of
from proxy.engine.loading import LoadedModel
from proxy.errors import InvalidModel, InvalidSettings
from proxy.settings import Fallback

if TYPE_CHECKING:
    from pathlib import Path

    from proxy.engine.base import Engine

CALIBRATED = Calibration(
    0.8,
    -0.5,
    {
        "top1": StatisticRange(0.01, 0.99, 0.2),
        "mean": StatisticRange(-9.0, -2.0, -7.0),
        "margin": StatisticRange(0.0, 9.0, 0.5),
    },
)


def model(calibration: Calibration = CALIBRATED, best: float = 6.0) -> LoadedModel:
    probes = [best, best - 1, -9.0, -8.0]
    return LoadedModel(engine=cast("Engine", None), label="m@1/x", revision="1", calibration=calibration, probes=probes)


@given(st.floats(-800, 800))
def test_a_probability_is_in_bounds_and_never_falls_with_the_logit(logit: float) -> None:
    found = CALIBRATED.probability(logit)
    assert 0 <= found <= 1
    assert CALIBRATED.probability(logit + 1) >= found


def test_the_statistics_are_what_they_say() -> None:
    plain = Calibration()
    assert statistic_of("mean", [1.0, 2.0, 6.0], plain, 2) == 3.0
    assert statistic_of("top1", [-1.0, 0.0], plain, 2) == 0.5
    assert statistic_of("margin", [1.0, 4.0, 2.5], plain, 2) == 1.5
    assert statistic_of("margin", [1.0, 4.0, 2.5], plain, 3) == 3.0
    assert statistic_of("margin", [1.0], plain, 2) == math.inf


def test_without_a_threshold_the_calibration_recommends_one() -> None:
    assert doubt_of(Fallback(), model()).threshold == 0.2
    assert doubt_of(Fallback(statistic="mean"), model()).threshold == -7.0
    assert doubt_of(Fallback(), model(Calibration())).threshold is None


def test_a_threshold_within_reach_is_taken() -> None:
    rule = doubt_of(Fallback(threshold=0.3), model())
    assert rule.doubts(0.29)
    assert not rule.doubts(0.3)


@pytest.mark.parametrize(
    ("fallback", "words"),
    [
        (Fallback(statistic="mean", threshold=6.5), "every request would fall back"),
        (Fallback(statistic="top1", threshold=6.5), "every request would fall back"),
        (Fallback(statistic="mean", threshold=-20), "no request would ever fall back"),
    ],
    ids=["the plan's mean of 6.5", "6.5 as a probability", "below everything"],
)
@pytest.mark.parametrize("calibration", [CALIBRATED, Calibration()], ids=["calibrated", "never calibrated"])
@pytest.mark.parametrize("best", [6.0, 8.0], ids=["above the best pair", "under the best pair"])
def test_a_threshold_that_the_scores_cannot_reach_is_refused_with_the_reason(
    fallback: Fallback, words: str, calibration: Calibration, best: float
) -> None:
    with pytest.raises(InvalidSettings, match="LLM_FALLBACK_THRESHOLD") as caught:
        doubt_of(fallback, model(calibration, best))
    assert words in str(caught.value)


def test_a_model_without_calibration_has_the_plain_sigmoid(tmp_path: Path) -> None:
    assert read_calibration(tmp_path) == Calibration()


@pytest.mark.parametrize("text", ["{", '{"slope": "x"}', '{"slope": -1}', '{"slope": 0}'])
def test_a_calibration_that_cannot_be_used_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "calibration.json").write_text(text)
    with pytest.raises(InvalidModel):
        read_calibration(tmp_path)
