"""Sessions of the dashboard: only a token that holds now opens one, and nobody can make one up."""

from __future__ import annotations

import base64
from datetime import UTC, datetime

import msgspec

from proxy.dashboard.session import Session, Sessions, is_same
from proxy.keys import Keys, token_of
from proxy.settings import Auth, ControlToken

ADAM = token_of("adam", "adam-key")
VERA = token_of("vera", "vera-key", "viewer")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def sessions(*actors: ControlToken, salt: bytes = b"salt", clock: Clock | None = None) -> Sessions:
    at = clock or Clock()
    return Sessions(Keys(Auth(), actors or (ADAM, VERA), at), salt, at)


def test_a_session_is_of_who_began_it_on_every_replica() -> None:
    found = sessions().of(sessions().begin(VERA))
    assert isinstance(found, Session)
    assert found.actor == VERA


def test_forms_of_two_sessions_are_not_the_same() -> None:
    clock = Clock()
    made = sessions(clock=clock)
    first = made.of(made.begin(ADAM))
    clock.now += 1
    second = made.of(made.begin(ADAM))
    assert first is not None
    assert second is not None
    assert first.csrf != second.csrf


def test_a_session_is_over_after_twelve_hours() -> None:
    clock = Clock()
    made = sessions(clock=clock)
    cookie = made.begin(ADAM)
    clock.now += 12 * 3600 - 1
    assert made.of(cookie) is not None
    clock.now += 1
    assert made.of(cookie) is None


def test_a_withdrawn_a_changed_and_an_expired_token_end_their_sessions() -> None:
    clock = Clock()
    cookie = sessions(clock=clock).begin(ADAM)
    assert sessions(VERA, clock=clock).of(cookie) is None
    assert sessions(token_of("adam", "another-key"), clock=clock).of(cookie) is None
    assert sessions(msgspec.structs.replace(ADAM, role="viewer"), clock=clock).of(cookie) is None
    expired = msgspec.structs.replace(ADAM, expires_at=datetime.fromtimestamp(clock.now - 1, UTC))
    assert sessions(expired, clock=clock).of(cookie) is None


def test_who_knows_the_settings_but_not_the_salt_cannot_make_one() -> None:
    assert sessions(salt=b"other").of(sessions().begin(ADAM)) is None


def test_a_cookie_that_was_changed_is_nobodys() -> None:
    cookie = sessions().begin(VERA)
    payload, _, signature = cookie.partition(".")
    as_adam = base64.urlsafe_b64encode(b"99999999999:adam").decode().rstrip("=")
    longer = base64.urlsafe_b64encode(b"99999999999:vera").decode().rstrip("=")
    for changed in (f"{as_adam}.{signature}", f"{longer}.{signature}", f"{payload}.{signature[:-1]}", f"{payload}."):
        assert sessions().of(changed) is None


def test_what_is_no_cookie_is_nobodys() -> None:
    for text in ("", ".", "a", "ä.ö", "====", "////.x", "MTIz.x", "x" * 10_000, "OTk5OTk5OTk5OTk6.0"):
        assert sessions().of(text) is None


def test_comparing_takes_any_text() -> None:
    assert is_same("a", "a")
    assert not is_same("a", "\ud800")
