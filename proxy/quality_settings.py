"""The settings of what tells whether the ranking is as good: probes, shadows, feedback; and of the event log."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta

from proxy.bounds import Count, Dollars, Percent, Seconds, Section
from proxy.secrets import Secret


class Probes(Section, frozen=True):
    """Judged queries that are replayed through both arms, steadily, by the replica that leads."""

    file: Path | None = None
    """JSONL of ``{"query", "documents", "judgements": {index: grade}}``. None: no probes, and no guardrails on them."""
    interval_seconds: Seconds = 2.0
    """Between two probes."""
    control_seconds: Annotated[float, Meta(ge=0, le=30 * 86400)] = 3600.0
    """How long control's answer to a probe is taken for its answer of now."""
    max_dollars_per_hour: Dollars = 0.5
    """What control's answers may cost."""


class Shadow(Section, frozen=True):
    """A sample of the users' requests that the other arm ranks too, once the answer is sent, to compare both orders."""

    is_on: bool = False
    control_percent: Percent = 5.0
    """Of the users who have control: the candidate ranks their requests too, even while nobody has the candidate."""
    candidate_percent: Percent = 10.0
    """Of the users who have the candidate: control ranks their requests too, which may cost."""
    max_dollars_per_hour: Dollars = 1.0
    """Of all replicas; above it nothing is shadowed. No part of the fallback's budget."""
    max_concurrency: Count = 8
    """Shadows of this replica under way or waiting for an idle moment; above it nothing is shadowed."""
    deadline_seconds: Seconds = 15.0
    """When a shadow is given up, waiting included."""
    after_rollback: bool = False
    """Whether the candidate goes on to be asked while a rollback holds; it may burn what the users' requests need."""
    expected_overlap: Annotated[float, Meta(gt=0, le=1)] | None = None
    """What share of control's five best a good candidate has among its own, as `status` shows while nothing is wrong:
    the guardrail `overlap` holds the candidate to it. None: it is measured, and not judged."""


class Feedback(Section, frozen=True):
    """What users clicked, cited or voted for, as ``POST /v1/feedback`` takes it for an answer's `x-rerank-feedback`."""

    is_on: bool = True
    key: Secret | None = None
    """Signs the tokens. None: one that the replicas share through the store."""
    previous_keys: tuple[Secret, ...] = ()
    """Whose tokens are still taken: the last one, for `window_seconds` after it was changed."""
    window_seconds: Annotated[float, Meta(ge=60, le=30 * 86400)] = 86400.0
    """How long after its answer feedback is taken, and remembered as said."""
    judge: bool = False
    """Whether the guardrail `misses_relative` holds the candidate to it. Only where both arms' users are heard alike:
    feedback of one arm's users only looks like a fault of the other's."""
    miss_after: Annotated[int, Meta(ge=1, le=25)] = 5
    """What a user chose first and what stood below this place is a miss."""
    eta: Annotated[float, Meta(ge=0, le=3)] = 1.0
    """Position bias: a document at rank r is seen with a probability of (1/r)^eta. 0: all are."""
    weight_clip: Annotated[float, Meta(ge=1)] = 10.0
    """Users that one choice stands for at most, corrected for that."""


class Events(Section, frozen=True):
    """The event log: what was asked, answered and said of it, as Parquet files. Needs the extra `events`.

    Unless told otherwise it holds no text: queries and documents are hashes keyed with `identity.salt`, by which
    equal ones are found and nothing is read. Where several replicas write, they need one salt.
    """

    is_on: bool = False
    url: str | None = None
    """A folder, or a URL that fsspec opens (``s3://``, ``gs://``, ``abfs://``; credentials from the environment).
    None: ``events`` in the data directory."""
    query: Literal["off", "hash", "text"] = "hash"
    """What is kept of a query."""
    documents: Literal["off", "hash", "id", "text"] = "hash"
    """What is kept of documents. id: the caller's own, where documents are objects that have one, else hashes.
    text: both."""
    document_id: str = "id"
    """The field of a document object that holds its id."""
    flush_seconds: Seconds = 30.0
    """A part is written this often, or after `flush_rows`: what a killed process loses."""
    flush_rows: Count = 10_000
    queue_rows: Count = 50_000
    """Rows held in memory, unwritten; more are dropped and counted."""
    queue_mb: Count = 64
    """Likewise, in MB."""
    keep_days: Count | None = 30
    """Older hours are deleted by the replica that leads. None: nothing is."""
