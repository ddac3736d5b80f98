"""What a client says of rankings, as it is sent, and what it means by it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from proxy.errors import InvalidRequest
from proxy.wire.canonical import decode

MOST_EVENTS = 500
_MOST_NAMED = 100
_MOST_OF_A_BATCH = 2000
"""Documents that all events of a batch name together: more would hold the event loop for long."""

Document = Annotated[int, Meta(ge=0)] | Annotated[str, Meta(max_length=512)]
_Named = Annotated[tuple[Document, ...], Meta(max_length=_MOST_NAMED)]


class Kind(StrEnum):
    """What was done with a document."""

    CLICKED = "clicked"
    CITED = "cited"
    VOTED = "voted"
    VOTED_DOWN = "voted_down"


CHOSEN = (Kind.CLICKED, Kind.CITED)
"""What tells where the good documents stood: the user chose among those that he saw."""


class Told(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is said of one ranking. At least one of the lists has to name a document."""

    request_id: str
    """The value of the answer's header ``x-rerank-feedback``."""
    clicked: _Named = ()
    """Documents by their place in the request, from 0, or by their ids where they were sent with ids."""
    cited: _Named = ()
    """Documents that an answer was made of."""
    voted: _Named = ()
    """Documents that a user called good."""
    voted_down: _Named = ()
    """Documents that a user called bad."""

    def named(self) -> dict[Kind, tuple[int | str, ...]]:
        """Return the documents by what was done with them, each once."""
        found = {kind: tuple(dict.fromkeys(getattr(self, kind.value))) for kind in Kind}
        return {kind: documents for kind, documents in found.items() if documents}


class Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Several of them, each of which counts or fails by itself."""

    events: Annotated[tuple[Told, ...], Meta(min_length=1, max_length=MOST_EVENTS)]


class _Batch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    events: Annotated[tuple[msgspec.Raw, ...], Meta(min_length=1, max_length=MOST_EVENTS)]


class Counted(msgspec.Struct, frozen=True):
    """What became of one of them."""

    counted: int
    """Documents."""
    double: int
    """Documents of which the same was said before."""


class Failed(msgspec.Struct, frozen=True):
    """Why one of a batch counts for nothing."""

    code: str
    message: str
    field: str | None


class Taken(msgspec.Struct, frozen=True):
    """What became of one of a batch."""

    counted: int = 0
    double: int = 0
    error: Failed | None = None


class Answer(msgspec.Struct, frozen=True):
    """What is answered to a batch: one entry an event, in their order."""

    results: tuple[Taken, ...]


def read_told(body: bytes) -> Told | list[Told | InvalidRequest]:
    """Return what a body says: one, or of a batch each, and of those that cannot be read why.

    Raises:
        MalformedBody: it is no JSON.
        InvalidRequest: it is neither; names the field.

    """
    found = decode(body, dict[str, Any])
    if "events" not in found:
        return decode(body, Told)
    told = [_one(bytes(raw), place) for place, raw in enumerate(decode(body, _Batch).events)]
    named = sum(len(documents) for each in told if isinstance(each, Told) for documents in each.named().values())
    if named > _MOST_OF_A_BATCH:
        raise InvalidRequest(f"events: name {named} documents together, at most {_MOST_OF_A_BATCH}", field="events")
    return told


def _one(raw: bytes, place: int) -> Told | InvalidRequest:
    try:
        return decode(raw, Told)
    except InvalidRequest as exc:
        field = f"events[{place}]{f'.{exc.field}' if exc.field else ''}"
        return InvalidRequest(f"events[{place}].{exc.message}", field=field)
