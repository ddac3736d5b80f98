"""What to mine, and what was found."""

from __future__ import annotations

from pathlib import Path

import msgspec


class TooFewClicks(Exception):
    """There is too little to train on; the message says how much there is, and how much is needed."""


class MiningPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One run."""

    events: str
    """The event log: a folder or a URL."""
    since: float
    until: float
    """Unix seconds; requests and feedback from `since` on, before `until`."""
    out: Path
    """The folder to make, in place of the mined set there."""
    passages: Path | None = None
    """Texts by id, where the log has ids only: JSONL or Parquet as `read_corpus` takes it."""
    index: Path | None = None
    """Of `rerank-canary retrieve index`: its best that nobody was shown are negatives too. None: none are."""
    index_model: str | None = None
    """Where the index's bi-encoder lies by now. None: where it lay then."""
    model: str | None = None
    """The reranker that false negatives are told by. None: none are told."""
    held_out_share: float = 0.2
    """Of the lists, about: those of the queries that were asked last for the first time."""
    margin: float = 0.1
    """A negative is left out whose probability is above the positive's less this, or less half of it."""
    max_per_user: int = 200
    """Documents of queries that one user has an opinion on, at most; the others are left out by hash."""
    max_user_share: float = 0.05
    """Likewise, of all opinions; but `FEWEST_OPINIONS` are always taken."""
    max_lists: int | None = None
    """To train on; the others are left out by hash. None: all are taken."""
    min_lists: int = 200
    """To train on; fewer, and nothing is written."""
    eta: float = 1.0
    """As `[feedback] eta`."""
    weight_clip: float = 10.0
    """As `[feedback] weight_clip`."""
    first_places: int = 10
    """Down to which rank what nobody clicked is taken for a negative."""
    retrieved: int = 20
    """How many of the retriever's best are looked at for a query."""
    max_negatives: int = 30
    """Of a list to train on."""
    memory: str = "4GB"
    """That DuckDB may use; beyond, it writes beside `out`."""
    threads: int = 2
    skip_broken: bool = False
    """Whether parts that cannot be read are counted and passed over."""


FEWEST_OPINIONS = 20
"""Of a user that are taken whatever share of all they are: of a short log everybody has a large one."""


class Outlier(msgspec.Struct, frozen=True):
    """A user whose feedback is left out."""

    user_hash: str
    why: str
    """``votes``: far more than others; ``contradicts``: nearly always the opposite of all others."""
    opinions: int


class MiningReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was read, kept and left out, and why."""

    events: str
    """Without its secrets."""
    since: float
    until: float
    exposures: int
    """Rows of the parts that were opened."""
    feedback: int
    parts: int
    broken_parts: list[str]
    kept: dict[str, int]
    """What it is → how many."""
    dropped: dict[str, int]
    """Why → how many."""
    users: int
    """Of whom an opinion was kept."""
    capped_users: int
    outliers: list[Outlier]
    """The first hundred, those of most opinions first; `dropped` has how many opinions they are in all."""
    train_lists: int
    held_out_lists: int
    held_out_since: float | None
    """Unix seconds; None: nothing is held out."""
    model: str | None
    """That told false negatives."""
    index: str | None
    seconds: dict[str, float]
    """By step."""
    peak_mb: float
    """Most memory that the process ever held."""
