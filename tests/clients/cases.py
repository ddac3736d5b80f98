"""What every client asks for, and what must come back whatever the client."""

from __future__ import annotations

from typing import Any

import msgspec

from tests.running import DOCUMENTS, QUERY


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One ranking."""

    id: str
    query: str = QUERY
    documents: tuple[Any, ...] = tuple(DOCUMENTS)
    best: int | None = 1
    """The document that both arms must put first."""
    blank: frozenset[int] = frozenset()
    """Documents that must come last."""
    equal: tuple[tuple[int, ...], ...] = ()
    """Places of one and the same text: they must stay in this order."""
    top_n: int | None = None
    send_nulls: bool = False
    are_objects: bool = False

    @property
    def results(self) -> int:
        """How many documents must come back."""
        return min(len(self.documents), self.top_n or len(self.documents))

    def text(self, index: int) -> str:
        """Return the text of a document."""
        document = self.documents[index]
        return document if isinstance(document, str) else document["text"]


_RELEVANT = DOCUMENTS[1]
_THOUSAND = [f"Entry {i} of the stock list: {i % 37} boxes of screws, shelf {i % 11}." for i in range(1000)]
_THOUSAND[777] = _RELEVANT

CASES = (
    Case(id="four"),
    Case(id="nulls", send_nulls=True),
    Case(
        id="doubles",
        documents=(DOCUMENTS[0], _RELEVANT, DOCUMENTS[0], _RELEVANT, DOCUMENTS[2], DOCUMENTS[0]),
        equal=((1, 3), (0, 2, 5)),
    ),
    Case(
        id="empties",
        documents=("", _RELEVANT, " \n\t", DOCUMENTS[2], ""),
        blank=frozenset({0, 2, 4}),
        equal=((0, 2, 4),),
    ),
    Case(id="only_empties", documents=("", " "), best=0, blank=frozenset({0, 1}), equal=((0, 1),)),
    Case(id="none", documents=(), best=None),
    Case(id="one", documents=(_RELEVANT,), best=0),
    Case(id="thousand", documents=tuple(_THOUSAND), best=777),
    Case(
        id="emoji",
        query="which animal is the 🦊 in the 🌲 forest",
        documents=(
            "Bread rises when the yeast is warm. 🍞",
            "\U0001f468\u200d\U0001f469\u200d\U0001f467 on the beach, 🏖️ all day",
            "The 🦊 in the 🌲 forest is a fox, a small wild animal.",
            "🎉🎉🎉",
        ),
        best=2,
    ),
    Case(
        id="right_to_left",
        query="מהי בירת צרפת",
        documents=(
            "הלחם תופח כשהשמרים חמים",
            "القطط تنام طوال النهار",
            "\u200fפריז היא בירת צרפת, מהי העיר הגדולה",  # noqa: RUF001 - Hebrew is meant
            "۱۲۳",
        ),
        best=2,
    ),
    Case(
        id="nul",
        query="how do vaccines protect against a\x00virus",
        documents=("\x00", "The recipe takes two eggs\x00and flour.", f"{_RELEVANT}\x00", "Stock\x00prices fell."),
        best=2,
    ),
    Case(id="top_2", top_n=2),
    Case(id="top_n_over_n", top_n=50),
)
OBJECTS = Case(
    id="objects",
    documents=tuple({"text": text, "title": f"No. {i}"} for i, text in enumerate(DOCUMENTS)),
    are_objects=True,
)
