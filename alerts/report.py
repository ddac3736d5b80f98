"""What the leader found, as it is shown on every replica."""

from __future__ import annotations

import msgspec

from alerts.signals import Example
from alerts.verdict import Finding, HoldReason, Judgement


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The newest judgement and the numbers behind it."""

    at: float
    """Unix seconds of the last tick that was judged."""
    leader: str
    rollout: str
    share_percent: int
    has_candidate: bool
    """Whether anybody has it: by the share, or by another strategy of the flag."""
    judgement: Judgement
    holds: list[HoldReason]
    held_seconds: dict[str, float]
    """Reason → how long it has lasted."""
    findings: list[Finding]
    findings_at: float
    """Unix seconds when estimates and bounds were worked out; the evidence is of `at`."""
    candidate_requests: float
    """Of the stage."""
    control_requests: float
    candidate_users: float
    """First seen in the stage; one whom several replicas serve is counted by each."""
    relative_limit_seconds: float | None
    """What the candidate's p95 is compared with, of control's latency; None: too little is known of it."""
    invalid: dict[str, str]
    """Replica → what is wrong with its counts."""


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept with a rollback of the guard: the numbers that decided, and whom it touched."""

    finding: Finding | None
    candidate_requests: float
    """Of the stage, by how many of its users."""
    candidate_users: float
    stage_seconds: float
    examples: list[Example]
    """Requests that went badly, the slowest first."""
