"""Who may call which plane."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from proxy.errors import Forbidden, Unauthorized
from proxy.secrets import hash_key, matches_any
from proxy.settings import ControlToken

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from proxy.settings import Auth

_RANKS = {"viewer": 0, "operator": 1, "admin": 2}


def presented_key(headers: Mapping[str, str]) -> str:
    """Return the key of a request: ``Authorization`` with or without a scheme, ``x-api-key`` or ``api-key``."""
    value = headers.get("authorization") or headers.get("x-api-key") or headers.get("api-key") or ""
    scheme, _, rest = value.partition(" ")
    return rest.strip() if rest and scheme.lower() == "bearer" else value.strip()


class Keys:
    """Checks the keys of both planes."""

    def __init__(
        self, auth: Auth, control_tokens: Sequence[ControlToken], clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._data = auth.data_keys
        self._control = tuple(control_tokens)

    def check_data(self, key: str) -> None:
        """Pass a caller of the data plane; without configured keys, everybody.

        Raises:
            Unauthorized: there are keys, and this is none of them.

        """
        if self._data and not matches_any(key, self._data):
            raise Unauthorized("no valid API key: send it as `Authorization: Bearer ...`")

    def _has_expired(self, token: ControlToken) -> bool:
        return token.expires_at is not None and self._clock() >= token.expires_at.timestamp()

    def actor(self, key: str) -> ControlToken | None:
        """Return the named token that *key* is; None: none, or one that has expired."""
        found = self._token(key)
        return None if found is None or self._has_expired(found) else found

    def actors(self) -> list[ControlToken]:
        """Return all named tokens that have not expired."""
        return [token for token in self._control if not self._has_expired(token)]

    def _token(self, key: str) -> ControlToken | None:
        found = None
        for token in self._control if key else ():
            if matches_any(key, [token.key]):
                found = token
        return found

    def check_control(self, key: str, role: str = "viewer") -> ControlToken:
        """Return the actor of a call to the control plane.

        Raises:
            Unauthorized: the key is unknown, or has expired.
            Forbidden: its role may not do this.

        """
        actor = self._token(key)
        if actor is not None and self._has_expired(actor):
            raise Unauthorized(f"the control token of {actor.name} expired at {actor.expires_at}")
        if actor is None:
            raise Unauthorized("no valid control token: send it as `Authorization: Bearer ...`")
        if not has_role(actor, role):
            raise Forbidden(f"{actor.name} is a {actor.role}; this takes the role {role}")
        return actor


def has_role(actor: ControlToken, role: str) -> bool:
    """Tell whether somebody may do what takes *role*."""
    return _RANKS[actor.role] >= _RANKS[role]


def token_of(name: str, key: str, role: str = "admin") -> ControlToken:
    """Return a control token for a key in clear."""
    return ControlToken(name=name, key=hash_key(key), role=role)  # type: ignore[arg-type]  # checked by its users
