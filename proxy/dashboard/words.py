"""Numbers and times as people read them. Pure; times are UTC, as the logs have them."""

from __future__ import annotations

from datetime import UTC, datetime

from flags.ramp import words as duration

__all__ = ["clock", "count", "dollars", "duration", "latency", "percent", "short_time", "stamp"]


def stamp(at: float) -> str:
    """Return a moment to the second."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def clock(at: float) -> str:
    """Return a time of day to the tenth of a second."""
    moment = datetime.fromtimestamp(round(at, 1), UTC)
    return f"{moment:%H:%M:%S}.{moment.microsecond // 100_000}"


def short_time(at: float, span_seconds: float) -> str:
    """Return a moment as an axis over *span_seconds* needs it."""
    moment = datetime.fromtimestamp(at, UTC)
    if span_seconds > 3 * 86400:
        return f"{moment.day} {moment:%b}"
    if span_seconds > 86400:
        return f"{moment:%a %H:%M}"
    return f"{moment:%H:%M:%S}" if span_seconds <= 600 else f"{moment:%H:%M}"


def latency(seconds: float) -> str:
    """Return a latency in the unit that suits it."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.00995 or seconds == 0 else f"{seconds * 1000:.1f} ms"
    return f"{seconds:.2f} s" if seconds < 9.995 else f"{seconds:.0f} s"


def percent(share: float) -> str:
    """Return a share from 0 to 1 as a percentage."""
    return f"{share * 100:.3g} %" if share < 0.9995 else f"{share * 100:.0f} %"


def dollars(amount: float) -> str:
    """Return dollars: small ones to two digits that say something."""
    if amount < 0:
        return f"-{dollars(-amount)}"
    if amount >= 0.995 or amount == 0:
        return f"${amount:,.2f}"
    return f"${amount:.2g}" if amount >= 0.0001 else f"${amount:.1e}"


def count(number: float) -> str:
    """Return a number of things."""
    return f"{number:,.0f}" if abs(number) >= 100 or number == int(number) else f"{number:,.3g}"
