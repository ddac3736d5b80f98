"""Judged collections: what a reranker's order is measured against."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence


class Judged(msgspec.Struct, frozen=True):
    """Queries, their candidates in the retriever's order, and how relevant documents are."""

    name: str
    queries: dict[str, str]
    documents: dict[str, str]
    candidates: dict[str, list[str]]
    """For each query the ids of its candidates, the retriever's best first."""
    grades: dict[str, dict[str, int]]
    """For each query the grade of its judged documents; all others are 0."""
    notes: tuple[str, ...] = ()
    """What was left out on reading, and where the candidates come from, in words."""

    def first(self, queries: int, candidates: int) -> Judged:
        """Return the first *queries*, each with its first *candidates*."""
        kept = list(self.candidates)[:queries]
        return Judged(
            self.name,
            {q: self.queries[q] for q in kept},
            self.documents,
            {q: self.candidates[q][:candidates] for q in kept},
            {q: self.grades[q] for q in kept if q in self.grades},
            self.notes,
        )

    def only(self, queries: Sequence[str]) -> Judged:
        """Return the collection of *queries* alone."""
        return Judged(
            self.name,
            {q: self.queries[q] for q in queries},
            self.documents,
            {q: self.candidates[q] for q in queries},
            {q: self.grades[q] for q in queries if q in self.grades},
            self.notes,
        )

    def texts(self, query: str) -> list[str]:
        """Return the texts of a query's candidates, in their order."""
        return [self.documents[name] for name in self.candidates[query]]
