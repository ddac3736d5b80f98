"""Mines hard negatives from the event log: what users clicked and left becomes lists to train on."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import time
from typing import TYPE_CHECKING

import duckdb

from proxy.errors import InvalidFile, InvalidSettings
from proxy.events.reading import EventReader, Period, UnreadableEvents
from proxy.events.records import Kind
from proxy.learning.database import Database
from proxy.learning.lists import drafts, gather, label, sample, split
from proxy.learning.log_parts import Parts, find_parts, without_damaged
from proxy.learning.mined_folder import HELD_OUT, TRAIN, ListFile, check_leakage, publish, scratch
from proxy.learning.mining_plan import MiningPlan, MiningReport, Outlier, TooFewClicks
from proxy.learning.negatives import Chooser
from proxy.learning.opinions import read_opinions, read_queries, read_said, read_served
from proxy.learning.scores import RerankerScores, Scores
from proxy.learning.users import find_outliers, take_out
from proxy.secrets import shown_url

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from proxy.offline.retrieve import Retriever

    Progress = Callable[[str, int, int | None], None]
    """Told the step, how much of it is done, and of how much; None: not known."""


_FULL = os.strerror(errno.ENOSPC)


class _Run:
    """What is gathered for the report."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.dropped: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.outliers: list[Outlier] = []
        self.users = self.capped_users = self.lists = 0
        self.since: int | None = None
        """Unix microseconds."""

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Take the time of a step."""
        self.told(name, 0, None)
        began = time.perf_counter()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - began, 3)

    def told(self, name: str, done: int, of: int | None) -> None:
        """Say how far a step is."""
        self._progress(name, done, of)

    def drop(self, counts: dict[str, int]) -> None:
        """Add what was left out."""
        for reason, count in counts.items():
            self.dropped[reason] = self.dropped.get(reason, 0) + count


def mine(
    plan: MiningPlan, progress: Progress = lambda _step, _done, _of: None, *, scores: Scores | None = None
) -> MiningReport:
    """Mine as *plan* says, and return what was found; nothing is written unless all of it is.

    Args:
        plan: what to mine.
        progress: is told how far it is.
        scores: in place of the plan's model.

    Raises:
        TooFewClicks: there are too few lists to train on.
        UnreadableEvents: a part is damaged, or of a newer version.
        InvalidSettings: the log lacks texts, or a setting of the plan cannot be used.
        InvalidFile: a file, the index or the folder to write cannot be used, or the disk is full.
        InvalidModel, BackendError: a model cannot be loaded, or failed.

    """
    retriever = _retriever(plan)
    with scratch(plan.out) as folder, _in_words(plan):
        reader, period, run = EventReader(plan.events), Period(plan.since, plan.until), _Run(progress)
        with run.step("look at the parts"):
            parts = find_parts(reader, period, skip_broken=plan.skip_broken)
        db, parts, run = _read(plan, reader, parts, run, folder)
        with contextlib.closing(db):
            _check_enough(run.lists, plan)
            own = RerankerScores(plan.model, threads=plan.threads) if plan.model and scores is None else None
            try:
                chooser = Chooser(plan, scores or own, retriever)
                made = folder / "made"
                made.mkdir()
                train, held_out = _write(db, chooser, made, run)
            finally:
                if own is not None:
                    own.close()
        _check_enough(train, plan, run.lists)
        run.drop(dict(chooser.dropped))
        label_of = (scores or own).label if scores or own else None  # type: ignore[union-attr]
        report = _report(plan, parts, run, chooser, (train, held_out), label_of)
        publish(made, plan.out, report)
    return report


def _retriever(plan: MiningPlan) -> Retriever | None:
    if plan.index is None:
        return None
    from proxy.offline.retrieve import Retriever  # noqa: PLC0415 - models, which a run without an index need not wait for

    return Retriever.load(plan.index, model=plan.index_model)


@contextlib.contextmanager
def _in_words(plan: MiningPlan) -> Iterator[None]:
    """Say of DuckDB's errors what they mean to whoever runs this."""
    try:
        yield
    except duckdb.OutOfMemoryException as exc:
        raise InvalidSettings(f"--memory: {plan.memory} is too little: {_first_line(exc)}") from exc
    except duckdb.IOException as exc:
        raise InvalidFile(plan.out, f"cannot be made: {_first_line(exc)}") from exc


def _first_line(exc: Exception) -> str:
    return str(exc).partition("\n")[0]


def _read(plan: MiningPlan, reader: EventReader, parts: Parts, run: _Run, folder: Path) -> tuple[Database, Parts, _Run]:
    """Return the lists of the log, in a database.

    A part whose end is whole may be damaged in the middle: then all are read through to find which.
    """
    period = Period(plan.since, plan.until)
    for attempt in range(2):
        if not all(parts.of[kind] for kind in Kind):
            _check_enough(0, plan)
        (folder / str(attempt)).mkdir()
        db = Database(plan, folder / str(attempt))
        try:
            db.open_log(reader, parts, period)
            _make_lists(db, plan, run)
        except duckdb.Error as exc:
            db.close()
            if isinstance(exc, duckdb.OutOfMemoryException) or _FULL in str(exc):
                raise
            sound = without_damaged(reader, period, parts)
            new = [path for path in sound.broken if path not in parts.broken]
            if not new:
                raise
            if not plan.skip_broken or attempt:
                raise UnreadableEvents(f"{new[0]}: cannot be read: {_first_line(exc)}", is_damage=True) from exc
            parts, run = sound, _Run(run.told)
        except BaseException:
            db.close()
            raise
        else:
            return db, parts, run
    raise AssertionError


def _make_lists(db: Database, plan: MiningPlan, run: _Run) -> None:
    with run.step("feedback"):
        run.drop(read_said(db))
    with run.step("requests"):
        run.drop(read_served(db, plan))
    with run.step("queries"):
        read_queries(db)
    with run.step("opinions"):
        run.drop(read_opinions(db, plan))
        run.outliers = find_outliers(db)
        dropped, run.capped_users = take_out(db, plan)
        run.drop(dropped)
        run.users = db.count("SELECT count(DISTINCT user_hash) FROM kept")
    with run.step("lists"):
        run.drop(label(db, plan))
        run.since = split(db, plan)
        run.drop(sample(db, plan))
        run.lists = db.count("SELECT count(*) FROM lists WHERE NOT is_held_out")
        _check_enough(run.lists, plan)
    with run.step("texts"):
        run.drop(gather(db, run.since))


def _check_enough(lists: int, plan: MiningPlan, before: int | None = None) -> None:
    """Pass where there are enough lists to train on; *before*: how many there were before negatives were chosen."""
    if lists < plan.min_lists:
        queries = "query" if lists == 1 else "queries"
        left = f" (of {before}, whose others have no negative left)" if before is not None and before > lists else ""
        raise TooFewClicks(
            f"clicks on {lists} {queries} to train on{left}, at least {plan.min_lists} are needed; nothing is written"
        )


def _write(db: Database, chooser: Chooser, made: Path, run: _Run) -> tuple[int, int]:
    """Write both parts, and return how many lists each has."""
    total = db.count("SELECT count(*) FROM lists")
    train, held_out = ListFile(made / TRAIN), ListFile(made / HELD_OUT)
    name = "negatives"
    with run.step(name), contextlib.closing(train), contextlib.closing(held_out):
        for draft, row in chooser.lists(drafts(db)):
            (held_out if draft.is_held_out else train).add(row)
            run.told(name, train.count + held_out.count, total)
        train.finish()
        held_out.finish()
        check_leakage(train.queries(), held_out.queries())
    return train.count, held_out.count


def _report(
    plan: MiningPlan, parts: Parts, run: _Run, chooser: Chooser, lists: tuple[int, int], model: str | None
) -> MiningReport:
    return MiningReport(
        events=shown_url(plan.events),
        since=plan.since,
        until=plan.until,
        exposures=parts.rows(Kind.EXPOSURES),
        feedback=parts.rows(Kind.FEEDBACK),
        parts=sum(map(len, parts.of.values())),
        broken_parts=parts.broken,
        kept=dict(sorted(chooser.kept.items())),
        dropped={reason: count for reason, count in run.dropped.items() if count},
        users=run.users,
        capped_users=run.capped_users,
        outliers=run.outliers,
        train_lists=lists[0],
        held_out_lists=lists[1],
        held_out_since=run.since / 1e6 if run.since is not None else None,
        model=model,
        index=str(plan.index) if plan.index else None,
        seconds=run.seconds,
        peak_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    )
