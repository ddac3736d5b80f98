"""What mining a long log takes: ``python -m tests.perf.mining``.

A log of two million exposures of 25 documents, ids and texts, in hourly partitions of a month; something is said of
15 %. Queries and users are few and many as they are in life (Zipf). It is made once, and mined without a model; time
and memory are of a process of its own.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from proxy.events.records import Kind
from proxy.events.schema import TABLES, Table
from proxy.events.storage import Storage
from proxy.learning.mining_plan import MiningReport
from tests.perf.machine import console, keep, table, this_machine

_CACHE = Path(__file__).parent / ".cache"
_BEGIN = 1_793_491_200  # 2026-11-01
_HOURS = 720
_DOCUMENTS = 25
_PASSAGES, _QUERIES, _USERS = 50_000, 200_000, 100_000
_WORDS_OF_A_PASSAGE, _WORDS_OF_A_QUERY, _VOCABULARY = 40, 5, 20_000
_FEEDBACK_SHARE, _VOTE_SHARE = 0.15, 0.05
_LIMIT_SECONDS, _LIMIT_MB = 600, 6_000
_SEED = 1


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What the log is."""

    exposures: int
    feedback: int
    megabytes: float
    bytes_an_exposure: float


def make(folder: Path, exposures: int) -> Made:
    """Write a log of *exposures* into *folder*, unless it is there."""
    facts = folder / "made.json"
    if facts.exists():
        return msgspec.json.decode(facts.read_bytes(), type=Made)
    dice, storage = np.random.default_rng(_SEED), Storage(folder)
    world = _World(dice)
    said = 0
    for hour in range(_HOURS):
        rows = exposures // _HOURS + (hour < exposures % _HOURS)
        served, heard = world.hour(_BEGIN + hour * 3600, hour * exposures, rows)
        said += heard.num_rows
        for kind, part in ((Kind.EXPOSURES, served), (Kind.FEEDBACK, heard)):
            path = Path(storage.folder(kind, _BEGIN // 3600 + hour))
            path.mkdir(parents=True, exist_ok=True)
            pq.write_table(
                part, path / f"part-perf-{hour}.parquet", compression="zstd", dictionary_pagesize_limit=1 << 25
            )
    size = sum(path.stat().st_size for path in (folder / "exposures").rglob("*.parquet"))
    made = Made(exposures=exposures, feedback=said, megabytes=size / 1e6, bytes_an_exposure=size / exposures)
    facts.write_bytes(msgspec.json.encode(made))
    return made


class _World:
    """Passages, queries and users, and what they do in an hour."""

    def __init__(self, dice: np.random.Generator) -> None:
        self._dice = dice
        words = np.array([f"word{number:05d}" for number in range(_VOCABULARY)])
        self._passages = _texts(dice, words, _PASSAGES, _WORDS_OF_A_PASSAGE)
        self._ids = pa.array([f"passage-{number}" for number in range(_PASSAGES)])
        self._queries = _texts(dice, words, _QUERIES, _WORDS_OF_A_QUERY)
        self._users = pa.array([f"{number:016x}" for number in range(_USERS)])
        self._found = dice.integers(0, _PASSAGES, (_QUERIES, _DOCUMENTS), dtype=np.int32)

    def hour(self, begin: int, first: int, rows: int) -> tuple[pa.Table, pa.Table]:
        """Return the exposures and the feedback of an hour."""
        dice = self._dice
        query = dice.zipf(1.3, rows) % _QUERIES
        query = np.where(dice.random(rows) < 0.5, query, dice.integers(0, _QUERIES, rows))
        user = dice.zipf(1.5, rows) % _USERS
        user = np.where(dice.random(rows) < 0.3, user, dice.integers(0, _USERS, rows))
        order = np.argsort(dice.random((rows, _DOCUMENTS)) + np.arange(_DOCUMENTS) / 10, axis=1).astype(np.int32)
        at = np.sort(dice.integers(begin * 10**6, (begin + 3600) * 10**6, rows))
        requests = pa.array([f"{first + number:032x}" for number in range(rows)])
        found = self._found[query].ravel()
        served = _rows(
            TABLES[Kind.EXPOSURES],
            rows,
            at=pa.array(at, pa.timestamp("us", tz="UTC")),
            request_id=requests,
            user_hash=self._users.take(pa.array(user)),
            is_forced=pa.array(np.zeros(rows, bool)),
            query=self._queries.take(pa.array(query)),
            documents=_lists(pa.DictionaryArray.from_arrays(pa.array(found), self._passages)),
            document_ids=_lists(pa.DictionaryArray.from_arrays(pa.array(found), self._ids)),
            order=_lists(pa.array(order.ravel())),
            scores=_lists(pa.array(np.tile(np.linspace(1, 0, _DOCUMENTS), rows))),
            sent=pa.array(np.full(rows, _DOCUMENTS, np.int32)),
        )
        return served, self._said(at, requests, user, order)

    def _said(self, at: Any, requests: pa.Array, user: Any, order: Any) -> pa.Table:
        """Return feedback: a click where documents are seen by their rank, sometimes a vote."""
        dice = self._dice
        chosen = np.flatnonzero(dice.random(len(at)) < _FEEDBACK_SHARE)
        count = len(chosen)
        rank = np.minimum(dice.geometric(0.25, count), _DOCUMENTS)
        is_vote = dice.random(count) < _VOTE_SHARE
        place = order[chosen, rank - 1]
        return _rows(
            TABLES[Kind.FEEDBACK],
            count,
            at=pa.array(at[chosen], pa.timestamp("us", tz="UTC")),
            request_id=requests.take(pa.array(chosen)),
            user_hash=self._users.take(pa.array(user[chosen])),
            action=pa.array(np.where(is_vote, "voted", "clicked")),
            vote=pa.array(np.where(dice.random(count) < 0.9, 1, -1), pa.int8(), mask=~is_vote),
            indices=_lists(pa.array(place), 1),
            ranks=_lists(pa.array(rank.astype(np.int32)), 1),
        )


def _texts(dice: np.random.Generator, words: Any, count: int, length: int) -> pa.Array:
    drawn = words[dice.integers(0, len(words), (count, length))]
    return pa.array([" ".join(row) for row in drawn])


def _lists(values: pa.Array, length: int = _DOCUMENTS) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, length, dtype=np.int32)), values)


def _rows(about: Table, rows: int, **columns: pa.Array) -> pa.Table:
    """Return a table of a log's columns, those that are not given null."""
    schema = about.schema()
    given = [columns.get(name, pa.nulls(rows, schema.field(name).type)) for name in schema.names]
    version = pa.array(np.full(rows, about.version, np.int16))
    arrays = [version if name == "schema_version" else found for name, found in zip(schema.names, given, strict=True)]
    return pa.table(arrays, names=schema.names).replace_schema_metadata(schema.metadata)


def mined(folder: Path, memory: str) -> tuple[MiningReport, float]:
    """Mine the log in a process of its own; returns its report, and the seconds that it took as a whole."""
    program = [sys.executable, "-m", "proxy.cli", "mine", "--no-model", "--json"]
    span = ["--since", "2026-11-01", "--until", "2026-12-02", "--memory", memory]
    began = time.perf_counter()
    done = subprocess.run(
        [*program, *span, "--events", str(folder), "--out", str(folder / "mined")], check=True, stdout=subprocess.PIPE
    )
    return msgspec.json.decode(done.stdout, type=MiningReport), time.perf_counter() - began


@click.command()
@click.option("--exposures", default=2_000_000, show_default=True)
@click.option("--memory", default="4GB", show_default=True, help="Of DuckDB.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="Keep the figures.")
def main(exposures: int, memory: str, file: Path | None) -> None:
    """Print what mining takes."""
    machine = this_machine()
    folder = _CACHE / f"events-{exposures}"
    made = make(folder, exposures)
    report, seconds = mined(folder, memory)
    rows = [
        ["exposures", f"{made.exposures:,}", ""],
        ["feedback", f"{made.feedback:,}", ""],
        ["bytes an exposure", f"{made.bytes_an_exposure:,.0f}", ""],
        ["seconds", f"{seconds:,.1f}", f"{_LIMIT_SECONDS}"],
        *([f"  {step}", f"{took:,.1f}", ""] for step, took in report.seconds.items()),
        ["peak memory, MB", f"{report.peak_mb:,.0f}", f"{_LIMIT_MB}"],
        ["lists to train on", f"{report.train_lists:,}", ""],
        ["lists held out", f"{report.held_out_lists:,}", ""],
    ]
    console().print(table(f"mining, DuckDB with {memory}", ["", "measured", "limit"], rows, str(machine)))
    keep(file, machine, made=made, report=report, seconds=seconds)


if __name__ == "__main__":
    main()
