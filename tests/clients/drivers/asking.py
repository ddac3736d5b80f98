"""What the test asks a driver for, and how the driver answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Asked:
    """One ranking that the client is to ask for."""

    call: str
    url: str
    """Of the data plane, without a path."""
    key: str
    query: str
    documents: list[Any]
    top_n: int | None = None
    user: str | None = None
    """Sent as X-User-Id by those clients that can send a header."""
    send_nulls: bool = False
    """Whether to give every optional field as None instead of leaving it out."""

    @property
    def headers(self) -> dict[str, str]:
        """Return the header that names the user, if there is one."""
        return {"X-User-Id": self.user} if self.user else {}

    def options(self, *nullable: str, top_n: str = "top_n") -> dict[str, Any]:
        """Return `top_n` where it is asked for; where nulls are, all the *nullable* too."""
        given: dict[str, Any] = dict.fromkeys((top_n, *nullable)) if self.send_nulls else {}
        return given if self.top_n is None else {**given, top_n: self.top_n}


def ranked(index: int, score: float, **echoed: object) -> dict[str, Any]:
    """Return one document in its place as the test reads it; *echoed*: `document` as the client gave it back."""
    return {"index": index, "score": score, **echoed}
