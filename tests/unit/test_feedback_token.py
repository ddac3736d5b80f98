"""The token of a ranking: what was put in comes out, and nothing that was changed does."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flags.vocabulary import Arm
from proxy.feedback.token import (
    MOST_PLACES,
    FeedbackToken,
    ForgedToken,
    UnknownToken,
    mark_of,
    marks_of,
    read,
    sign,
    stage_mark,
)

KEY, OTHER = b"the key of these tests", b"another key"


@st.composite
def tokens(draw: st.DrawFn) -> FeedbackToken:
    documents = draw(st.one_of(st.integers(1, 40), st.integers(250, 65535)))
    count = draw(st.integers(1, min(MOST_PLACES, documents)))
    order = draw(st.lists(st.integers(0, documents - 1), min_size=count, max_size=count, unique=True))
    has_ids = draw(st.booleans())
    ids = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=128)
    hexes = st.binary(min_size=16, max_size=16).map(bytes.hex)
    return FeedbackToken(
        arm=draw(st.sampled_from(Arm)),
        has_fallen_back=draw(st.booleans()),
        is_free=draw(st.booleans()),
        issued_at=draw(st.integers(0, 2**32 - 1)),
        documents=documents,
        share_percent=draw(st.none() | st.integers(0, 100)),
        user_group=draw(st.integers(0, 63)),
        user_hash=draw(st.binary(min_size=8, max_size=8)).hex(),
        stage=stage_mark(draw(st.text())),
        request_id=draw(hexes | ids.filter(lambda text: len(text.encode()) < 129)),
        order=tuple(order),
        ids=marks_of([draw(ids) for _ in order]) if has_ids else (),
    )


@given(tokens())
def test_what_was_signed_is_read(token: FeedbackToken) -> None:
    found = read(sign(token, KEY), [OTHER, KEY])
    assert found.token == token
    assert len(found.mark) == 16


def usual(**fields: object) -> FeedbackToken:
    token: dict[str, object] = {
        "arm": Arm.CANDIDATE,
        "has_fallen_back": False,
        "is_free": True,
        "issued_at": 1_795_435_200,
        "documents": 25,
        "share_percent": 5,
        "user_group": 63,
        "user_hash": "0123456789abcdef",
        "stage": stage_mark("a stage"),
        "request_id": "0123456789abcdef" * 2,
        "order": tuple(reversed(range(25))),
    }
    return FeedbackToken(**(token | fields))  # type: ignore[arg-type]


def test_a_token_of_25_documents_is_short() -> None:
    assert len(sign(usual(), KEY)) <= 112
    assert len(sign(usual(order=tuple(range(10))), KEY)) <= 92
    assert len(sign(usual(ids=marks_of([str(i) for i in range(25)])), KEY)) <= 245


def test_whatever_bit_is_changed_it_is_refused() -> None:
    text = sign(usual(), KEY)
    raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    for place in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises((ForgedToken, UnknownToken)):
            read(base64.urlsafe_b64encode(bytes(changed)).rstrip(b"=").decode(), [KEY])


def test_another_text_of_the_same_bytes_is_no_token() -> None:
    """Or one ranking would have many tokens, and be counted as often."""
    text = sign(usual(request_id="x"), KEY)
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    others = [text[:-1] + letter for letter in last if letter != text[-1]]
    for other in [*others, text + "=", text + "\n", f" {text}"]:
        with pytest.raises((UnknownToken, ForgedToken)):
            read(other, [KEY])


def test_a_key_that_is_not_known_did_not_sign() -> None:
    with pytest.raises(ForgedToken):
        read(sign(usual(), OTHER), [KEY])
    with pytest.raises(ForgedToken):
        read(sign(usual(), KEY), [])


@pytest.mark.parametrize(
    "text", ["", "x", "no token", "é", "a" * 5000, "AQ", "//==", "0123456789abcdef" * 2, "\ud800"], ids=repr
)
def test_what_is_no_token_is_not_known(text: str) -> None:
    with pytest.raises(UnknownToken, match="x-rerank-feedback"):
        read(text, [KEY])


def test_a_token_of_another_version_says_so() -> None:
    raw = bytearray(base64.urlsafe_b64decode(sign(usual(), KEY) + "=="))
    raw[0] = 2
    with pytest.raises(UnknownToken, match="another version"):
        read(base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode(), [KEY])


def test_ids_are_told_apart() -> None:
    assert len({mark_of(f"document-{number}") for number in range(1000)}) == 1000
    assert mark_of("\ud800") != mark_of("")
