"""``rerank-canary baseline``: what control's traffic comes to, before anybody gets the candidate.

Exit codes: 0 done; 1 there is nothing to report; 2 wrong usage, or the log or a file cannot be read; 3 the proxy cannot
be reached; 4 the key or the token is refused.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
import httpx
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from proxy.baseline_file import BASELINE_NAME
from proxy.configuration import load
from proxy.control_client import REFUSED, UNAUTHORIZED, UNREACHABLE, token_of
from proxy.errors import InvalidFile, InvalidSettings
from proxy.eventing import require_packages
from proxy.moments import Moment
from proxy.secrets import shown_url

if TYPE_CHECKING:
    from proxy.baseline_file import Baseline, Quality
    from proxy.events.reading import Period
    from proxy.settings import Settings

_out = Console()
_errors = Console(stderr=True)

WRONG = 2


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the command was given."""

    since: float
    until: float
    file: Path | None
    url: str | None
    judged: Path | None
    proxy_url: str
    key: str
    out: Path | None
    html: Path | None
    as_json: bool


@click.command("baseline")
@click.option("--since", type=Moment(), default="24h", show_default=True, help="ISO 8601 in UTC, or ago: 90m, 24h, 7d.")
@click.option("--until", type=Moment(), default="now", show_default=True)
@click.option("--config", "file", type=click.Path(path_type=Path), help="TOML file; else $RERANK_CANARY_CONFIG.")
@click.option("--events", "url", help="Folder or URL of the event log; else as configured.")
@click.option("--judged", type=click.Path(path_type=Path), help="Judged queries, in the form of `[probes] file`.")
@click.option("--proxy", "proxy_url", default="http://127.0.0.1:8080", show_default=True, help="Ranks the judged ones.")
@click.option("--key", envvar="RERANK_CANARY_KEY", default="", help="Of its data plane.")
@click.option(
    "--out", type=click.Path(path_type=Path), help=f"Where it is saved; else {BASELINE_NAME} in the data directory."
)
@click.option("--html", type=click.Path(path_type=Path), help="Write a page with plots there.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def baseline(**given: Any) -> None:
    """Report latency, cost, traffic and quality of control over a period, and save it for the guard."""
    asked = _Asked(**given)
    if asked.until <= asked.since:
        raise click.UsageError("--until must be after --since")
    settings = _settings(asked.file)
    found = _of_log(asked.url or settings.events_url, asked.since, asked.until)
    if asked.judged is not None:
        quality = _quality(asked.judged, asked.proxy_url, asked.key, settings)
        found = msgspec.structs.replace(found, quality=quality)
    saved = asked.out or settings.data_dir / BASELINE_NAME
    _write(saved, msgspec.json.format(msgspec.json.encode(found), indent=2))
    if asked.html is not None:
        from proxy.offline.baseline_page import page_of  # noqa: PLC0415 - only where a page is wanted

        _write(asked.html, page_of(found).encode())
    if asked.as_json:
        click.echo(msgspec.json.encode(found))
        return
    show(found)
    drawn = f"[dim], drawn in[/] {asked.html}" if asked.html else ""
    _out.print(f"[dim]saved as[/] {saved}{drawn}", highlight=False, soft_wrap=True)


def _settings(file: Path | None) -> Settings:
    try:
        require_packages("baseline")
        return load(os.environ, file)
    except InvalidSettings as exc:
        _fail(str(exc), WRONG)


def _of_log(url: str, since: float, until: float) -> Baseline:
    from proxy.events.reading import EventReader, Period, UnreadableEvents  # noqa: PLC0415 - comes with the extra
    from proxy.offline.baseline import NoTraffic, baseline_of  # noqa: PLC0415

    period: Period = Period(since, until)
    try:
        return baseline_of(EventReader(url), period, events=shown_url(url), now=time.time())
    except NoTraffic as exc:
        _fail(str(exc), REFUSED)
    except (InvalidSettings, UnreadableEvents) as exc:
        _fail(str(exc), WRONG)


def _quality(file: Path, proxy_url: str, key: str, settings: Settings) -> Quality:
    from proxy.offline.judged_orders import ControlArm, RefusedByProxy, quality_of_orders  # noqa: PLC0415 - numpy
    from proxy.probes import read_probes  # noqa: PLC0415

    columns = (TextColumn("ranking"), BarColumn(), MofNCompleteColumn(), TextColumn("queries"), TimeRemainingColumn())
    try:
        probes = [each.shuffled() for each in read_probes(file)]
        arm = ControlArm(proxy_url, key=key, control_token=token_of(settings.data_dir))
        with Progress(*columns, console=_errors, transient=True) as progress:
            task = progress.add_task("", total=len(probes))
            ranked = arm.rank_all(probes, lambda: progress.advance(task))
    except InvalidFile as exc:
        _fail(str(exc), WRONG)
    except httpx.HTTPError as exc:
        _fail(f"the proxy at {proxy_url} cannot be reached: {exc}", UNREACHABLE)
    except RefusedByProxy as exc:
        _fail(f"the proxy refuses: {exc}", UNAUTHORIZED if exc.is_key else REFUSED)
    return quality_of_orders(file, ranked)


def _write(file: Path, data: bytes) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    except OSError as exc:
        _fail(f"{file}: cannot be written: {exc}", WRONG)


def _fail(reason: str, code: int) -> NoReturn:
    _errors.print(Text.assemble(("rerank-canary: ", "bold red"), reason), highlight=False, soft_wrap=True)
    sys.exit(code)


def show(found: Baseline) -> None:
    """Print it for people."""
    latency, cost = found.latency, found.cost
    table = Table(title=f"Control, {_moment(found.since)} to {_moment(found.until)} UTC", title_justify="left")
    table.add_column("")
    table.add_column("", justify="right")
    failed = 1 - found.outcomes.get("ok", 0) / found.requests
    upper = "too few requests" if latency.p95_upper is None else f"{latency.p95_upper:.3f} s"
    for name, value in (
        ("requests", f"{found.requests:,} of {found.all_requests:,}"),
        ("users", f"{found.users:,}"),
        ("documents a request", f"{found.documents:.1f}"),
        ("not ok", f"{failed:.2%}"),
        ("mean latency", f"{latency.mean:.3f} s"),
        ("p50", f"{latency.p50:.3f} s"),
        ("p95", f"{latency.p95:.3f} s"),
        ("p95, upper limit for the guard", upper),
        ("a query", f"${cost.per_query:.6f}"),
        ("a thousand queries", f"${cost.per_thousand:,.3f}"),
        *([(f"a month of {cost.queries_per_month:,.0f} queries", f"${cost.per_month:,.2f}")] if cost.per_month else []),
        *_quality_rows(found.quality),
    ):
        table.add_row(name, value)
    _out.print(table)
    _out.print(f"[dim]a month: {cost.assumption}[/]", highlight=False)
    _show_hours(found)


def _quality_rows(quality: Quality | None) -> list[tuple[str, str]]:
    if quality is None:
        return []
    rows = [
        (f"{each.name}, {each.queries} queries", "not measurable" if each.value is None else f"{each.value:.4f}")
        for each in quality.measures
    ]
    return [*rows, *([("judged queries without an order", str(quality.not_ranked))] if quality.not_ranked else [])]


def _show_hours(found: Baseline) -> None:
    top = max(hour.requests for hour in found.hours)
    table = Table(title="Traffic by hour, UTC", title_justify="left")
    for name in ("hour", "requests", "p50", "p95", ""):
        table.add_column(name, justify="left" if name in {"hour", ""} else "right")
    for hour in found.hours[-24:]:
        times = ["" if each is None else f"{each:.3f} s" for each in (hour.p50, hour.p95)]
        table.add_row(
            _moment(hour.at), f"{hour.requests:,}", *times, f"[cyan]{'█' * round(20 * hour.requests / top)}[/]"
        )
    _out.print(table)
    if len(found.hours) > 24:
        _out.print("[dim]the last 24 hours; the others are in the file[/]")


def _moment(at: float) -> str:
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%d %H:%M}"
