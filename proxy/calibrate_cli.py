"""``rerank-canary calibrate``: fits the fallback threshold and what scores mean, and writes both to the settings."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from proxy.backends import CrossEncoderBackend
from proxy.benchmark_cli import collection_options, console, fail, read, run_all, show, write_page
from proxy.configuration import DEFAULT_FILE, FILE_VARIABLE, load
from proxy.errors import InvalidFile, InvalidModel, InvalidSettings
from proxy.eventing import require_packages
from proxy.moments import Moment
from proxy.secrets import shown_url

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.engine.calibration import Calibration, Statistic
    from proxy.offline.calibrate import CalibrationReport
    from proxy.offline.calibrate_log import LogCalibration
    from proxy.offline.thresholds import Target
    from proxy.settings import Settings

_DEFAULT_SHARE = 0.05
_EVENTS_HELP = (
    "Fit to the event log at this folder or URL instead; without a value: the configured one. It has to be of a time "
    "since which statistic and calibration are what they are."
)


class _Log(msgspec.Struct, frozen=True):
    """What to read of an event log."""

    url: str | None
    """Empty: the configured one; None: none is read."""
    since: float
    until: float


@click.command("calibrate")
@click.option("--max-share", type=click.FloatRange(0, 1), help="Target: this share falls back at most. [default: 0.05]")
@click.option("--max-loss", type=click.FloatRange(-1, 1), help="Target: lose at most this nDCG@10 against always GPT.")
@click.option("--max-dollars", type=click.FloatRange(0), help="Target: fallbacks of a thousand requests cost at most.")
@click.option("--statistic", type=click.Choice(["top1", "mean", "margin"]), help="[default: the configured one]")
@click.option("--write", is_flag=True, help="Write it to the configuration file; comments are kept.")
@click.option("--events", "events", is_flag=False, flag_value="", help=_EVENTS_HELP)
@click.option("--since", type=Moment(), default="7d", show_default=True, help="Of --events: ISO 8601 in UTC, or ago.")
@click.option("--until", type=Moment(), default="now", show_default=True, help="Of --events.")
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

    Shows what each threshold would cost and gain, and what the scores of both arms mean as probabilities. With --events
    the threshold is fitted to what users really asked; nobody judged that, so the target is a share or a sum.
    Exit code 2: a file or a setting cannot be used, or no threshold keeps to the target.
    """
    try:
        target = _target(max_share, max_loss, max_dollars)
        log = _Log(*(options.pop(name) for name in ("events", "since", "until")))
        if log.url is not None:
            _on_log(target, statistic, log, html, options["config"], write=write, as_json=as_json)
            return
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
    _candidate(settings)
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


def _on_log(
    target: Target,
    statistic: str | None,
    log: _Log,
    html: Path | None,
    config: Path | None,
    *,
    write: bool,
    as_json: bool,
) -> None:
    """Fit to the event log, and print, draw and write as asked."""
    settings = load(os.environ, config)
    report, known = _log_report(target, statistic, log, settings)
    from proxy.offline.calibrate_log_tables import page_of, tables_of  # noqa: PLC0415 - numpy

    if html is not None:
        write_page(page_of(report), html)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(report), indent=2).decode())
    else:
        for table in tables_of(report):
            show(table, console())
    if write:
        comment = f"{report.requests} requests of {report.events}"
        _save({report.model: report.calibration(known)}, report.statistic, comment, settings, config, as_json=as_json)


def _log_report(
    target: Target, statistic: str | None, log: _Log, settings: Settings
) -> tuple[LogCalibration, Calibration]:
    """Return what the log says of the candidate's model, and how that is calibrated now."""
    require_packages("calibrate --events")
    from proxy.engine.loading import load as load_model  # noqa: PLC0415
    from proxy.events.reading import EventReader, Period, UnreadableEvents  # noqa: PLC0415 - comes with the extra
    from proxy.offline.calibrate_log import calibrate_log  # noqa: PLC0415

    if target.kind == "loss":
        raise click.UsageError("--max-loss needs judged queries: nobody judged what is in the event log")
    if statistic not in {None, settings.fallback.statistic}:
        raise InvalidSettings(f"--statistic: the event log holds `{settings.fallback.statistic}`, the configured one")
    if log.until <= log.since:
        raise click.UsageError("--until must be after --since")
    loaded = load_model(_candidate(settings))
    known = settings.calibrations.get(loaded.label, loaded.calibration)
    url = log.url or settings.events_url
    try:
        reader = EventReader(url)
        report = calibrate_log(
            reader,
            Period(log.since, log.until),
            loaded.label,
            settings.fallback.statistic,
            target,
            events=shown_url(url),
        )
    except UnreadableEvents as exc:
        raise InvalidSettings(str(exc)) from exc
    return report, known


def _candidate(settings: Settings) -> CrossEncoderBackend:
    backend = settings.backend(settings.arms.candidate)
    if not isinstance(backend, CrossEncoderBackend):
        raise InvalidSettings(
            "$.arms.candidate: is no cross-encoder of this process, so that nothing doubts its scores"
        )
    return backend


def _write(report: CalibrationReport, settings: Settings, config: Path | None, *, as_json: bool) -> None:
    from proxy.offline.calibrate_tables import target_words  # noqa: PLC0415

    if report.stand_in is not None and report.target.kind == "loss":
        raise InvalidModel(
            "a loss against the stand-in says nothing of a language model: set OPENAI_API_KEY to write it"
        )
    comment = f"{report.queries} queries of {report.collection}; {target_words(report.target)}"
    _save(report.calibrations(), report.statistic, comment, settings, config, as_json=as_json)


def _save(
    calibrations: dict[str, Calibration],
    statistic: Statistic,
    comment: str,
    settings: Settings,
    config: Path | None,
    *,
    as_json: bool,
) -> None:
    """Write them to the configuration file, and say what still stands against them."""
    from proxy.offline.calibration_file import write_calibrations  # noqa: PLC0415

    file = config or Path(os.environ.get(FILE_VARIABLE) or DEFAULT_FILE)
    today = dt.datetime.now(dt.UTC).date().isoformat()
    write_calibrations(file, calibrations, statistic, f"rerank-canary calibrate, {today}: {comment}")
    configured = settings.fallback.threshold
    words = f"written to {file}: {', '.join(calibrations)}"
    if configured is not None:
        words += f"; the configured threshold {configured:g} (LLM_FALLBACK_THRESHOLD) still wins: take it out"
    click.echo(words, err=as_json)
