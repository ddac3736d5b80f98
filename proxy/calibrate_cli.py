"""``rerank-canary calibrate``: fits the fallback threshold and what scores mean, and writes both to the settings."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from proxy.benchmark_cli import collection_options, console, fail, read, run_all, show, write_page
from proxy.configuration import DEFAULT_FILE, FILE_VARIABLE
from proxy.errors import InvalidFile, InvalidModel, InvalidSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.engine.calibration import Calibration
    from proxy.offline.calibrate import CalibrationReport
    from proxy.offline.thresholds import Target
    from proxy.settings import Settings

_DEFAULT_SHARE = 0.05


@click.command("calibrate")
@click.option("--max-share", type=click.FloatRange(0, 1), help="Target: this share falls back at most. [default: 0.05]")
@click.option("--max-loss", type=click.FloatRange(-1, 1), help="Target: lose at most this nDCG@10 against always GPT.")
@click.option("--max-dollars", type=click.FloatRange(0), help="Target: fallbacks of a thousand requests cost at most.")
@click.option("--statistic", type=click.Choice(["top1", "mean", "margin"]), help="[default: the configured one]")
@click.option("--write", is_flag=True, help="Write it to the configuration file; comments are kept.")
@collection_options
def calibrate(
    max_share: float | None,
    max_loss: float | None,
    max_dollars: float | None,
    statistic: str | None,
    html: Path | None,
    *,
    write: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Fit the fallback threshold of the candidate's model, revision and engine on a judged collection.

    Shows what each threshold would cost and gain, and what the scores of both arms mean as probabilities.
    Exit code 2: a file or a setting cannot be used, or no threshold keeps to the target.
    """
    try:
        target = _target(max_share, max_loss, max_dollars)
        settings, report = _report(target, statistic, options)
        if html is not None:
            from proxy.offline.calibrate_tables import page_of  # noqa: PLC0415 - with numpy, as all of offline

            write_page(page_of(report), html)
        if as_json:
            click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
        else:
            _print(report)
        if write:
            _write(report, settings, options["config"], as_json=as_json)
    except (InvalidFile, InvalidSettings, InvalidModel) as exc:
        fail(str(exc))
        raise SystemExit(2) from exc


def _target(share: float | None, loss: float | None, dollars: float | None) -> Target:
    from proxy.offline.thresholds import Target  # noqa: PLC0415

    given = [
        (kind, most) for kind, most in (("share", share), ("loss", loss), ("dollars", dollars)) if most is not None
    ]
    if len(given) > 1:
        raise click.UsageError("one target only: --max-share, --max-loss or --max-dollars")
    kind, most = given[0] if given else ("share", _DEFAULT_SHARE)
    return msgspec.convert({"kind": kind, "most": most}, Target)


def _report(target: Target, statistic: str | None, options: dict[str, Any]) -> tuple[Settings, CalibrationReport]:
    from proxy.offline.calibrate import Wanted  # noqa: PLC0415
    from proxy.offline.calibrate import calibrate as run  # noqa: PLC0415
    from proxy.offline.rerankers import ArmReranker  # noqa: PLC0415

    settings, judged = read(**options)
    if settings.backend(settings.arms.candidate).__struct_config__.tag != "cross-encoder":
        raise InvalidSettings(
            "$.arms.candidate: is no cross-encoder of this process, so that nothing doubts its scores"
        )
    kinds: Sequence[str] = ("crossencoder", "legacy")
    known: dict[str, Calibration] = {}

    def keep(reranker: object) -> None:
        if isinstance(reranker, ArmReranker) and (calibration := reranker.calibration) is not None:
            known[reranker.name] = calibration

    runs = asyncio.run(run_all(kinds, settings, judged, options["concurrency"], options["llm_concurrency"], keep))
    wanted = Wanted(
        target,
        msgspec.convert(statistic or settings.fallback.statistic, type=_statistic()),
        settings.fallback.margin_k,
        options["min_grade"],
        options["seed"],
    )
    candidate, legacy = runs
    report = run(judged, candidate, legacy, wanted, known)
    return settings, report


def _statistic() -> Any:
    from proxy.engine.calibration import Statistic  # noqa: PLC0415

    return Statistic


def _print(report: CalibrationReport) -> None:
    from proxy.offline.calibrate_tables import curve_table, plan_table, score_table, threshold_table  # noqa: PLC0415

    out = console()
    for note in report.notes:
        out.print(note, style="yellow", markup=False)
    for table in (threshold_table(report), curve_table(report), plan_table(report), score_table(report)):
        show(table, out)


def _write(report: CalibrationReport, settings: Settings, config: Path | None, *, as_json: bool) -> None:
    from proxy.offline.calibrate_tables import target_words  # noqa: PLC0415
    from proxy.offline.calibration_file import write_calibrations  # noqa: PLC0415

    if report.stand_in is not None and report.target.kind == "loss":
        raise InvalidModel(
            "a loss against the stand-in says nothing of a language model: set OPENAI_API_KEY to write it"
        )
    file = config or Path(os.environ.get(FILE_VARIABLE) or DEFAULT_FILE)
    today = dt.datetime.now(dt.UTC).date().isoformat()
    comment = (
        f"rerank-canary calibrate, {today}: {report.queries} queries of {report.collection}; {target_words(report)}"
    )
    write_calibrations(file, report.calibrations(), report.statistic, comment)
    configured = settings.fallback.threshold
    words = f"written to {file}: {', '.join(report.calibrations())}"
    if configured is not None:
        words += f"; the configured threshold {configured:g} (LLM_FALLBACK_THRESHOLD) still wins: take it out"
    click.echo(words, err=as_json)
