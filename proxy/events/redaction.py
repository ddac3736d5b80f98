"""What of a text is stored: nothing, a keyed hash, the caller's own id, or the text."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.quality_settings import Events
    from proxy.wire.canonical import RerankCall

_DIGEST_BYTES = 8
_KEY_BYTES = 64


class Redacted(msgspec.Struct, frozen=True):
    """A query and its documents, as they may be stored. None: not at all."""

    query: str | None
    query_hash: str | None
    documents: list[str] | None
    document_ids: list[str] | None
    """The caller's ids, or hashes of the texts; equal ones are equal documents."""


class Redaction:
    """Applies the settings. Equal texts have equal hashes where the salt is the same; without it they tell nothing."""

    def __init__(self, settings: Events, salt: bytes) -> None:
        self._settings = settings
        self._key = salt[:_KEY_BYTES]

    def of_call(self, call: RerankCall) -> Redacted:
        """Return what may be stored of a request."""
        query, documents = self._settings.query, self._settings.documents
        return Redacted(
            query=_clean(call.query) if query == "text" else None,
            query_hash=None if query == "off" else self.hash(call.query),
            documents=[_clean(text) for text in call.documents] if documents == "text" else None,
            document_ids=None if documents == "off" else self._ids(call),
        )

    def of_ids(self, document_ids: Sequence[str]) -> list[str] | None:
        """Return what may be stored of ids that a caller sent: an id may be a path, a title, an address."""
        match self._settings.documents:
            case "off":
                return None
            case "hash":
                return [self.hash(each) for each in document_ids]
            case _:
                return [_clean(each) for each in document_ids]

    def hash(self, text: str) -> str:
        """Return 16 hex digits."""
        raw = text.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(raw, key=self._key, digest_size=_DIGEST_BYTES).hexdigest()

    def _ids(self, call: RerankCall) -> list[str]:
        if self._settings.documents == "hash" or not call.echoes:
            return [self.hash(text) for text in call.documents]
        return [
            self._id_of(document) or self.hash(text) for document, text in zip(call.echoes, call.documents, strict=True)
        ]

    def _id_of(self, document: dict[str, Any]) -> str | None:
        found = document.get(self._settings.document_id)
        return _clean(str(found)) if isinstance(found, str | int) and not isinstance(found, bool) else None


def _clean(text: str) -> str:
    """Return *text* as UTF-8 can have it: half of an emoji would cost the whole row."""
    return text.encode("utf-8", "replace").decode("utf-8")
