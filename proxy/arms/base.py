"""The port to whatever ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence


class Usage(msgspec.Struct, frozen=True):
    """What calls took, whether or not they were answered. Adds up."""

    tokens: int = 0
    output_tokens: int = 0
    cost_dollars: float = 0.0

    def __add__(self, other: Usage) -> Usage:
        """Add up."""
        return Usage(
            self.tokens + other.tokens,
            self.output_tokens + other.output_tokens,
            self.cost_dollars + other.cost_dollars,
        )


class ArmAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What an arm says of the documents it was given, each exactly once and in the order given."""

    logits: tuple[float, ...]
    """Raw scores: any finite number, higher is better, ties allowed."""
    probabilities: tuple[float, ...]
    """The same, as the probability that the document is relevant: what goes on the wire."""
    model: str
    tokens: int = 0
    output_tokens: int = 0
    cost_dollars: float = 0.0
    tokenize_seconds: float = 0.0
    queue_seconds: float = 0.0
    inference_seconds: float = 0.0
    warnings: tuple[str, ...] = ()


class Arm(Protocol):
    """Ranks documents. One attempt, one outcome: whatever retries or falls back is not in here."""

    @property
    def model(self) -> str:
        """Name, revision and back end, for labels."""

    @property
    def is_ready(self) -> bool:
        """Whether it is started: whether a call may be tried."""

    @property
    def is_well(self) -> bool:
        """Whether it is started, and its model or server was well when last seen. Never waits."""

    async def start(self) -> None:
        """Load what serving needs.

        Raises:
            InvalidModel: the arm can never serve as configured.

        """

    async def score(
        self,
        query: str,
        documents: Sequence[str],
        *,
        deadline: float,
        max_document_tokens: int | None = None,
        is_fresh: bool = False,
    ) -> ArmAnswer:
        """Score each of *documents*, at least one, none blank.

        Args:
            query: what is asked, never blank.
            documents: texts of any length; the arm cuts them by its own tokenizer.
            deadline: on the clock of `time.monotonic`.
            max_document_tokens: a caller's own lower limit a document.
            is_fresh: no score may come from memory.

        Raises:
            Overloaded: too much waits already.
            DeadlineExceeded: the deadline passed first.
            BackendError: the arm failed, or answered what is no ranking; its `usage` is what that cost.
            NotReady: the arm is not, or no longer, up.

        """

    async def first_too_long(self, query: str, documents: Sequence[str], *, deadline: float) -> int | None:
        """Return the index of the first document that would be cut, -1 for the query, None if all fit.

        Raises:
            Overloaded: too much waits already.
            DeadlineExceeded: the deadline passed first.
            NotReady: the arm is not, or no longer, up.

        """

    async def close(self) -> None:
        """Finish what runs and give back what is held."""


@runtime_checkable
class Shared(Protocol):
    """An arm in which what can wait would keep others waiting."""

    @property
    def is_idle(self) -> bool:
        """Whether there is room enough for what can wait. Never waits."""
