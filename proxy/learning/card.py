"""What a model in the registry says of itself: what it was made of, how it ranks against the one before, its files."""

from __future__ import annotations

import datetime as dt
from typing import Literal

import msgspec

Kind = Literal["reranker", "retriever"]


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """A model against the one that serves, on one set, query by query."""

    name: str
    """Of the set."""
    measure: str
    """As ir-measures names it."""
    queries: int
    current: float
    candidate: float
    low: float
    """With the next: the 95 % interval of the mean difference, candidate less current, by resampling queries."""
    high: float
    p: float
    """How often chance alone makes such a difference (Fisher's randomisation, two-sided)."""

    @property
    def difference(self) -> float:
        """Candidate less current."""
        return self.candidate - self.current

    @property
    def is_better(self) -> bool:
        """Whether it is more than chance."""
        return self.low > 0 and self.p <= _ALPHA

    @property
    def is_worse(self) -> bool:
        """Whether it is more than chance."""
        return self.high < 0 and self.p <= _ALPHA


_ALPHA = 0.05


class DataWindow(msgspec.Struct, frozen=True, kw_only=True):
    """What it was trained on."""

    since: float
    until: float
    """Unix seconds."""
    lists: int
    held_out: int


class File(msgspec.Struct, frozen=True):
    """One file, as it has to be."""

    sha256: str
    size: int
    """Bytes."""


class ModelCard(msgspec.Struct, frozen=True, kw_only=True):
    """One model."""

    name: str
    kind: Kind
    made_at: float
    """Unix seconds."""
    parent: str
    """The model whose weights it began with."""
    data: DataWindow
    comparisons: list[Comparison]
    p95_milliseconds: float | None = None
    """Of 25 documents of the held-out set, tokenising included; None: of a retriever it was not asked."""
    machine: str = ""
    """Where that was measured."""
    files: dict[str, File] = {}
    """By path below the model's folder."""


def readme_of(card: ModelCard) -> str:
    """Return the card for people, as Markdown."""
    lines = [
        f"# {card.name}",
        "",
        f"A {card.kind}, made {_day(card.made_at)} from {card.parent}. It was trained on {_data_of(card.data)}.",
        "",
        "| set | measure | queries | before | this model | difference, 95 % | p |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {c.name} | {c.measure} | {c.queries:,} | {c.current:.4f} | {c.candidate:.4f}"
            f" | {c.difference:+.4f} ({c.low:+.4f} to {c.high:+.4f}) | {c.p:.4f} |"
            for c in card.comparisons
        ),
        "",
    ]
    if card.p95_milliseconds is not None:
        lines += [f"p95 of 25 documents: {card.p95_milliseconds:.0f} ms ({card.machine}).", ""]
    if card.kind == "reranker":
        lines += ["`engine/calibration.json` has Platt's map and the ranges of the fallback statistics.", ""]
    return "\n".join(lines)


def _data_of(data: DataWindow) -> str:
    when = f"{_day(data.since)} to {_day(data.until)}"
    return f"{data.lists:,} lists of what users chose from {when}; {data.held_out:,} were held out"


def _day(at: float) -> str:
    return f"{dt.datetime.fromtimestamp(at, dt.UTC):%Y-%m-%d %H:%M} UTC"
