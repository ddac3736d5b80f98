"""Values that must not be seen: keys, tokens, the salt."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_PREFIX = "sha256:"


class Secret:
    """A string whose repr is stars."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value."""
        return self._value

    def __repr__(self) -> str:
        """Return stars."""
        return "Secret('***')"

    def __eq__(self, other: object) -> bool:
        """Compare without telling how much is equal."""
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        """Hash the value."""
        return hash(self._value)


def hash_key(key: str) -> str:
    """Return what stands in a configuration for *key*: ``sha256:`` and 64 hex digits.

    A plain hash serves because the keys are random and long (`new_key`); it is not for passwords.
    """
    return _PREFIX + hashlib.sha256(key.encode()).hexdigest()


def is_hashed_key(text: str) -> bool:
    """Tell whether *text* is what `hash_key` returns."""
    digits = text.removeprefix(_PREFIX)
    return text.startswith(_PREFIX) and len(digits) == 64 and all(c in "0123456789abcdef" for c in digits)


def matches_any(key: str, hashed: Iterable[str]) -> bool:
    """Tell whether *key* is one of the *hashed*; the time taken does not tell which or how nearly."""
    digest = hash_key(key).encode()
    found = False
    for candidate in hashed:
        found |= hmac.compare_digest(digest, candidate.encode())
    return found


def new_key(prefix: str = "rc") -> str:
    """Return a fresh key with 256 bits of randomness."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def shown_url(url: str) -> str:
    """Return *url* as a log may have it: without credentials, query and fragment."""
    scheme, sign, rest = url.partition("://")
    if not sign:
        scheme, rest = "", url
    # all before the last @ goes: an unescaped password may hold any sign that ends a host
    return scheme + sign + re.split(r"[?#]", rest.rpartition("@")[2], maxsplit=1)[0]


def read_or_create(path: Path) -> str:
    """Return the secret in a file that only its owner may read, making one where there is none, or an empty one.

    Raises:
        OSError, UnicodeError: it can be neither read nor made.

    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if found := _read(path):
        return found
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(new_key() + "\n")
        _put(Path(name), path)
    finally:
        Path(name).unlink(missing_ok=True)
    return _read(path)


def _put(made: Path, path: Path) -> None:
    """Move *made* to *path*, unless another process was first; what is there and empty is replaced."""
    if not path.exists():
        try:
            os.link(made, path)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            made.replace(path)
    elif not _read(path):
        made.replace(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""
