"""Calibrations in the configuration: written beside what people wrote, read back, and refused where they cannot be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from proxy.configuration import load
from proxy.engine.calibration import Calibration, StatisticRange
from proxy.errors import InvalidFile, InvalidSettings
from proxy.offline.calibration_file import with_calibrations, write_calibrations

if TYPE_CHECKING:
    from pathlib import Path

MODEL = "minilm-l6@1fd6/openvino-int8"
CALIBRATION = Calibration(0.5, -1.0, {"top1": StatisticRange(0.01, 0.98, 0.2), "margin": StatisticRange(0.0, 9.0)})
WRITTEN = """# ours
[fallback] # the budget
max_share = 0.3   # a third

[server]
port = 9000
"""


def test_what_people_wrote_is_kept_and_the_calibration_is_read_back(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(WRITTEN)
    file.chmod(0o640)
    write_calibrations(file, {MODEL: CALIBRATION, "gpt-4o-mini": Calibration(0.7, 0.1)}, "margin", "fitted today")
    text = file.read_text()
    for line in WRITTEN.splitlines():
        assert line in text
    assert "# fitted today" in text
    assert file.stat().st_mode & 0o777 == 0o640
    settings = load({}, file)
    assert settings.calibrations == {MODEL: CALIBRATION, "gpt-4o-mini": Calibration(0.7, 0.1)}
    assert settings.fallback.statistic == "margin"
    assert settings.fallback.max_share == 0.3
    assert [path.name for path in tmp_path.iterdir()] == ["config.toml"]


def test_a_second_calibration_takes_the_place_of_the_first() -> None:
    once = with_calibrations(WRITTEN, {MODEL: CALIBRATION, "other": CALIBRATION}, "top1", "first")
    twice = with_calibrations(once, {MODEL: Calibration(0.9, 0.0)}, "top1", "second")
    assert twice.count(f'[calibrations."{MODEL}"]') == 1
    assert twice.count("# first") == 1
    assert "# second" in twice
    assert "slope = 0.9" in twice


def test_a_file_is_made_where_there_is_none(tmp_path: Path) -> None:
    write_calibrations(tmp_path / "new.toml", {MODEL: CALIBRATION}, "top1", "x")
    settings = load({}, tmp_path / "new.toml")
    assert settings.calibrations[MODEL] == CALIBRATION
    assert settings.fallback.statistic == "top1"


@pytest.mark.parametrize("text", ["no toml at all", "calibrations = 3", "fallback = 3"])
def test_a_file_that_cannot_be_changed_is_left_as_it_is(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)
    with pytest.raises(InvalidFile, match=r"config\.toml: cannot be changed"):
        write_calibrations(file, {MODEL: CALIBRATION}, "top1", "x")
    assert file.read_text() == text


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="No such file"):
        write_calibrations(tmp_path / "none" / "config.toml", {MODEL: CALIBRATION}, "top1", "x")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ("slope = -1.0", "slope must be positive"),
        ("slope = inf", "slope must be positive"),
        ("intercept = nan", "slope must be positive and finite"),
        ("slop = 1.0", "slop"),
        ("[calibrations.m.statistics.best]\nlow = 0.0\nhigh = 1.0", "best"),
        ("[calibrations.m.statistics.top1]\nlow = 0.9\nhigh = 0.1", "not above"),
        ("[calibrations.m.statistics.top1]\nlow = 0.1\nhigh = 0.9\nthreshold = 6.5", "6.5 is not between"),
    ],
)
def test_a_calibration_that_cannot_be_used_stops_the_start(tmp_path: Path, fields: str, words: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f"[calibrations.m]\n{fields}\n")
    with pytest.raises(InvalidSettings) as refused:
        load({}, file)
    assert words in str(refused.value)
    assert "calibrations" in str(refused.value)
