"""The token of a served ranking: what is needed to judge feedback on it, signed, so that nothing has to be looked up.

Layout, big-endian, then base64url without padding: version, flags, time, documents, share, group, user, stage, request
id, order, ids of the documents in that order if they had any, and the first 16 bytes of HMAC-SHA256 (RFC 2104,
truncated as its section 5 allows) over all that. Nothing in it is a text, or names a user.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import struct
from typing import TYPE_CHECKING

import msgspec

from flags.vocabulary import Arm

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MOST_PLACES = 25
"""Of an order, from the first, that a token carries."""
_VERSION = 1
_HEAD = struct.Struct(">BBIHBB8s4s")
_MAC_BYTES = 16
_ID_BYTES = 4
_CANDIDATE, _FALLBACK, _FREE, _HEX_ID, _WIDE, _IDS = (1 << bit for bit in range(6))
_NO_SHARE = 255
_MOST_DOCUMENTS = 65535
_HEX = re.compile(r"[0-9a-f]{32}")
_LONGEST_TEXT = 1024


class UnknownToken(Exception):
    """It is no token of this proxy, or of another version of it; the message says which."""


class ForgedToken(Exception):
    """It was changed, or signed by a key that is not known here."""


class FeedbackToken(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a ranking when somebody says something of it."""

    arm: Arm
    """The assigned one."""
    has_fallen_back: bool
    """Whether another arm had to answer."""
    is_free: bool
    """Whether the flag chose the arm, as it is with requests that the guard judges."""
    issued_at: int
    """Unix seconds."""
    documents: int
    share_percent: int | None
    user_group: int
    """0 to 63"""
    user_hash: str
    """16 hex digits"""
    stage: bytes
    """Of the rollout, as `stage_mark` has it."""
    request_id: str
    order: tuple[int, ...]
    """Indices of the documents served, best first; at most `MOST_PLACES`."""
    ids: tuple[bytes, ...] = ()
    """Of those documents, as `mark_of` has them; empty: they had none."""


class Signed(msgspec.Struct, frozen=True):
    """A token that this proxy signed."""

    token: FeedbackToken
    mark: bytes
    """Its signature: no two rankings have the same."""


def mark_of(document_id: str) -> bytes:
    """Return what stands for a document's id: 4 bytes, enough to tell the few of one answer apart."""
    return hashlib.blake2b(document_id.encode("utf-8", "surrogatepass"), digest_size=_ID_BYTES).digest()


def stage_mark(stage: str) -> bytes:
    """Return what stands for a stage of a rollout."""
    return hashlib.blake2b(stage.encode(), digest_size=4).digest()


def sign(token: FeedbackToken, key: bytes) -> str:
    """Return *token* as text of about 110 characters, signed."""
    body = _packed(token)
    return base64.urlsafe_b64encode(body + _mac(body, key)).rstrip(b"=").decode()


def read(text: str, keys: Iterable[bytes]) -> Signed:
    """Return the token that *text* is, signed by one of *keys*.

    Raises:
        UnknownToken: it is none, or of another version.
        ForgedToken: none of the keys signed it.

    """
    try:
        raw = base64.b64decode(text[:_LONGEST_TEXT] + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error) as exc:
        raise UnknownToken("is no value of the header x-rerank-feedback") from exc
    if base64.urlsafe_b64encode(raw).rstrip(b"=").decode() != text or len(raw) <= _HEAD.size + _MAC_BYTES:
        raise UnknownToken("is no value of the header x-rerank-feedback")
    if raw[0] != _VERSION:
        raise UnknownToken("was made by another version of rerank-canary")
    body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    if not any([hmac.compare_digest(mac, _mac(body, key)) for key in keys]):  # noqa: C419 - all of them, always
        raise ForgedToken("was not signed here, or was changed")
    return Signed(_unpacked(body), mac)


def _mac(body: bytes, key: bytes) -> bytes:
    return hmac.digest(key, body, "sha256")[:_MAC_BYTES]


def _packed(token: FeedbackToken) -> bytes:
    is_hex, is_wide = _HEX.fullmatch(token.request_id) is not None, token.documents > 256
    flags = (
        _CANDIDATE * (token.arm is Arm.CANDIDATE)
        | _FALLBACK * token.has_fallen_back
        | _FREE * token.is_free
        | _HEX_ID * is_hex
        | _WIDE * is_wide
        | _IDS * bool(token.ids)
    )
    head = _HEAD.pack(
        _VERSION,
        flags,
        token.issued_at,
        min(token.documents, _MOST_DOCUMENTS),
        _NO_SHARE if token.share_percent is None else token.share_percent,
        token.user_group,
        bytes.fromhex(token.user_hash),
        token.stage,
    )
    plain_id = token.request_id.encode()
    request_id = bytes.fromhex(token.request_id) if is_hex else bytes([len(plain_id)]) + plain_id
    order = token.order[:MOST_PLACES]
    places = struct.pack(f">{len(order)}{'H' if is_wide else 'B'}", *order)
    return head + request_id + bytes([len(order)]) + places + b"".join(token.ids[:MOST_PLACES])


def _unpacked(body: bytes) -> FeedbackToken:
    """Return what was packed; it was signed, so that it is whole."""
    _, flags, issued_at, documents, share, group, user, stage = _HEAD.unpack_from(body)
    at = _HEAD.size
    length = 16 if flags & _HEX_ID else body[at]
    at += 0 if flags & _HEX_ID else 1
    plain_id = body[at : at + length]
    at += length
    count = body[at]
    form = f">{count}{'H' if flags & _WIDE else 'B'}"
    order = struct.unpack_from(form, body, at + 1)
    at += 1 + struct.calcsize(form)
    return FeedbackToken(
        arm=Arm.CANDIDATE if flags & _CANDIDATE else Arm.CONTROL,
        has_fallen_back=bool(flags & _FALLBACK),
        is_free=bool(flags & _FREE),
        issued_at=issued_at,
        documents=documents,
        share_percent=None if share == _NO_SHARE else share,
        user_group=group,
        user_hash=user.hex(),
        stage=stage,
        request_id=plain_id.hex() if flags & _HEX_ID else plain_id.decode(),
        order=order,
        ids=_marks(body[at:]) if flags & _IDS else (),
    )


def _marks(found: bytes) -> tuple[bytes, ...]:
    return tuple(found[at : at + _ID_BYTES] for at in range(0, len(found), _ID_BYTES))


def marks_of(ids: Sequence[str]) -> tuple[bytes, ...]:
    """Return the marks of the ids of an order's first places."""
    return tuple(map(mark_of, ids[:MOST_PLACES]))
