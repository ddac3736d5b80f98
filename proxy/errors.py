"""Everything that can go wrong for a caller, as one tree.

ProxyError
├── InvalidRequest      400  the request breaks a rule; names the field
│   └── MalformedBody   400  the body is no JSON at all
├── Unauthorized        401  no key, or a wrong one
├── Forbidden           403  a key that may not do this
├── Conflict            409  the state does not allow what was asked for
├── TooLarge            413  a body or a document over its limit
├── TooManyDocuments    422  more documents, or tokens, than the limits allow
├── Overloaded          429  a queue is full; come back after `retry_after_seconds`
├── BackendError        502  an arm failed
│   ├── InvalidAnswer   502  an arm answered nonsense: wrong ids, no JSON, a refusal
│   └── InvalidScores   502  an arm answered scores that are not finite
├── NotReady            503  nothing here can answer yet, or any more
└── DeadlineExceeded    504  the one deadline of the request is over

InvalidFile, InvalidSettings and InvalidModel stop a command, not a request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from pathlib import Path

    from proxy.arms.base import Usage


class ProxyError(Exception):
    """Base of what a caller is told; the message is meant for the caller and quotes no document."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, field: str | None = None, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.retry_after_seconds = retry_after_seconds
        self.usage: Usage | None = None
        """What was spent before it went wrong."""


class InvalidRequest(ProxyError):
    """The request breaks a rule; a dialect may answer it 422."""

    status = 400
    code = "invalid_request"


class MalformedBody(InvalidRequest):
    """The body is no JSON."""

    code = "malformed_body"


class Unauthorized(ProxyError):
    """No key, or a wrong one."""

    status = 401
    code = "unauthorized"


class Forbidden(ProxyError):
    """A known key that may not do this."""

    status = 403
    code = "forbidden"


class Conflict(ProxyError):
    """What is asked for is not allowed in the present state; the message says what would be."""

    status = 409
    code = "conflict"


class TooLarge(ProxyError):
    """A body or a document over its limit in bytes."""

    status = 413
    code = "too_large"


class TooManyDocuments(ProxyError):
    """More documents, or more tokens, than the limits allow."""

    status = 422
    code = "too_many_documents"


class Overloaded(ProxyError):
    """A queue is full."""

    status = 429
    code = "overloaded"


class BackendError(ProxyError):
    """An arm failed."""

    status = 502
    code = "backend_error"


class InvalidAnswer(BackendError):
    """An arm answered something that is no ranking: wrong ids, no JSON, a refusal."""

    code = "invalid_answer"


class InvalidScores(BackendError):
    """An arm answered scores that are not finite."""

    code = "invalid_scores"


class NotReady(ProxyError):
    """Nothing here can answer yet, or any more."""

    status = 503
    code = "not_ready"


class DeadlineExceeded(ProxyError):
    """The one deadline of the request is over."""

    status = 504
    code = "deadline_exceeded"


class InvalidFile(Exception):
    """A file that a command was given cannot be used; the message names file and line."""

    def __init__(self, path: Path, reason: str, *, line: int | None = None) -> None:
        super().__init__(f"{path}{f':{line}' if line else ''}: {reason}")


class InvalidSettings(Exception):
    """The configuration cannot be used; the message names the setting."""


class InvalidModel(Exception):
    """A model cannot be served; the message says why."""
