"""The gate on a real Unleash server, through the Unleash SDK."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog
from UnleashClient import UnleashClient
from UnleashClient.cache import BaseCache
from UnleashClient.constants import FEATURES_URL
from UnleashClient.utils import InstanceAllowType

from flags.gate import GateState
from flags.rollout import InvalidFlags, Rollout, assign, read_rollout

if TYPE_CHECKING:
    from requests import Response

    from flags.vocabulary import Assignment, FlagContext

_log = structlog.get_logger(__name__)


class DiskCache(BaseCache):  # type: ignore[misc]  # the SDK ships no types
    """The SDK's cache in one JSON file, replaced in one step so that a kill leaves the old or the new one.

    With a file there, or with a bootstrap state where there is none, the SDK decides from its first
    moment, whether the server answers or not.
    """

    def __init__(self, path: Path, bootstrap: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._values: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            self._values = json.loads(path.read_text(encoding="utf-8"))
        if FEATURES_URL not in self._values and bootstrap is not None:
            self._values[FEATURES_URL] = bootstrap.read_text(encoding="utf-8")
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


class UnleashGate:
    """Follows one flag of an Unleash server.

    The server unreachable: the last known state decides, this run's or an earlier one's. Never seen: control.
    """

    def __init__(  # noqa: PLR0913 - each is a setting of its own
        self,
        *,
        url: str,
        token: str,
        flag: str,
        cache_file: Path,
        bootstrap: Path | None = None,
        app_name: str = "rerank-canary",
        environment: str = "default",
        instance_id: str = "",
        poll_seconds: float = 1.0,
        timeout_seconds: float = 2.0,
    ) -> None:
        self._flag = flag
        self._stale_seconds = max(5.0, 3 * poll_seconds)
        self._rollout: Rollout | None = None
        self._was_seen = False
        self._fresh_at: float | None = None
        self._changed_at: float | None = None
        self._error: str | None = None
        self._start: asyncio.Task[None] | None = None
        # The SDK logs a traceback a poll while the server is away; the gate says it once, in its own words.
        logging.getLogger("UnleashClient").setLevel(logging.CRITICAL)
        self._cache = DiskCache(cache_file, bootstrap)
        self._client = UnleashClient(
            url=url,
            app_name=app_name,
            environment=environment,
            instance_id=instance_id,
            custom_headers={"Authorization": token},
            custom_options={"hooks": {"response": self._on_response}},
            cache=self._cache,
            refresh_interval=poll_seconds,
            request_timeout=timeout_seconds,
            request_retries=0,
            metrics_interval=15,
            multiple_instance_mode=InstanceAllowType.SILENTLY_ALLOW,
        )
        if self._cache.bootstrapped:
            with contextlib.suppress(InvalidFlags):
                self._take(self._cache.get(FEATURES_URL))

    @property
    def state(self) -> GateState:
        """What the server said last, and when it last answered."""
        error = self._error
        if error is None and (self._fresh_at is None or time.time() - self._fresh_at > self._stale_seconds):
            error = "no answer from Unleash"
        return GateState("unleash", self._flag, self._rollout, self._fresh_at, self._changed_at, error)

    def assign(self, context: FlagContext) -> Assignment:
        """Return the arm of *context*. Never raises, never blocks."""
        is_on = self._was_seen and self._client.is_enabled(self._flag, context.as_unleash())
        return assign(is_on=is_on, rollout=self._rollout, was_seen=self._was_seen, context=context)

    async def start(self) -> None:
        """Begin to poll, in a thread of its own: the SDK's first round trips may block for seconds."""
        self._start = asyncio.create_task(asyncio.to_thread(self._client.initialize_client), name="unleash-start")

    async def close(self) -> None:
        """Stop polling and send the SDK's last usage counts."""
        if self._start is not None:
            await asyncio.gather(self._start, return_exceptions=True)
        await asyncio.to_thread(self._client.destroy)

    def _on_response(self, response: Response, *_: object, **__: object) -> None:
        """Note each answer to a poll: the SDK has no event for an unchanged or a failed one.

        Raises:
            InvalidFlags: the body is no flag state; the SDK then keeps the one it has.

        """
        if FEATURES_URL not in response.url:
            return
        if response.status_code not in {200, 304}:
            self._note(f"Unleash answered {response.status_code}")
            return
        if response.status_code == 200:
            try:
                self._take(response.text)
            except InvalidFlags as exc:
                self._note(f"Unleash answered no flag state: {exc}")
                raise
        self._fresh_at = time.time()
        self._note(None)

    def _take(self, text: str) -> None:
        rollout = read_rollout(text, self._flag)
        if rollout != self._rollout or not self._was_seen:
            self._changed_at = time.time()
            share = None if rollout is None else rollout.share_percent
            _log.info("flag.loaded", source="unleash", flag=self._flag, share_percent=share)
        self._rollout = rollout
        self._was_seen = True

    def _note(self, error: str | None) -> None:
        if error != self._error and error is not None:
            _log.warning("flag.unreadable", error=error, kept=self._rollout is not None)
        self._error = error
