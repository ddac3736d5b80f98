"""Feedback in one process: what of proxy/feedback it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.feedback.doubles import Doubles
from proxy.feedback.intake import Intake, Listener
from proxy.feedback.keys import FeedbackKeys
from proxy.feedback.listeners import FeedbackLog, FeedbackMetrics, FeedbackTally, MissCount

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis.asyncio import Redis

    from proxy.events.records import FeedbackEvent
    from proxy.otel import OpenTelemetry
    from proxy.settings import Settings
    from proxy.signal_observer import SignalObserver


class Feedbacks:
    """Tokens out, feedback in."""

    def __init__(
        self,
        settings: Settings,
        store: Redis,
        own_key: str,
        *,
        stage: Callable[[], str],
        signals: SignalObserver,
        telemetry: OpenTelemetry,
        record: Callable[[FeedbackEvent], None],
        store_error: Callable[[], str | None],
    ) -> None:
        """Take *own_key*, which this replica signs with where no key is configured and the store was never reached."""
        rules = settings.feedback
        self.keys = FeedbackKeys(rules, settings.rollout_prefix, own_key)
        self.doubles = Doubles(store, settings.rollout_prefix, rules.window_seconds, store_error)
        self.tally = FeedbackTally(rules)
        listeners: list[Listener] = [FeedbackMetrics(telemetry, rules), FeedbackLog(record), self.tally]
        if rules.judge:
            listeners.append(MissCount(signals, rules.miss_after))
        self.intake = Intake(rules, self.keys, self.doubles, stage, settings.events.document_id, listeners)
