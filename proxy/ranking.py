"""From an arm's scores to the order and the scores on the wire. Pure.

The contract: every document exactly once, best first; scores finite, in [0, 1], strictly falling; the
same meaning in both arms (the probability that the document is relevant). Blank documents are never
shown to an arm and come last; equal documents are shown once and stay in the order received.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import msgspec

from proxy.errors import InvalidScores
from proxy.wire.canonical import Ranked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.arms.base import ArmAnswer

STEP = 1e-9
"""Between the scores of neighbours that an arm scored alike."""
_BLANK_LOGIT = -10.0
"""Raw score of a blank document where nothing else was scored; else one below the lowest."""


class Distinct(msgspec.Struct, frozen=True):
    """What an arm is shown of the documents received."""

    texts: list[str]
    text_of: list[int | None]
    """For each document received: its place in `texts`; None for a blank one."""


def distinct(documents: Sequence[str]) -> Distinct:
    """Return each text once, blank ones left out."""
    place: dict[str, int] = {}
    text_of: list[int | None] = []
    for document in documents:
        blank = not document or document.isspace()
        text_of.append(None if blank else place.setdefault(document, len(place)))
    return Distinct(list(place), text_of)


def check_scores(answer: ArmAnswer, count: int) -> None:
    """Pass an answer that can be ranked.

    Raises:
        InvalidScores: a score is missing or not finite.

    """
    if len(answer.logits) != count or len(answer.probabilities) != count:
        raise InvalidScores("the model did not score every document once")
    if not all(map(math.isfinite, (*answer.logits, *answer.probabilities))):
        raise InvalidScores("the model's scores are not finite")


def rank(shown: Distinct, logits: Sequence[float], probabilities: Sequence[float]) -> list[Ranked]:
    """Return every document received in its place; *logits* and *probabilities* are of `shown.texts`."""
    blank = min(logits, default=_BLANK_LOGIT + 1) - 1
    rows = [
        (i, blank, 0.0) if place is None else (i, logits[place], probabilities[place])
        for i, place in enumerate(shown.text_of)
    ]
    rows.sort(key=lambda row: (shown.text_of[row[0]] is None, -row[1]))  # stable: ties stay as received
    ranked: list[Ranked] = []
    ceiling = 1.0
    for below, (i, logit, probability) in zip(range(len(rows) - 1, -1, -1), rows, strict=True):
        score = max(min(probability, ceiling), below * STEP)
        ranked.append(Ranked(i, score, logit))
        ceiling = score - STEP
    return ranked


def as_received(shown: Distinct) -> list[Ranked]:
    """Return the documents in the order received, with scores that claim nothing but that order."""
    count = len(shown.text_of)
    return [Ranked(i, (count - i) / (count + 1), 0.0 - i) for i in range(count)]
