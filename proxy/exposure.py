"""What is known of one served request: built once, handed to every observer, changed by none."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from flags.vocabulary import Assignment
from proxy.errors import BackendError, DeadlineExceeded, InvalidAnswer, InvalidScores, Overloaded


class Role(StrEnum):
    """Who ranked, or was asked to."""

    CONTROL = "control"
    CANDIDATE = "candidate"
    FALLBACK = "fallback"
    RECEIVED = "received"
    """Nobody ranked: the order received."""
    NOBODY = "nobody"
    """No answer but an error."""


class Outcome(StrEnum):
    """What became of one attempt, and of the assigned arm as a whole."""

    OK = "ok"
    LOW_SCORE = "low_score"
    """A ranking whose score statistic is under the threshold."""
    TIMEOUT = "timeout"
    ERROR = "error"
    INVALID = "invalid"
    """An answer that is no ranking, or scores that are not finite."""
    OVERLOADED = "overloaded"
    BREAKER = "breaker"
    """Not tried: it failed too often just now."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One call of one arm."""

    role: Role
    model: str
    outcome: Outcome
    started_at: float
    """Unix seconds."""
    seconds: float
    kind: str = ""
    """Kind of back end: ``cross-encoder``, ``llm``, ``remote``."""
    tokens: int = 0
    output_tokens: int = 0
    cost_dollars: float = 0.0
    tokenize_seconds: float = 0.0
    queue_seconds: float = 0.0
    inference_seconds: float = 0.0
    statistic: float | None = None
    """The score statistic that decided for or against a fallback; None where none was taken, or it is infinite."""


class Exposure(msgspec.Struct, frozen=True, kw_only=True):
    """One request, its assignment and what came of it. Holds no query, document or raw user id."""

    request_id: str
    traceparent: str | None
    """The caller's W3C trace context."""
    route: str
    dialect: str
    flag: str
    assignment: Assignment
    """Judge by its arm, never by `served_by`: a fallback must not make the candidate look healthy."""
    outcome: Outcome
    """Of the assigned arm."""
    served_by: Role
    model: str
    status: int
    """HTTP status."""
    user_hash: str
    user_group: int
    """0 to 63, the same on every replica; says nothing of who it is."""
    user_source: str
    is_forced: bool
    documents: int
    started_at: float
    """Unix seconds."""
    seconds: float
    attempts: tuple[Attempt, ...] = ()
    error_code: str | None = None

    @property
    def cost_dollars(self) -> float:
        """Dollars of all attempts together."""
        return sum(attempt.cost_dollars for attempt in self.attempts)

    @property
    def statistic(self) -> float | None:
        """What the candidate's scores came to, where it was asked and answered."""
        return next((a.statistic for a in self.attempts if a.statistic is not None), None)

    @property
    def has_fallen_back(self) -> bool:
        """Whether another arm than the assigned one had to answer."""
        return self.served_by not in {Role.NOBODY, Role(self.assignment.arm.value)}


def outcome_of(error: Exception) -> Outcome:
    """Return what an attempt that raised *error* counts as."""
    match error:
        case Overloaded():
            return Outcome.OVERLOADED
        case DeadlineExceeded():
            return Outcome.TIMEOUT
        case InvalidAnswer() | InvalidScores():
            return Outcome.INVALID
        case BackendError() | _:
            return Outcome.ERROR
