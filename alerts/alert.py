"""What on-call is told: one alert a matter, under a key that stays the same while it lasts."""

from __future__ import annotations

import re
from enum import StrEnum

import msgspec
from msgspec.structs import replace


class Severity(StrEnum):
    """How soon somebody has to look."""

    PAGE = "page"
    """Now, at any hour."""
    WARNING = "warning"
    """Today."""
    INFO = "info"
    """Nothing is wrong."""


def alert_name(kind: str) -> str:
    """Return how a kind is called in Alertmanager and its runbook: ``flag_stale`` is RerankCanaryFlagStale."""
    return "RerankCanary" + "".join(part.capitalize() for part in re.split(r"[^a-zA-Z0-9]+", kind))


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """One matter, as a person reads it at 3 a.m. Holds no query, document or user."""

    key: str
    """Identity, at most 255 characters: receivers fold what comes under one key into one incident."""
    kind: str
    """From a closed set (``rollback``, ``hold``, ``ready``, ...): routes, labels and the runbook go by it."""
    severity: Severity
    flag: str
    """The rollout that it is about."""
    title: str
    """What happened, in one sentence."""
    starts_at: float
    """Unix seconds."""
    ends_at: float | None = None
    """Unix seconds since when it is over; None: it lasts."""
    facts: tuple[tuple[str, str], ...] = ()
    """Label and text, in the order in which they are read."""
    links: tuple[tuple[str, str], ...] = ()
    """Label and URL."""
    details: dict[str, str | float | int | bool] = {}
    """The numbers behind it, for programs."""
    version: int = 1
    """Grows with each change of what it says."""

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to do."""
        return self.ends_at is not None

    def ended(self, now: float) -> Alert:
        """Return it as over since *now*; the same object if it was over before."""
        return self if self.is_over else replace(self, ends_at=now, version=self.version + 1)

    def follows(self, known: Alert) -> Alert:
        """Return it as the next word on what *known* said; *known* itself where nothing but the version differs.

        While it lasts it stays as severe as it was: who was told of a page is to be told of its end.
        """
        severity = min(self.severity, known.severity, key=list(Severity).index)
        as_known = replace(self, starts_at=known.starts_at, version=known.version, severity=severity)
        return known if as_known == known else replace(as_known, version=known.version + 1)
