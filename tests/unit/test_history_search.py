"""Searching the audit trail."""

from __future__ import annotations

import pytest

from flags.ramp import Phase
from flags.record import AuditEntry, Through
from proxy.dashboard.history import is_found

ENTRY = AuditEntry(
    at=1_764_000_000.0,  # 2025-11-24 16:00:00 UTC
    actor="adam",
    through=Through.DASHBOARD,
    action="flag_written",
    from_share_percent=5,
    to_share_percent=25,
    phase=Phase.RAMPING,
    reason="Godot came at 10:30",
    request_id="q-77",
    version=3,
)


@pytest.mark.parametrize(
    "query", ["5 → 25 %", "25%", "ADAM godot", "flag written", "flag_written", "2025-11-24 16:00", "q-77", "", "→"]
)
def test_what_a_row_shows_is_found(query: str) -> None:
    assert is_found(ENTRY, query)


@pytest.mark.parametrize("query", ["2 %", "50", "adam olga", "2025-11-25", "rollback"])
def test_what_it_does_not_show_is_not(query: str) -> None:
    assert not is_found(ENTRY, query)
