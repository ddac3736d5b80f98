"""The gate on a real Unleash server, through the Unleash SDK."""

from __future__ import annotations

import asyncio
import logging
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import structlog
from requests.exceptions import RequestException
from UnleashClient import UnleashClient
from UnleashClient.constants import FEATURES_URL
from UnleashClient.utils import InstanceAllowType

from flags.engine import engine_of
from flags.gate import GateState
from flags.rollout import InvalidFlags, Rollout, assign, read_rollout
from flags.unleash_cache import DiskCache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from requests import Response
    from yggdrasil_engine.engine import UnleashEngine

    from flags.vocabulary import Assignment, FlagContext

_log = structlog.get_logger(__name__)


class _State(NamedTuple):
    """One state of the flags, and what decides by it: replaced together."""

    engine: UnleashEngine
    rollout: Rollout | None


class UnleashGate:
    """Follows one flag of an Unleash server.

    The server unreachable: the last known state decides, this run's or an earlier one's. Never seen: control.

    The SDK's own engine takes a new state some time after the answer came. What is said of the flag and what decides
    have to be one: a latch that opened by a share that does not decide yet gives users away. So an engine of the gate's
    own decides, and the SDK is asked too, so that it counts the use of the flag.
    """

    def __init__(  # noqa: PLR0913 - each is a setting of its own
        self,
        *,
        url: str,
        token: str,
        flag: str,
        cache_file: Path,
        bootstrap: Path | None = None,
        environment: str = "default",
        instance_id: str = "",
        poll_seconds: float = 1.0,
        timeout_seconds: float = 2.0,
    ) -> None:
        self._flag = flag
        self._poll_seconds = poll_seconds
        self._stale_seconds = max(5.0, 3 * poll_seconds)
        self._known: _State | None = None
        self._began_at = time.time()
        self._fresh_at: float | None = None
        self._changed_at: float | None = None
        self._is_stale = False
        self._error: str | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._cache = DiskCache(cache_file, bootstrap, partial(_read, flag=flag))
        self._client = _sdk(
            url=url,
            token=token,
            environment=environment,
            instance_id=instance_id,
            poll_seconds=poll_seconds,
            timeout_seconds=timeout_seconds,
            cache=self._cache,
            on_response=self._on_response,
        )
        if self._cache.bootstrapped:
            self._take(self._cache.get(FEATURES_URL))

    @property
    def state(self) -> GateState:
        """What the server said last, and when it last answered."""
        error = self._error
        if error is None and (self._fresh_at is None or time.time() - self._fresh_at > self._stale_seconds):
            error = "no answer from Unleash"
        rollout = self._known.rollout if self._known else None
        return GateState("unleash", self._flag, rollout, self._fresh_at, self._changed_at, error)

    def assign(self, context: FlagContext) -> Assignment:
        """Return the arm of *context*. Never raises, never blocks."""
        known = self._known
        if known is None:
            return assign(is_on=False, rollout=None, was_seen=False, context=context)
        asked = context.as_unleash()
        self._client.is_enabled(self._flag, asked)
        is_on = known.engine.check_enabled(self._flag, asked).is_enabled
        return assign(is_on=is_on, rollout=known.rollout, was_seen=True, context=context)

    async def start(self) -> None:
        """Begin to poll, in a thread of its own: the SDK's first round trips may block for seconds."""
        self._tasks = [
            asyncio.create_task(self._begin(), name="unleash-start"),
            asyncio.create_task(self._watch(), name="unleash-age"),
        ]

    async def close(self) -> None:
        """Stop polling and send the SDK's last usage counts."""
        if self._tasks:
            begin, watch = self._tasks
            watch.cancel()
            await asyncio.gather(begin, watch, return_exceptions=True)
        await asyncio.to_thread(self._client.destroy)

    async def _begin(self) -> None:
        try:
            await asyncio.to_thread(self._client.initialize_client)
        except (RequestException, ValueError) as exc:  # then the SDK does not poll at all
            self._note(f"the Unleash SDK did not start: {type(exc).__name__}")

    async def _watch(self) -> None:
        """Say once that the state grows old, and once that it is fresh again: a server that is away answers nothing."""
        while True:
            await asyncio.sleep(self._poll_seconds)
            age = time.time() - (self._fresh_at or self._began_at)
            if (age > self._stale_seconds) is self._is_stale:
                continue
            self._is_stale = not self._is_stale
            if self._is_stale:
                kept = self._has_flag
                _log.warning(
                    "flag.stale", flag=self._flag, age_seconds=round(age, 1), error=self.state.error, kept=kept
                )
            else:
                _log.info("flag.fresh", flag=self._flag)

    def _on_response(self, response: Response, *_: object, **__: object) -> None:
        """Note each answer to a poll: the SDK has no event for an unchanged or a failed one.

        Raises:
            InvalidFlags: the body is no flag state, or none that the engine takes; the SDK then keeps the one it has.

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
        state = _read(text, self._flag)
        if self._known is None or state.rollout != self._known.rollout:
            self._changed_at = time.time()
            share = None if state.rollout is None else state.rollout.share_percent
            _log.info("flag.loaded", source="unleash", flag=self._flag, share_percent=share)
        self._known = state

    def _note(self, error: str | None) -> None:
        if error != self._error and error is not None:
            _log.warning("flag.unreadable", error=error, kept=self._has_flag)
        self._error = error

    @property
    def _has_flag(self) -> bool:
        return self._known is not None and self._known.rollout is not None


def _read(text: str, flag: str) -> _State:
    """Return the state; an engine that would refuse it keeps silent, so one that is asked says so first."""
    return _State(engine_of(text, flag), read_rollout(text, flag))


def _sdk(
    *,
    url: str,
    token: str,
    environment: str,
    instance_id: str,
    poll_seconds: float,
    timeout_seconds: float,
    cache: DiskCache,
    on_response: Callable[..., None],
) -> UnleashClient:
    """Return the SDK's client, which decides from the cache at once and asks nobody until it is started."""
    # It logs a traceback a poll while the server is away; the gate says it once, in its own words.
    logging.getLogger("UnleashClient").setLevel(logging.CRITICAL)
    return UnleashClient(
        url=url,
        app_name="rerank-canary",
        environment=environment,
        instance_id=instance_id,
        custom_headers={"Authorization": token},
        custom_options={"hooks": {"response": on_response}},
        cache=cache,
        refresh_interval=poll_seconds,
        request_timeout=timeout_seconds,
        request_retries=0,
        metrics_interval=15,
        multiple_instance_mode=InstanceAllowType.SILENTLY_ALLOW,
    )
