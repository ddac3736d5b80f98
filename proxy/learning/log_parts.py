"""The parts of an event log that are to be mined, checked before anything is done. Needs pyarrow."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from proxy.events.reading import EventReader, Period, UnreadableEvents
from proxy.events.records import Kind

if TYPE_CHECKING:
    from collections.abc import Collection

COLUMNS = {
    Kind.EXPOSURES: (
        "at", "request_id", "user_hash", "is_forced", "query", "documents", "document_ids", "order", "sent"
    ),
    Kind.FEEDBACK: ("at", "request_id", "user_hash", "action", "vote", "indices", "document_ids"),
}  # fmt: skip
"""What is read of each."""
_AT_ONCE = 4


class Part(msgspec.Struct, frozen=True):
    """One file."""

    path: str
    rows: int
    is_current: bool
    """Whether it is of the version that is written now."""


class Parts(msgspec.Struct, frozen=True):
    """The files of a period."""

    of: dict[Kind, list[Part]]
    broken: list[str]

    def rows(self, kind: Kind) -> int:
        """Return how many rows they have, those outside the period included."""
        return sum(part.rows for part in self.of[kind])


def find_parts(reader: EventReader, period: Period, *, skip_broken: bool) -> Parts:
    """Return the parts of *period* by what their ends say of them.

    Raises:
        UnreadableEvents: one is damaged (unless *skip_broken*), lacks a column, or is of a newer version.

    """
    found: dict[Kind, list[Part]] = {}
    broken: list[str] = []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for kind in Kind:

            def look(path: str, kind: Kind = kind) -> Part | str:
                try:
                    facts = reader.check(kind, path, COLUMNS[kind])
                    return Part(path, facts.rows, is_current=facts.version == reader.version(kind))
                except UnreadableEvents as exc:
                    if not (skip_broken and exc.is_damage):
                        raise
                    return path

            seen = list(pool.map(look, reader.parts(kind, period)))
            found[kind] = [each for each in seen if isinstance(each, Part)]
            broken += [each for each in seen if isinstance(each, str)]
    return Parts(found, broken)


def without_damaged(reader: EventReader, period: Period, parts: Parts) -> Parts:
    """Read all *parts* through, and return them without those that cannot be read: their ends may be whole."""
    broken: set[str] = set()
    for kind, files in parts.of.items():
        for part in files:
            try:
                reader.part(kind, part.path, period, COLUMNS[kind])
            except UnreadableEvents:
                broken.add(part.path)
    return _without(parts, broken)


def _without(parts: Parts, broken: Collection[str]) -> Parts:
    of = {kind: [part for part in files if part.path not in broken] for kind, files in parts.of.items()}
    return Parts(of, [*parts.broken, *sorted(broken)])
