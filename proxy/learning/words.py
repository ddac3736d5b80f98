"""When two queries are the same, or nearly."""

from __future__ import annotations

import re

_WORD = re.compile(r"\w+")


def normalised(text: str) -> str:
    """Return *text* without its case (Unicode's full case folding) and with single spaces."""
    return " ".join(text.casefold().split())


def word_set(query: str) -> str:
    """Return the words of a normalised query, each once, sorted: near-duplicates have the same.

    A query without a word is its own.
    """
    return " ".join(sorted(set(_WORD.findall(query)))) or query
