"""How finely the past is kept: fewer points the longer ago, each with quantiles of its own period."""

from __future__ import annotations

from typing import NamedTuple


class Tier(NamedTuple):
    """One series of points in the store."""

    name: str
    seconds: int
    """Between two points."""
    points: int
    """How many are kept."""
    words: str
    """How far back it goes, for people."""


TIERS = (
    Tier("seconds", 5, 360, "30 minutes"),
    Tier("minutes", 60, 360, "6 hours"),
    Tier("hours", 480, 360, "2 days"),
    Tier("days", 7200, 372, "31 days"),
)
FINEST = TIERS[0]
BY_NAME = {tier.name: tier for tier in TIERS}


def keys_of(prefix: str) -> tuple[str, str]:
    """Return the beginning of the series' keys, and the key of the cursors."""
    return f"{{{prefix}}}:trend", f"{{{prefix}}}:trend:cursors"


def incident_key(prefix: str, rollback_id: str) -> str:
    """Return where the points around a rollback are kept."""
    return f"{{{prefix}}}:incident:{rollback_id}"
