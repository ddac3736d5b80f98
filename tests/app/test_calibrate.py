"""``rerank-canary calibrate``: fitted on the sample, written, and served by."""

from __future__ import annotations

import asyncio
import json
import math
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from msgspec.structs import replace

from flags.vocabulary import Arm
from proxy.arms.cross_encoder import CrossEncoderArm
from proxy.arms.llm import LlmArm
from proxy.backends import CrossEncoderBackend, LlmBackend
from proxy.cli import main
from proxy.configuration import load
from proxy.doubt import doubt_of
from proxy.engine.calibration import Calibration
from proxy.engine.loading import load as load_model
from proxy.exposure import Attempt, Outcome, Role
from proxy.secrets import Secret
from tests.events import NOON, ranking, write
from tests.parts.llm import ScriptedLlm
from tests.parts.llm_replies import scores
from tests.running import DOCUMENTS, QUERY

if TYPE_CHECKING:
    from pathlib import Path

    from proxy.arms.base import ArmAnswer
    from proxy.doubt import Doubt
    from proxy.events.records import ServedRanking
    from proxy.settings import Settings

FAST = '[backends.gpt]\nkind = "llm"\nstand_in_delay_seconds = 0\n'


AWAY = '[backends.gpt]\nkind = "llm"\nbase_url = "http://127.0.0.1:9/v1"\napi_key = "k"\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "config.toml"
    file.write_text(FAST + "# what a fallback may cost\n[fallback]\nmax_dollars_per_hour = 3.0\n")
    return file


def test_what_is_fitted_is_written_and_served_by(config: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    arguments = ["calibrate", "--config", str(config), "--limit", "20", "--max-share", "0.25", "--write", "--json"]
    ran = CliRunner().invoke(main, [*arguments, "--html", str(page)])
    assert ran.exit_code == 0, ran.output
    report = json.loads(ran.stdout)
    chosen = report["fits"]["top1"]["chosen"]
    assert chosen["share"] == 0.25
    assert report["plans_rule"]["by_logits"]["share"] == 1.0
    assert report["scores"][0]["after"]["log_loss"] < report["scores"][0]["before"]["log_loss"]
    assert report["scores"][1]["stand_in"] is not None
    assert "# what a fallback may cost" in config.read_text()
    assert page.read_text().count("<svg") == 4

    settings = load({}, config)
    assert list(settings.calibrations) == [report["model"]]  # nothing of the stand-in's
    doubt, answer = asyncio.run(_ask(settings))
    assert doubt.threshold == pytest.approx(chosen["threshold"], rel=1e-4)
    assert answer.model == report["model"]
    assert answer.probabilities == tuple(map(settings.calibrations[answer.model].probability, answer.logits))


async def _ask(settings: Settings) -> tuple[Doubt, ArmAnswer]:
    arm = CrossEncoderArm(CrossEncoderBackend(), calibrations=settings.calibrations)
    await arm.start()
    try:
        answer = await arm.score(QUERY, DOCUMENTS, deadline=time.monotonic() + 60)
        return doubt_of(settings.fallback, arm.loaded), answer
    finally:
        await arm.close()


async def test_a_calibration_of_another_revision_is_not_applied() -> None:
    arm = CrossEncoderArm(CrossEncoderBackend(), calibrations={"minilm-l6@older/openvino": Calibration(9.0, 0.0)})
    await arm.start()
    try:
        assert arm.loaded.calibration.slope != 9.0
    finally:
        await arm.close()


async def test_the_language_models_scores_are_mapped_by_its_calibration() -> None:
    with ScriptedLlm(always=scores(lambda _, document: 90 if "virus" in document else 10)) as llm:
        arm = LlmArm(LlmBackend(base_url=llm.base_url, api_key=Secret("k")), calibration=Calibration(0.5, -1.0))
        await arm.start()
        answer = await arm.score(QUERY, DOCUMENTS, deadline=time.monotonic() + 30)
        await arm.close()
    expected = 1 / (1 + math.exp(-(0.5 * math.log(9) - 1.0)))
    assert max(answer.probabilities) == pytest.approx(expected)
    assert max(answer.logits) == pytest.approx(math.log(9))


def test_a_language_models_calibration_is_written_beside_the_candidates(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.touch()
    with ScriptedLlm(always=scores()) as llm:
        ran = CliRunner(env=llm.env).invoke(
            main, ["calibrate", "--config", str(config), "--limit", "12", "--max-loss", "0.9", "--write"]
        )
    assert ran.exit_code == 0, ran.output
    assert "gpt-4o-mini" in load({}, config).calibrations


@pytest.mark.parametrize(
    ("arguments", "text", "words"),
    [
        (["--max-share", "0.1", "--max-loss", "0.1"], FAST, "one target only"),
        (["--max-loss", "0.9", "--write"], FAST, "set OPENAI_API_KEY"),
        (["--max-loss", "-1"], FAST + "oops", "config.toml"),
        (["--max-share", "1", "--write"], FAST, "always falling back"),
        (
            [],
            FAST + '[arms]\ncandidate = "tei"\n[backends.tei]\nkind = "remote"\napi = "tei"\nbase_url = "http://x"\n',
            "$.arms.candidate",
        ),
        (["--max-loss", "0.1"], AWAY, "did not rank 6 of 6 queries"),
    ],
    ids=["two targets", "a loss against the stand-in", "no toml", "no threshold does it", "a remote candidate", "away"],
)
def test_what_cannot_be_fitted_ends_the_command_with_two(
    config: Path, arguments: list[str], text: str, words: str
) -> None:
    config.write_text(text)
    ran = CliRunner().invoke(main, ["calibrate", "--config", str(config), "--limit", "6", *arguments])
    assert ran.exit_code == 2
    assert words in ran.stderr
    assert config.read_text() == text


def logged(statistics: list[float | None], model: str, **fields: Any) -> list[ServedRanking]:
    """Return rankings that *model* made with such statistics; what has none fell back and cost half a cent."""
    found = []
    for number, value in enumerate(statistics):
        ranked = Attempt(
            role=Role.CANDIDATE,
            model=model,
            outcome=Outcome.OK if value is not None else Outcome.ERROR,
            started_at=NOON,
            seconds=0.1,
            kind="cross-encoder",
            statistic=value,
        )
        asked = replace(ranked, role=Role.FALLBACK, model="gpt", kind="llm", cost_dollars=0.005)
        attempts = (ranked,) if value is not None else (ranked, asked)
        found.append(ranking(request_id=f"request-{number}", arm=Arm.CANDIDATE, attempts=attempts, **fields))
    return found


def on_log(folder: Path, config: Path, *arguments: str) -> Result:
    period = ["--since", "2026-11-23T00:00", "--until", "2026-11-24T00:00"]
    command = ["calibrate", "--config", str(config), "--events", str(folder), *period, *arguments]
    return CliRunner().invoke(main, command)


def test_a_threshold_is_fitted_to_what_users_asked(config: Path, tmp_path: Path) -> None:
    label = load_model(CrossEncoderBackend()).label
    users: list[float | None] = [number / 100 + 0.001 for number in range(100)]
    folder, page = tmp_path / "events", tmp_path / "page.html"
    others = logged([0.0] * 40, label, is_forced=True) + logged([0.0] * 40, "an older one")
    write(folder, *logged([*users, None], label), *others)
    ran = on_log(folder, config, "--max-share", "0.25", "--write", "--json", "--html", str(page))
    assert ran.exit_code == 0, ran.output
    report = json.loads(ran.stdout)
    assert (report["requests"], report["fallback_calls"], report["statistic"]) == (100, 1, "top1")
    chosen = report["fit"]["chosen"]
    assert chosen["share"] == 0.25
    assert 0.241 < chosen["threshold"] < 0.251
    assert chosen["dollars_per_thousand"] == pytest.approx(1000 * 0.25 * 0.005)
    written = load({}, config).calibrations[label]
    known = load_model(CrossEncoderBackend()).calibration
    assert (written.slope, written.intercept) == (known.slope, known.intercept)
    assert written.statistics["top1"].threshold == pytest.approx(chosen["threshold"], rel=1e-5)
    assert "by its traffic</h1>" in page.read_text()
    assert page.read_text().count("<svg") == 1
    dollars = json.loads(on_log(folder, config, "--max-dollars", "0.5", "--json").stdout)
    assert dollars["fit"]["chosen"]["share"] == 0.1


def test_a_long_log_is_fitted_by_its_quantiles(config: Path, tmp_path: Path) -> None:
    label = load_model(CrossEncoderBackend()).label
    write(tmp_path / "events", *logged([number / 5000 for number in range(5000)], label))
    report = json.loads(on_log(tmp_path / "events", config, "--max-share", "0.05", "--json").stdout)
    assert report["requests"] == 5000
    assert report["fit"]["chosen"]["threshold"] == pytest.approx(0.05, abs=0.001)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "it has those of an older one (2)"),
        (["--max-loss", "0.1"], "--max-loss needs judged queries"),
        (["--statistic", "mean"], "holds `top1`"),
        (["--until", "2026-11-22"], "--until must be after"),
        (["--max-dollars", "1", "--until", "2026-11-23T00:01"], "has no ranking by it in that time"),
    ],
)
def test_a_log_that_cannot_be_fitted_to_ends_the_command_with_two(
    config: Path, tmp_path: Path, arguments: list[str], words: str
) -> None:
    write(tmp_path / "events", *logged([0.1, 0.2], "an older one"))
    ran = on_log(tmp_path / "events", config, *arguments)
    assert ran.exit_code == 2
    assert words in ran.stderr
