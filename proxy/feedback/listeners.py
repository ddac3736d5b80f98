"""Who takes note of feedback: the metrics, the guard's counts, the event log, and what `status` says of it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from flags.vocabulary import Arm
from proxy.evaluations import Evaluations
from proxy.events.records import FeedbackEvent
from proxy.feedback.measures import RECALL_AT
from proxy.feedback.told import CHOSEN, Kind

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.feedback.intake import Refusal, Said
    from proxy.feedback.token import FeedbackToken
    from proxy.otel import OpenTelemetry
    from proxy.quality_settings import Feedback
    from proxy.signal_observer import SignalObserver

_VOTES = {Kind.VOTED: 1, Kind.VOTED_DOWN: -1}
_RESULT = "rerank.feedback.result"


class FeedbackMetrics:
    """Every instrument of feedback is made here. No query, document or user in any."""

    def __init__(self, telemetry: OpenTelemetry, settings: Feedback) -> None:
        self._settings = settings
        meter = telemetry.meters.get_meter("rerank-canary")
        self._documents = meter.create_counter(
            "rerank.feedback.documents", "{document}", "Documents that users said something of, by arm, kind and result"
        )
        self._quality = meter.create_histogram(
            "rerank.feedback.quality",
            "1",
            "click-recall@k and reciprocal rank of what users chose, as it stood in the answer",
            explicit_bucket_boundaries_advisory=[n / 20 for n in range(21)],
        )
        self._weight = meter.create_counter(
            "rerank.feedback.weight",
            "1",
            "Choices weighed against position bias, by where they stood: the share of the first k of all is recall@k",
        )
        self._evaluations = Evaluations(telemetry)

    def said(self, said: Said) -> None:
        """Take note of what was said."""
        labels = _labels(said.token)
        self._documents.add(len(said.indices), {**labels, "rerank.feedback.kind": said.kind.value, _RESULT: "counted"})
        if said.kind not in CHOSEN:
            return
        for rank, weight in zip(
            said.placed.ranks, said.placed.weights(self._settings.eta, self._settings.weight_clip), strict=True
        ):
            self._weight.add(weight, {**labels, "rerank.feedback.place": _place(rank)})
        if not said.is_first_choice:
            return
        for k in RECALL_AT:
            self._quality.record(said.placed.recall_at(k), {**labels, "rerank.feedback.metric": f"recall_at_{k}"})
        self._quality.record(said.placed.reciprocal_rank, {**labels, "rerank.feedback.metric": "reciprocal_rank"})
        self._evaluations.emit(
            f"rerank.feedback.{said.kind}.reciprocal_rank",
            said.placed.reciprocal_rank,
            {"gen_ai.response.id": said.token.request_id, "rerank.arm": said.token.arm.value},
        )

    def refused(self, refusal: Refusal) -> None:
        """Take note of what does not count."""
        kind = refusal.kind.value if refusal.kind else "none"
        labels = {"rerank.feedback.kind": kind, _RESULT: refusal.result.value}
        self._documents.add(refusal.documents, {**_labels(refusal.token), **labels})


def _labels(token: FeedbackToken | None) -> dict[str, str | bool]:
    if token is None:
        return {"rerank.arm": "none", "rerank.fallback": False}
    return {"rerank.arm": token.arm.value, "rerank.fallback": token.has_fallen_back}


def _place(rank: int | None) -> str:
    """Return which of the measured places a rank is in."""
    return next((f"top_{k}" for k in RECALL_AT if rank is not None and rank <= k), "below")


class MissCount:
    """Tells the guard's counts whether what a user chose first was near the top."""

    def __init__(self, signals: SignalObserver, miss_after: int) -> None:
        self._signals = signals
        self._miss_after = miss_after

    def said(self, said: Said) -> None:
        """Count a ranking once: what the user chose first says enough, and one user's every click is no evidence.

        It counts for the assigned arm, whoever answered: else a candidate that leaves its hard queries to the fallback
        would be judged by its easy ones. Where no more documents were served than may be looked at, none can be missed.
        """
        token = said.token
        if said.is_first_choice and token.is_free and len(token.order) > self._miss_after:
            best = said.placed.best
            self._signals.count_feedback(
                token.arm,
                token.user_hash,
                token.user_group,
                token.stage,
                is_miss=best is None or best > self._miss_after,
            )

    def refused(self, refusal: Refusal) -> None:
        """Count nothing."""


class FeedbackLog:
    """Hands what was said to the event log."""

    def __init__(self, record: Callable[[FeedbackEvent], None]) -> None:
        self._record = record

    def said(self, said: Said) -> None:
        """Keep it."""
        token = said.token
        self._record(
            FeedbackEvent(
                request_id=token.request_id,
                received_at=said.at,
                served_at=token.issued_at,
                arm=token.arm.value,
                share_percent=token.share_percent,
                action="voted" if said.kind in _VOTES else said.kind.value,
                vote=_VOTES.get(said.kind),
                indices=said.indices,
                ranks=said.placed.ranks,
                user_hash=token.user_hash,
            )
        )

    def refused(self, refusal: Refusal) -> None:
        """Keep nothing."""


class FeedbackTally:
    """What this replica was told, for people; by the assigned arm, whoever answered."""

    def __init__(self, settings: Feedback) -> None:
        self._settings = settings
        self._arms = {arm: _ArmTally() for arm in Arm}
        self._refused: Counter[str] = Counter()

    def said(self, said: Said) -> None:
        """Add it."""
        weights = said.placed.weights(self._settings.eta, self._settings.weight_clip)
        self._arms[said.token.arm].add(said, weights)

    def refused(self, refusal: Refusal) -> None:
        """Add it."""
        self._refused[refusal.result.value] += refusal.documents

    def status(self) -> dict[str, Any]:
        """Return what an operator asks of feedback."""
        arms = {arm.value: tally.status() for arm, tally in self._arms.items()}
        return {"arms": arms, "refused": dict(self._refused), "is_judged": self._settings.judge}


class _ArmTally:
    def __init__(self) -> None:
        self.rankings = 0
        self.votes: Counter[Kind] = Counter()
        self.recall = dict.fromkeys(RECALL_AT, 0.0)
        self.weight = dict.fromkeys(RECALL_AT, 0.0)
        self.all_weight = 0.0
        self.reciprocal_rank = 0.0

    def add(self, said: Said, weights: list[float]) -> None:
        if said.kind in _VOTES:
            self.votes[said.kind] += len(said.indices)
            return
        self.all_weight += sum(weights)
        for k in RECALL_AT:
            ranks = zip(said.placed.ranks, weights, strict=True)
            self.weight[k] += sum(weight for rank, weight in ranks if rank is not None and rank <= k)
        if said.is_first_choice:
            self.rankings += 1
            self.reciprocal_rank += said.placed.reciprocal_rank
            for k in RECALL_AT:
                self.recall[k] += said.placed.recall_at(k)

    def status(self) -> dict[str, Any]:
        votes = self.votes[Kind.VOTED] + self.votes[Kind.VOTED_DOWN]
        return {
            "rankings": self.rankings,
            **{f"click_recall_at_{k}": _over(self.recall[k], self.rankings) for k in RECALL_AT},
            **{f"corrected_recall_at_{k}": _over(self.weight[k], self.all_weight) for k in RECALL_AT},
            "reciprocal_rank": _over(self.reciprocal_rank, self.rankings),
            "votes": votes,
            "good_votes": _over(self.votes[Kind.VOTED], votes),
        }


def _over(total: float, count: float) -> float | None:
    return total / count if count else None
