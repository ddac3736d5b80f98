"""The key that tokens are signed with: one for all replicas, so that any of them takes what another served."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redis.asyncio.client import Pipeline

    from proxy.quality_settings import Feedback

_log = structlog.get_logger(__name__)
_MOST_REMEMBERED = 4


class FeedbackKeys:
    """The configured key; else the one that the first replica put into the shared store.

    While the store was never reached a replica signs with its own, and goes on taking what it signed so.
    """

    def __init__(self, settings: Feedback, prefix: str, own: str) -> None:
        """Take *own*, which is this replica's proposal where none is configured."""
        self._is_configured = settings.key is not None
        self._key = f"{{{prefix}}}:feedback-key"
        self._prefix = prefix
        self._own = settings.key.reveal() if settings.key else own
        self.signing = self._bound(self._own)
        self.accepted = [self.signing, *(self._bound(each.reveal()) for each in settings.previous_keys)]

    def _bound(self, key: str) -> bytes:
        """Return what signs: a key holds for one rollout, so that no token is taken by another one's proxy."""
        return f"{self._prefix}\0{key}".encode()

    def ask(self, pipe: Pipeline) -> None:
        """Propose this replica's key, which is the store's own unless that lost it, and ask which one holds."""
        if not self._is_configured:
            pipe.set(self._key, self._own, nx=True)
            pipe.get(self._key)

    def take(self, answers: Sequence[str | None]) -> None:
        """Sign with the key that holds from now on."""
        if self._is_configured or not answers[1] or answers[1] == self._own:
            return
        self._own = answers[1]
        self.signing = self._bound(self._own)
        self.accepted = [self.signing, *(each for each in self.accepted if each != self.signing)][:_MOST_REMEMBERED]
        _log.info("feedback.key_shared")
