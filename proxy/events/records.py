"""What the event log is told.

A `ServedRanking` is the one record of the proxy that holds a query and documents. It is handed to
`proxy.observers.RankingObserver`s where an answer is made, and to nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import msgspec

from proxy.exposure import Exposure
from proxy.wire.canonical import Ranked, RerankCall


class Kind(StrEnum):
    """Tables of the event log, each a folder of its own."""

    EXPOSURES = "exposures"
    FEEDBACK = "feedback"


class ServedRanking(msgspec.Struct, frozen=True):
    """One request with its texts, and the order that was made of them."""

    exposure: Exposure
    call: RerankCall
    results: Sequence[Ranked] = ()
    """Every document received, best first; empty: nobody ranked."""
    sent: int = 0
    """How many of them, from the first on, were sent to the caller."""


class FeedbackEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What a user said of one ranking, or of some of its documents."""

    request_id: str
    """Of the ranking: ``x-request-id``."""
    received_at: float
    """Unix seconds."""
    served_at: float | None = None
    """When the ranking was served, Unix seconds."""
    arm: str
    """The assigned one."""
    share_percent: int | None = None
    """Of the candidate, when the ranking was served."""
    action: str
    """Such as ``clicked``, ``voted`` or ``cited``."""
    vote: int | None = None
    """1 up, -1 down; None: no vote."""
    indices: tuple[int, ...] = ()
    """Of documents, as in the request."""
    ranks: tuple[int | None, ...] = ()
    """Their places in the answer, from 1; None: below what is known of it. As long as `indices`, or empty."""
    document_ids: tuple[str, ...] = ()
    """As the caller named them; stored as ``[events] documents`` says of documents."""
    user_hash: str | None = None
