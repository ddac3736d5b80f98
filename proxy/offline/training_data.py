"""Reads ranking lists for training: one query, what answers it, what looks as if it did."""

from __future__ import annotations

import gzip
import hashlib
import random
from typing import TYPE_CHECKING

import msgspec

from proxy.errors import InvalidFile
from proxy.offline.judged import Judged

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class TrainingList(msgspec.Struct, frozen=True):
    """One line of a training file.

    Passages are texts, or line numbers (from 0) into a passages file given beside it.
    """

    query: str = msgspec.field(name="q")
    positives: list[str | int] = msgspec.field(name="pos")
    negatives: list[str | int] = msgspec.field(name="neg")
    source: str = msgspec.field(name="src", default="")
    weight: float = msgspec.field(name="w", default=1.0)
    """How much it counts in the loss, 1 on average: of clicks, what their places make of them."""
    at: float = 0.0
    """When the query was first asked, Unix seconds; 0: not known."""


class TrainingSet(msgspec.Struct, frozen=True):
    """What is trained on, and what shows whether it helps: no query is in both."""

    lists: list[TrainingList]
    held_out: list[TrainingList]
    passages: list[str] = []
    """What the numbers in the lists are lines of."""

    def checked(self, file: Path) -> TrainingSet:
        """Return it, if each list names texts, or lines that there are.

        Raises:
            InvalidFile: one does not; the message names *file* and the query.

        """
        for row in (*self.lists, *self.held_out):
            for place in (*row.positives, *row.negatives):
                if isinstance(place, int) and not 0 <= place < len(self.passages):
                    raise InvalidFile(file, f"{row.query!r}: line {place} of {len(self.passages)} passages")
        return self


class Example(msgspec.Struct, frozen=True):
    """One list as the loss sees it: `passages[0]` answers the query, the others do not."""

    query: str
    passages: list[str]
    weight: float = 1.0


def read_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, line) of a text file, gzipped or not, without blank lines."""
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, line


def read_lists(path: Path, *, exclude: frozenset[str] = frozenset()) -> list[TrainingList]:
    """Return the lists of a training file, without those whose source is in *exclude*.

    Raises:
        InvalidFile: a line is no training list; the message names file and line.

    """
    decoder = msgspec.json.Decoder(TrainingList)
    lists = []
    for number, line in read_lines(path):
        try:
            row = decoder.decode(line)
        except msgspec.MsgspecError as exc:
            raise InvalidFile(path, str(exc), line=number) from exc
        if row.source not in exclude and row.positives and row.negatives:
            lists.append(row)
    return lists


def read_passages(path: Path) -> list[str]:
    """Return the passages of a JSONL file, each line a string.

    Raises:
        InvalidFile: a line is no JSON string.

    """
    decoder = msgspec.json.Decoder(str)
    passages = []
    for number, line in read_lines(path):
        try:
            passages.append(decoder.decode(line))
        except msgspec.MsgspecError as exc:
            raise InvalidFile(path, str(exc), line=number) from exc
    return passages


def split(lists: Sequence[TrainingList], held_out: int, seed: int) -> tuple[list[TrainingList], list[TrainingList]]:
    """Part *lists* into (training, held out) by query, so that no query is in both."""
    queries = sorted({row.query for row in lists})
    chosen = set(random.Random(seed).sample(queries, min(held_out, len(queries) // 10)))  # noqa: S311 - a split, no secret
    return [r for r in lists if r.query not in chosen], [r for r in lists if r.query in chosen]


def draw_epoch(
    lists: Sequence[TrainingList],
    passages: Sequence[str],
    *,
    list_size: int,
    source_cap: int,
    seed: int,
) -> Iterator[Example]:
    """Yield one epoch: each source at most *source_cap* times, negatives drawn anew.

    One negative of each list is a random passage of the file where there is one: without
    easy negatives the scores of plain nonsense are never learned, and thresholds mean little.
    """
    dice = random.Random(seed)  # noqa: S311 - sampling, no secret
    by_source: dict[str, list[TrainingList]] = {}
    for row in lists:
        by_source.setdefault(row.source, []).append(row)
    chosen = [row for rows in by_source.values() for row in dice.sample(rows, min(source_cap, len(rows)))]
    dice.shuffle(chosen)
    for row in chosen:
        hard = dice.sample(row.negatives, min(list_size - 2 if passages else list_size - 1, len(row.negatives)))
        easy = [dice.randrange(len(passages))] if passages else []
        picked = [dice.choice(row.positives), *hard, *(i for i in easy if i not in row.positives)]
        yield Example(row.query, texts_of(picked, passages), row.weight)


def judged_of(lists: Sequence[TrainingList], passages: Sequence[str], name: str) -> Judged:
    """Return lists as a judged collection: the candidates of a query are its positives (grade 1) and negatives.

    The candidates stand in an order of their own, by a hash of the text: a reranker that ties all must gain nothing.
    """
    texts: dict[str, str] = {}
    candidates, grades = {}, {}
    for number, row in enumerate(lists):
        positives, negatives = (
            {_key(text): text for text in texts_of(places, passages)} for places in (row.positives, row.negatives)
        )
        texts |= negatives | positives
        candidates[str(number)] = sorted(negatives.keys() | positives.keys())
        grades[str(number)] = dict.fromkeys(positives, 1)
    return Judged(name, {str(number): row.query for number, row in enumerate(lists)}, texts, candidates, grades)


def texts_of(places: Sequence[str | int], passages: Sequence[str]) -> list[str]:
    """Return the texts that a list names, itself or by their line in *passages*."""
    return [place if isinstance(place, str) else passages[place] for place in places]


def _key(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
