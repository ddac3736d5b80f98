"""What the Unleash SDK keeps on disk between two runs."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from UnleashClient.cache import BaseCache
from UnleashClient.constants import FEATURES_URL

from flags.rollout import InvalidFlags

if TYPE_CHECKING:
    from collections.abc import Callable

_log = structlog.get_logger(__name__)


class DiskCache(BaseCache):  # type: ignore[misc]  # the SDK ships no types
    """The SDK's cache in one JSON file, replaced in one step so that a kill leaves the old or the new one.

    With a state there, or with a bootstrap state where there is none, the SDK decides from its first
    moment, whether the server answers or not. *check* raises InvalidFlags for a state that is none: one
    that was kept is then forgotten, a bootstrap state raises.
    """

    def __init__(self, path: Path, bootstrap: Path | None, check: Callable[[str], object]) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._values: dict[str, Any] = _kept(path)
        try:
            if FEATURES_URL in self._values:
                check(self._values[FEATURES_URL])
        except InvalidFlags as exc:
            _log.warning("flag.cache_refused", path=str(path), error=str(exc))
            del self._values[FEATURES_URL]
        if FEATURES_URL not in self._values and bootstrap is not None:
            self._values[FEATURES_URL] = read_state(bootstrap, check)
        self.bootstrapped = FEATURES_URL in self._values

    def set(self, key: str, value: Any) -> None:
        """Keep one value."""
        self.mset({key: value})

    def mset(self, data: dict[str, Any]) -> None:
        """Keep several values; a disk that is full or read-only costs the next start, not this process."""
        with self._lock:
            if all(key in self._values and self._values[key] == value for key, value in data.items()):
                return
            self._values |= data
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    # The SDK also keeps times here, which are of this process only and no JSON.
                    json.dump({key: value for key, value in self._values.items() if isinstance(value, str)}, file)
                Path(name).replace(self._path)
            except OSError as exc:
                _log.warning("flag.cache_not_written", path=str(self._path), error=str(exc))

    def get(self, key: str, default: Any | None = None) -> Any:
        """Return a value."""
        return self._values.get(key, default)

    def exists(self, key: str) -> bool:
        """Tell whether there is a value."""
        return key in self._values

    def destroy(self) -> None:
        """Keep the file: it is what the next start decides from."""


def read_state(file: Path, check: Callable[[str], object]) -> str:
    """Return the flag state in *file*.

    Raises:
        InvalidFlags: it cannot be read, or *check* refuses it; the message names the file.

    """
    try:
        text = file.read_text(encoding="utf-8")
        check(text)
    except (OSError, UnicodeError, InvalidFlags) as exc:
        raise InvalidFlags(f"{file}: {exc}") from exc
    return text


def _kept(path: Path) -> dict[str, Any]:
    """Return what an earlier run left; nothing where that is not what this class writes."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as exc:
        _log.warning("flag.cache_not_read", path=str(path), error=type(exc).__name__)
        return {}
    return {key: value for key, value in found.items() if isinstance(value, str)} if isinstance(found, dict) else {}
