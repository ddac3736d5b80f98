"""Gives each served ranking its token, and takes what is said of it."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import msgspec

from flags.vocabulary import FREE_REASONS
from proxy.errors import InvalidRequest
from proxy.exposure import Role
from proxy.feedback.measures import Placed, placed
from proxy.feedback.token import (
    MOST_PLACES,
    FeedbackToken,
    ForgedToken,
    Signed,
    UnknownToken,
    mark_of,
    marks_of,
    read,
    sign,
    stage_mark,
)
from proxy.feedback.told import CHOSEN, Counted, Kind, Told

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.exposure import Exposure
    from proxy.feedback.doubles import Doubles
    from proxy.feedback.keys import FeedbackKeys
    from proxy.quality_settings import Feedback
    from proxy.wire.canonical import Ranked, RerankCall

_JUDGED = "judged"
_AHEAD_SECONDS = 60.0
"""That another replica's clock may be ahead."""


class Result(StrEnum):
    """What became of what was said."""

    COUNTED = "counted"
    DOUBLE = "double"
    LATE = "late"
    FORGED = "forged"
    UNKNOWN = "unknown"
    INVALID = "invalid"


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was said of one ranking, for the first time."""

    token: FeedbackToken
    kind: Kind
    indices: tuple[int, ...]
    placed: Placed
    is_first_choice: bool
    """Whether nothing was known before of what the user chose of this ranking."""
    at: float
    """Unix seconds"""


class Refusal(msgspec.Struct, frozen=True):
    """Something that does not count."""

    result: Result
    token: FeedbackToken | None = None
    """None: it was none of ours."""
    kind: Kind | None = None
    """None: the event as a whole."""
    documents: int = 1


class Listener(Protocol):
    """Takes note of feedback. Must not block."""

    def said(self, said: Said) -> None:
        """Take note of what was said for the first time."""

    def refused(self, refusal: Refusal) -> None:
        """Take note of what does not count."""


class _Claim(msgspec.Struct, frozen=True):
    """What one event says, to be counted where it is new."""

    signed: Signed
    indices: dict[Kind, list[int]]

    def words(self) -> list[str]:
        """Return what is claimed, one word each."""
        found = [f"{kind}:{index}" for kind, indices in self.indices.items() for index in indices]
        return [*found, _JUDGED] if any(kind in self.indices for kind in CHOSEN) else found


class Intake:
    """One for each process."""

    def __init__(
        self,
        settings: Feedback,
        keys: FeedbackKeys,
        doubles: Doubles,
        stage: Callable[[], str],
        document_id: str,
        listeners: Sequence[Listener],
        now: Callable[[], float] = time.time,
    ) -> None:
        """Take *document_id*, the field of a document object that holds its id."""
        self._window_seconds = settings.window_seconds
        self._keys = keys
        self._doubles = doubles
        self._stage = stage
        self._document_id = document_id
        self._listeners = listeners
        self._now = now

    def issue(self, call: RerankCall, exposure: Exposure, results: Sequence[Ranked]) -> str | None:
        """Return the token of a served ranking; None where what is said of it would mean nothing."""
        if exposure.is_forced or exposure.served_by is Role.RECEIVED or not results:
            return None
        first = results[:MOST_PLACES]
        assignment = exposure.assignment
        token = FeedbackToken(
            arm=assignment.arm,
            has_fallen_back=exposure.has_fallen_back,
            is_free=assignment.reason in FREE_REASONS,
            issued_at=int(self._now()),
            documents=len(call.documents),
            share_percent=assignment.share_percent,
            user_group=exposure.user_group,
            user_hash=exposure.user_hash,
            stage=stage_mark(self._stage()),
            request_id=exposure.request_id,
            order=tuple(each.index for each in first),
            ids=marks_of([self._id_of(call, each.index) for each in first]) if call.echoes else (),
        )
        return sign(token, self._keys.signing)

    def _id_of(self, call: RerankCall, index: int) -> str:
        found = call.echoes[index].get(self._document_id)
        return str(found) if isinstance(found, str | int) else f"#{index}"

    async def take(self, told: Told) -> Counted:
        """Count what is said.

        Raises:
            InvalidRequest: it counts for nothing; the message says why and names the field.

        """
        claim = self._understood(told)
        words = claim.words()
        news = dict(zip(words, await self._doubles.claim(claim.signed.mark, words), strict=True))
        counted = double = 0
        for kind, indices in claim.indices.items():
            new = [index for index in indices if news[f"{kind}:{index}"]]
            counted += len(new)
            double += len(indices) - len(new)
            if new:
                self._say(claim.signed.token, kind, new, is_first=kind in CHOSEN and news[_JUDGED])
                news[_JUDGED] = False
            if len(indices) > len(new):
                self._refuse(Refusal(Result.DOUBLE, claim.signed.token, kind, len(indices) - len(new)))
        return Counted(counted, double)

    def _say(self, token: FeedbackToken, kind: Kind, indices: list[int], *, is_first: bool) -> None:
        said = Said(
            token=token,
            kind=kind,
            indices=tuple(indices),
            placed=placed(token.order, indices),
            is_first_choice=is_first,
            at=self._now(),
        )
        for each in self._listeners:
            each.said(said)

    def _understood(self, told: Told) -> _Claim:
        """Return what an event says.

        Raises:
            InvalidRequest: as `take` says; it is counted, too.

        """
        try:
            signed = read(told.request_id, self._keys.accepted)
        except (UnknownToken, ForgedToken) as exc:
            self._refuse(Refusal(Result.FORGED if isinstance(exc, ForgedToken) else Result.UNKNOWN))
            raise InvalidRequest(f"request_id: {exc}", field="request_id") from exc
        token = signed.token
        age = self._now() - token.issued_at
        if age > self._window_seconds or age < -_AHEAD_SECONDS:
            self._refuse(Refusal(Result.LATE, token))
            hours = self._window_seconds / 3600
            raise InvalidRequest(
                f"request_id: the ranking was served {age / 3600:.1f} h ago, and feedback is taken for {hours:g} h",
                field="request_id",
            )
        try:
            return _Claim(signed, _named(token, told))
        except InvalidRequest:
            self._refuse(Refusal(Result.INVALID, token))
            raise

    def _refuse(self, refusal: Refusal) -> None:
        for each in self._listeners:
            each.refused(refusal)


def _named(token: FeedbackToken, told: Told) -> dict[Kind, list[int]]:
    """Return the indices of the documents by what was done with them.

    Raises:
        InvalidRequest: there are none, or one of them was not served; names the field.

    """
    named = told.named()
    if not named:
        raise InvalidRequest("clicked, cited, voted or voted_down: one of them has to name a document")
    return {kind: _indices(token, kind, documents) for kind, documents in named.items()}


def _indices(token: FeedbackToken, kind: Kind, documents: Sequence[int | str]) -> list[int]:
    """Return the documents' indices in the request, each once.

    Raises:
        InvalidRequest: one of them was not served; names the field.

    """
    found = [_index(token, document, f"{kind}[{place}]") for place, document in enumerate(documents)]
    return list(dict.fromkeys(found))


def _index(token: FeedbackToken, document: int | str, field: str) -> int:
    if isinstance(document, str):
        mark = mark_of(document)
        if not token.ids:
            raise InvalidRequest(f"{field}: the documents had no ids: name them by their place, from 0", field=field)
        if mark not in token.ids:
            raise InvalidRequest(f"{field}: no document of that id was among those served", field=field)
        return token.order[token.ids.index(mark)]
    if document >= token.documents:
        raise InvalidRequest(f"{field}: {document} of {token.documents} documents, counted from 0", field=field)
    if len(token.order) < min(token.documents, MOST_PLACES) and document not in token.order:
        raise InvalidRequest(f"{field}: document {document} was not among those served", field=field)
    return document
