"""Who looks at the pages: a signed cookie in place of the token, and a mark in each form that no other site knows.

The cookie is signed with the salt, which all replicas share, and with what the settings keep of the control token: so
every replica can check it, and a token that is withdrawn, changed or expired ends its sessions.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import secrets
import time
from typing import TYPE_CHECKING

import msgspec
from redis.exceptions import RedisError

from proxy.settings import ControlToken

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from proxy.keys import Keys

COOKIE = "rerank_canary_session"
_SESSION_SECONDS = 12 * 3600.0


class Session(msgspec.Struct, frozen=True):
    """A signed-in actor."""

    actor: ControlToken
    csrf: str
    """What a form has to bring back."""
    session_id: str


class Sessions:
    """Makes cookies and checks them."""

    def __init__(self, keys: Keys, salt: bytes, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._salt = salt
        self._clock = clock

    def begin(self, actor: ControlToken) -> str:
        """Return the cookie of a new session."""
        expires = int(self._clock() + _SESSION_SECONDS)
        session_id = secrets.token_hex(8)
        payload = base64.urlsafe_b64encode(f"{expires}:{session_id}:{actor.name}".encode()).decode().rstrip("=")
        return f"{payload}.{self._sign(actor, 'session', payload)}"

    def of(self, cookie: str) -> Session | None:
        """Return whose session a cookie is; None: nobody's, or it is over."""
        payload, _, signature = cookie.partition(".")
        try:
            padded = payload + "=" * (-len(payload) % 4)
            expires, session_id, name = base64.urlsafe_b64decode(padded.encode()).decode().split(":", 2)
            is_over = int(expires) <= self._clock()
        except ValueError:  # base64, UTF-8 and numbers alike
            return None
        if is_over:
            return None
        for actor in self._keys.actors():
            if actor.name == name and hmac.compare_digest(self._sign(actor, "session", payload), signature):
                return Session(actor, self._sign(actor, "form", payload), session_id)
        return None

    def _sign(self, actor: ControlToken, purpose: str, payload: str) -> str:
        key = hmac.new(self._salt, f"dashboard {purpose} {actor.key} {actor.role}".encode(), hashlib.sha256).digest()
        return hmac.new(key, payload.encode(), hashlib.sha256).hexdigest()


class EndedSessions:
    """Sessions that somebody signed out of, known to all replicas for as long as their cookies would be good.

    With the store away a replica knows of its own; the others learn of it never, and the cookie ends by its time.
    """

    def __init__(self, store: Redis, prefix: str) -> None:
        self._store = store
        self._prefix = f"{{{prefix}}}:signed-out:"
        self._own: set[str] = set()

    async def end(self, session: Session) -> None:
        """Sign out."""
        self._own.add(session.session_id)
        with contextlib.suppress(RedisError, OSError):
            await self._store.set(self._prefix + session.session_id, "1", ex=round(_SESSION_SECONDS))

    async def has(self, session: Session) -> bool:
        """Tell whether somebody signed out of it."""
        if session.session_id in self._own:
            return True
        with contextlib.suppress(RedisError, OSError):
            return bool(await self._store.exists(self._prefix + session.session_id))
        return False


def is_same(expected: str, given: str) -> bool:
    """Compare without telling by the time it takes where they differ."""
    return hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogatepass"))
