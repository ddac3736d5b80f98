"""The limits that a candidate has to keep, and what each of them is measured by."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import replace

SLOW_SHARE = 0.05
"""A p95 limit is a share: at most one request in twenty is slower."""


class Event(StrEnum):
    """What a request, or a judged request, may be: counted as bad of trials, for each arm."""

    SLOW = "slow"
    """Slower than the limit of the p95."""
    SLOW_RELATIVE = "slow_relative"
    """Slower than control's p95 allows."""
    ERROR = "error"
    """The assigned arm failed, was late or gave no ranking; whoever answered instead."""
    FALLBACK = "fallback"
    """Another arm than the assigned one had to answer."""
    MISS = "miss"
    """What the user chose was not near the top; of those requests that a user said something about."""


class Value(StrEnum):
    """What is measured of a request or of a pair of rankings, as a value from 0 to 1."""

    RECALL = "recall"
    """recall@5 of judged probes, paired: candidate's less control's, counted as at most 0.5 either way, plus 0.5."""
    OVERLAP = "overlap"
    """Share of control's five best that the candidate has among its five best, of a user's request that both ranked.

    One number a pair, without a judgement: not paired with anything. Two good rerankers differ, so what is demanded is
    what a candidate known to be good has (`Guardrail.reference`), and the guardrail is off where nobody said it.
    """
    PROBE = "probe"
    """nDCG@10 of judged probes, paired as recall is."""
    COST = "cost"
    """1 less the dollars of a candidate request over four times the limit, at least 0."""


EVENTS = tuple(Event)
VALUES = tuple(Value)
PAIRED_RANGE = 0.5
"""A larger difference of one pair counts as this: the less one pair can move, the fewer decide."""
COST_CEILING = 4.0
"""Times the cost limit: what costs more counts as this much."""


class Method(StrEnum):
    """How a guardrail is tested."""

    SHARE = "share"
    """The candidate's share of bad events must stay at or below the limit."""
    BETWEEN = "between"
    """The candidate's share of all bad events must stay at or below its share of the traffic."""
    MEAN = "mean"
    """The mean of a value must stay at or above a floor."""


class Guardrail(msgspec.Struct, frozen=True, kw_only=True):
    """One limit."""

    name: str
    words: str
    """What must hold, for people; ``{limit}`` is filled in."""
    signal: Event | Value
    test: Method
    limit: float
    """Seconds, ratio, share, margin or dollars, as `words` says."""
    reference: float = PAIRED_RANGE
    """What a mean may be `limit` below, in the value's own scale: of a paired value 0.5, which is no difference."""
    report_only: bool = False
    """It is judged and shown, and never rolls back nor holds a stage."""
    is_on: bool = True

    @property
    def share_limit(self) -> float:
        """The largest share of bad events, of a share test."""
        return SLOW_SHARE if self.signal in {Event.SLOW, Event.SLOW_RELATIVE} else self.limit

    @property
    def floor(self) -> float:
        """The smallest mean, of a mean test, in the value's own scale from 0 to 1."""
        return 1 - 1 / COST_CEILING if self.signal is Value.COST else self.reference - self.limit

    def in_words(self) -> str:
        """Return what must hold."""
        return self.words.format(
            limit=f"{self.limit:g}", share=f"{self.limit * 100:.3g} %", reference=f"{self.reference:g}"
        )


class GuardrailOverride(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another limit for one of the guardrails."""

    name: Literal[
        "p95",
        "p95_relative",
        "errors",
        "errors_relative",
        "fallbacks",
        "misses_relative",
        "recall",
        "overlap",
        "probes",
        "cost",
    ]
    limit: Annotated[float, Meta(gt=0, le=1e6)] | None = None
    """p95: seconds; p95_relative: ratio; errors, fallbacks: share; cost: dollars; the others: margin."""
    report_only: bool | None = None
    is_on: bool | None = None


def default_guardrails(p95_seconds: float, expected_overlap: float | None = None) -> tuple[Guardrail, ...]:
    """Return what suits a swap of GPT for a cross-encoder with this p95; *expected_overlap* None: of equal arms."""
    return (
        _share("p95", Event.SLOW, p95_seconds, "95 of 100 candidate requests take at most {limit} s"),
        _share("p95_relative", Event.SLOW_RELATIVE, 1.25, "candidate p95 at most {limit} times control's"),
        _share("errors", Event.ERROR, 0.01, "at most {share} of the candidate's requests fail"),
        _between("errors_relative", Event.ERROR, 0.005, "the candidate fails no more often than control"),
        _share("fallbacks", Event.FALLBACK, 0.10, "at most {share} of the candidate's requests fall back"),
        _between("misses_relative", Event.MISS, 0.02, "the candidate misses what users choose no more than control"),
        _mean("recall", Value.RECALL, 0.02, "recall at most {limit} below control's, pair by pair"),
        _overlap(1.0 if expected_overlap is None else expected_overlap),
        _mean("probes", Value.PROBE, 0.02, "nDCG of the probes at most {limit} below control's, pair by pair"),
        _mean("cost", Value.COST, 0.002, "a candidate request costs at most ${limit} on average"),
    )


def _share(name: str, signal: Event, limit: float, words: str) -> Guardrail:
    return Guardrail(name=name, words=words, signal=signal, test=Method.SHARE, limit=limit)


def _between(name: str, signal: Event, limit: float, words: str) -> Guardrail:
    return Guardrail(name=name, words=words, signal=signal, test=Method.BETWEEN, limit=limit)


def _overlap(expected: float) -> Guardrail:
    words = "overlap with control's five best at most {limit} below the {reference} expected"
    return replace(_mean("overlap", Value.OVERLAP, 0.02, words), reference=expected)


def _mean(name: str, signal: Value, limit: float, words: str) -> Guardrail:
    return Guardrail(name=name, words=words, signal=signal, test=Method.MEAN, limit=limit)


def with_overrides(
    guardrails: tuple[Guardrail, ...], overrides: tuple[GuardrailOverride, ...]
) -> tuple[Guardrail, ...]:
    """Return the guardrails with what *overrides* say; the last word on one of them counts."""
    found = {each.name: each for each in guardrails}
    for override in overrides:
        told = {
            field: value
            for field in ("limit", "report_only", "is_on")
            if (value := getattr(override, field)) is not None
        }
        found[override.name] = replace(found[override.name], **told)
    return tuple(found.values())


def check_guardrails(guardrails: tuple[Guardrail, ...]) -> str | None:
    """Return what is wrong with them; None: nothing."""
    for each in guardrails:
        if each.test is Method.SHARE and each.share_limit >= 1:
            return f"{each.name}: a share must be below 1"
        if each.test is Method.MEAN and each.signal is not Value.COST and each.limit >= each.reference:
            return f"{each.name}: a margin must be below {each.reference:g}"
        if each.name == "p95_relative" and each.limit < 1:
            return "p95_relative: a ratio must be at least 1"
    if not any(each.is_on and not each.report_only for each in guardrails):
        return "no guardrail is on: nothing could ever roll the candidate back"
    return None
