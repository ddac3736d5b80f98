"""An event log of some days of control's traffic, with a daily swing: ``python -m tests.parts.event_days FOLDER``.

What it holds is made up, so that reports can be looked at and computed again: lognormal latencies with a median of
1.6 s, slower in the afternoon, 0.1 to 0.3 cent a query, and one failure in two hundred.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from flags.vocabulary import Arm
from proxy.exposure import Outcome, Role
from tests.events import NOON, event_log, ranking

if TYPE_CHECKING:
    from collections.abc import Iterator

    from proxy.events.records import ServedRanking

_QUIET, _BUSY = 40, 400
"""Requests an hour, at night and in the afternoon."""


def days(count: int, *, begin: float = NOON, seed: int = 1, candidate_share: float = 0.0) -> Iterator[ServedRanking]:
    """Yield the requests of *count* days, the same ones for the same *seed*."""
    chance = random.Random(seed)  # noqa: S311 - the same traffic in every run, no secret
    number = 0
    for hour in range(24 * count):
        swing = (1 - np.cos(2 * np.pi * ((begin / 3600 + hour) % 24 - 3) / 24)) / 2
        moments = sorted(chance.random() for _ in range(round(_QUIET + (_BUSY - _QUIET) * swing)))
        for moment in moments:
            number += 1
            is_candidate = chance.random() < candidate_share
            arm = Arm.CANDIDATE if is_candidate else Arm.CONTROL
            failed = chance.random() < 0.005
            chance.lognormvariate(0.47 + 0.3 * swing, 0.35) / (30 if is_candidate else 1)
            yield ranking(
                arm=arm,
                served_by=Role.CANDIDATE if is_candidate or failed else Role.CONTROL,
                outcome=Outcome.TIMEOUT if failed else Outcome.OK,
                request_id=f"{seed}-{number}",
                user_hash=f"{chance.randrange(900):016x}",
                started_at=begin + 3600 * (hour + moment),
                seconds=12.0
                if failed
                else chance.lognormvariate(0.47 + 0.3 * swing, 0.35) / (30 if is_candidate else 1),
                cost_dollars=0.0 if is_candidate else chance.uniform(0.001, 0.003),
                documents=25,
            )


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--days", "count", default=2, show_default=True)
@click.option("--begin", default=NOON, show_default=True, help="Unix seconds.")
def main(folder: Path, count: int, begin: float) -> None:
    """Write it."""
    log = event_log(folder, queue_rows=1_000_000, queue_mb=4000)
    log.start()
    for each in days(count, begin=begin):
        log.observe_ranking(each)
    log.close()
    click.echo(f"{log.counts.written.total()} rows in {log.counts.files} files")


if __name__ == "__main__":
    main()
