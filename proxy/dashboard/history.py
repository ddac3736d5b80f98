"""Searching the audit trail: in what a row shows, as it shows it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from proxy.dashboard.words import stamp

if TYPE_CHECKING:
    from flags.record import AuditEntry

_NUMBER = re.compile(r"\d+%?")


def is_found(entry: AuditEntry, query: str) -> bool:
    """Tell whether all words of *query* are in an entry; of numbers the whole one, so that 5 is not found in 25."""
    share = f"{entry.from_share_percent} → {entry.to_share_percent} %"
    ids = f"{entry.request_id} {entry.rollback_id} {entry.flag_event_id}"
    action = f"{entry.action} {entry.action.replace('_', ' ')}"
    who = f"{entry.actor} {action} {entry.through} {entry.phase}"
    text = f"{stamp(entry.at)} {who} {share} {entry.reason} {ids}".lower()
    tokens = set(text.replace("%", " ").split())
    return all(
        word.rstrip("%") in tokens if _NUMBER.fullmatch(word) else word in text for word in query.lower().split()
    )
