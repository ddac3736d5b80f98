"""What the event log sustains, and what it adds to a request: ``python -m tests.perf.events``.

First the log alone: exposures of 25 documents of 1 kB at a fixed rate, texts redacted as by default, into a local
folder; what its threads use of a core, and what is dropped. Then two proxies with arms that answer at once, one with
the log and one without, asked in turn by the same generator; the difference is what the log adds to a request.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from flags.vocabulary import Arm, Assignment, Reason
from proxy.events.event_log import EventLog
from proxy.events.reading import EventReader, Period
from proxy.events.records import Kind, ServedRanking
from proxy.events.redaction import Redaction
from proxy.events.storage import Storage
from proxy.exposure import Attempt, Exposure, Outcome, Role
from proxy.quality_settings import Events
from proxy.wire.canonical import Ranked, RerankCall
from tests.perf.machine import console, keep, table, this_machine
from tests.perf.overhead import Target, quiet_window
from tests.perf.servers import ours_in_process
from tests.perf.workload import DOCUMENTS, bodies

if TYPE_CHECKING:
    from collections.abc import Sequence

_CALLS = 500
_PACE_SECONDS = 0.002


class Sustained(msgspec.Struct, frozen=True, kw_only=True):
    """How the log alone did at one rate."""

    rate: float
    offered_per_second: float
    written: int
    dropped: int
    hot_us: float
    """Median of what the event loop pays for one."""
    hot_p99_us: float
    core_share: float
    """Of one core, by the log's threads."""
    held_mb: float
    """Most memory that was held."""
    bytes_a_row: float


def sustained(rate: float, seconds: float, settings: Events) -> Sustained:
    """Offer exposures at *rate*, and count what became of them."""
    calls = [msgspec.json.decode(body) for body in bodies(_CALLS)]
    with tempfile.TemporaryDirectory() as folder:
        log = EventLog(settings, Storage(folder), Redaction(settings, b"salt"), "perf")
        log.start()
        began, mine = time.perf_counter(), time.thread_time()
        all_before = time.process_time()
        hot: list[float] = []
        held = 0
        while (passed := time.perf_counter() - began) < seconds:
            for number in range(len(hot), int(passed * rate)):
                ranking = _ranking(number, calls[number % _CALLS])
                before = time.perf_counter()
                log.observe_ranking(ranking)
                hot.append(time.perf_counter() - before)
            held = max(held, log.counts.held_bytes)
            time.sleep(_PACE_SECONDS)
        took = time.perf_counter() - began
        log.close()
        used = (time.process_time() - all_before) - (time.thread_time() - mine)
        written = EventReader(folder).table(Kind.EXPOSURES, Period(0, 4e9), ["request_id"]).num_rows
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
    return Sustained(
        rate=rate,
        offered_per_second=len(hot) / took,
        written=written,
        dropped=log.counts.dropped(Kind.EXPOSURES),
        hot_us=statistics.median(hot) * 1e6,
        hot_p99_us=statistics.quantiles(hot, n=100)[98] * 1e6,
        core_share=used / took,
        held_mb=held / 1e6,
        bytes_a_row=size / written,
    )


def _ranking(number: int, body: dict[str, list[str]]) -> ServedRanking:
    query, documents = f"{number} {body['query']}", tuple(f"{number} {text}" for text in body["documents"])
    attempt = Attempt(role=Role.CONTROL, model="gpt", outcome=Outcome.OK, started_at=time.time(), seconds=0.5)
    exposure = Exposure(
        request_id=f"{number:032x}",
        traceparent=None,
        route="/v1/rerank",
        dialect="jina",
        flag="rerank-canary",
        assignment=Assignment(Arm.CONTROL, Reason.SPLIT, number % 100 + 1, 5),
        outcome=Outcome.OK,
        served_by=Role.CONTROL,
        model="gpt",
        status=200,
        user_hash=f"{number % 997:016x}",
        user_group=number % 64,
        user_source="header:X-User-Id",
        is_forced=False,
        documents=len(documents),
        started_at=time.time(),
        seconds=0.5 + number % 7 / 100,
        attempts=(attempt,),
    )
    count = len(documents)
    results = [Ranked((i * 7 + number) % count, 1 - i / 30 - number % 11 / 1000, 3.0 - i) for i in range(count)]
    return ServedRanking(exposure, RerankCall(query=query, documents=documents), results, count)


class Added(msgspec.Struct, frozen=True, kw_only=True):
    """A request without the log and with it: medians over the rounds, milliseconds."""

    rate: float
    p50_off_ms: float
    p50_on_ms: float
    p99_off_ms: float
    p99_on_ms: float
    cpu_off_ms: float
    cpu_on_ms: float
    added_p50_ms: float
    """Median of the differences, round by round."""


def added(rate: float, seconds: float, rounds: int) -> Added:
    """Ask both in turn."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        venv = Path(sys.prefix)
        off = stack.enter_context(ours_in_process(Path(folder) / "off", venv=venv))
        env = {"RERANK_CANARY__EVENTS__IS_ON": "true", "RERANK_CANARY__EVENTS__FLUSH_SECONDS": "1"}
        on = stack.enter_context(ours_in_process(Path(folder) / "on", env=env, venv=venv))
        targets = [Target("off", off, "/v2/rerank", passes_on=False), Target("on", on, "/v2/rerank", passes_on=False)]
        for target in targets:
            quiet_window(targets, target, rate, 3, 1)
        found = [[quiet_window(targets, target, rate, seconds, 0.1) for target in targets] for _ in range(rounds)]

    def median(place: int, name: str) -> float:
        return float(statistics.median(getattr(windows[place].timed, name) for windows in found))

    return Added(
        rate=rate,
        p50_off_ms=median(0, "p50_ms"),
        p50_on_ms=median(1, "p50_ms"),
        p99_off_ms=median(0, "p99_ms"),
        p99_on_ms=median(1, "p99_ms"),
        cpu_off_ms=statistics.median(windows[0].cpu_ms for windows in found),
        cpu_on_ms=statistics.median(windows[1].cpu_ms for windows in found),
        added_p50_ms=statistics.median(on.timed.p50_ms - off.timed.p50_ms for off, on in found),
    )


@click.command()
@click.option("--rate", "rates", type=float, multiple=True, default=[500.0, 2000.0], show_default=True)
@click.option("--seconds", default=20.0, show_default=True, help="How long each rate is held.")
@click.option("--request-rate", default=200.0, show_default=True, help="Requests a second to the two proxies.")
@click.option("--rounds", default=7, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write the figures there.")
def main(rates: Sequence[float], seconds: float, request_rate: float, rounds: int, file: Path | None) -> None:
    """Print both tables."""
    out, machine = console(), this_machine()
    settings = Events(is_on=True, flush_seconds=5)
    alone = [sustained(rate, seconds, settings) for rate in rates]
    out.print(
        table(
            f"The event log alone, {DOCUMENTS} documents of 1 kB, {seconds:g} s",
            ["asked/s", "offered/s", "written", "dropped", "hot p50 us", "p99", "of a core", "held MB", "bytes a row"],
            [
                (
                    f"{each.rate:g}",
                    f"{each.offered_per_second:.1f}",
                    f"{each.written}",
                    f"{each.dropped}",
                    f"{each.hot_us:.1f}",
                    f"{each.hot_p99_us:.1f}",
                    f"{each.core_share:.1%}",
                    f"{each.held_mb:.1f}",
                    f"{each.bytes_a_row:.0f}",
                )
                for each in alone
            ],
            str(machine),
        )
    )
    beside = added(request_rate, 4, rounds)
    rows = [
        ("off", *(f"{ms:.3f}" for ms in (beside.p50_off_ms, beside.p99_off_ms, beside.cpu_off_ms)), ""),
        (
            "on",
            *(f"{ms:.3f}" for ms in (beside.p50_on_ms, beside.p99_on_ms, beside.cpu_on_ms)),
            f"{beside.added_p50_ms:+.3f}",
        ),
    ]
    title = f"A request at {request_rate:g}/s, {DOCUMENTS} documents of 1 kB"
    caption = f"{machine}\nmedians of {rounds} rounds; 'on' writes a part each second"
    out.print(table(title, ["event log", "p50 ms", "p99 ms", "CPU ms", "added p50 ms"], rows, caption))
    keep(file, machine, alone=alone, beside=beside)


if __name__ == "__main__":
    main()
