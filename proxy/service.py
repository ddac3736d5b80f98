"""One request, top to bottom: who gets which arm, what it answers, who answers instead, what is noted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from alerts.signals import group_of
from flags.vocabulary import Arm, Assignment, Reason
from proxy.errors import DeadlineExceeded, InvalidRequest, NotReady, Overloaded, ProxyError
from proxy.events.records import ServedRanking
from proxy.exposure import Exposure, Outcome, Role
from proxy.identity import Identified
from proxy.ranking import Distinct, as_received, distinct, rank
from proxy.shadow import Asked
from proxy.wire.canonical import Ranked, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from flags.gate import Gate
    from flags.latch import Latch
    from proxy.attempts import Tried, Trier
    from proxy.budget import FallbackBudget
    from proxy.settings import Settings
    from proxy.wire.canonical import RerankCall


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Everything of a request that is not its body."""

    request_id: str
    route: str
    dialect: str
    who: Identified
    user_hash: str
    traceparent: str | None = None
    forced: Arm | None = None


class Served(msgspec.Struct, frozen=True):
    """A ranking, and what was noted of it."""

    reply: Reply
    exposure: Exposure
    asked: Asked
    """To be ranked by the other arm, too, once the answer is sent."""


class Refused(Exception):
    """No ranking: the error to answer, and what was noted of it."""

    def __init__(self, error: ProxyError, exposure: Exposure) -> None:
        super().__init__(error.message)
        self.error = error
        self.exposure = exposure


class _Work:
    """One request under way."""

    def __init__(self, call: RerankCall, caller: Caller, assignment: Assignment, total_seconds: float) -> None:
        self.call = call
        self.caller = caller
        self.assignment = assignment
        self.shown: Distinct = distinct(call.documents)
        self.started_at = time.time()
        self.began = time.perf_counter()
        self.deadline = time.monotonic() + total_seconds
        self.attempts: list[Tried] = []


class _Ranking(msgspec.Struct, frozen=True):
    """An order, who made it, and what became of the assigned arm."""

    results: list[Ranked]
    role: Role
    model: str
    outcome: Outcome
    tokens: int = 0
    warnings: tuple[str, ...] = ()


class Service:
    """Serves rerank calls. Knows no HTTP and no dialect."""

    def __init__(
        self,
        settings: Settings,
        gate: Gate,
        latch: Latch,
        trier: Trier,
        budget: FallbackBudget,
        observe: Callable[[Exposure], None],
        observe_ranking: Callable[[ServedRanking], None] = lambda _: None,
    ) -> None:
        self._settings = settings
        self._gate = gate
        self._latch = latch
        self._trier = trier
        self._budget = budget
        self._observe = observe
        self._observe_ranking = observe_ranking

    async def serve(self, call: RerankCall, caller: Caller) -> Served:
        """Return the ranking that *call* asks for, in time or not at all.

        Raises:
            InvalidRequest: a tester forces an arm that is switched off.
            Refused: it stands for InvalidRequest (a document is too long and must not be cut), Overloaded
                (the arm's queue is full), NotReady or DeadlineExceeded (no arm could rank).

        """
        work = _Work(call, caller, self.assign(caller), self._settings.deadline.total_seconds)
        try:
            if not call.truncate:
                await self._refuse_too_long(work)
            ranking = await self._rank(work)
        except ProxyError as exc:
            exposure = _exposure(work, self._gate, _Ranking([], Role.NOBODY, "none", _outcome(work)), exc)
            self._observe(exposure)
            self._observe_ranking(ServedRanking(exposure, call))
            raise Refused(exc, exposure) from exc
        exposure = _exposure(work, self._gate, ranking, None)
        self._observe(exposure)
        top_n = call.top_n or self._settings.arms.top_n or len(call.documents)
        self._observe_ranking(ServedRanking(exposure, call, ranking.results, min(top_n, len(ranking.results))))
        reply = Reply(
            request_id=caller.request_id,
            model=ranking.model,
            results=tuple(ranking.results[:top_n]),
            tokens=ranking.tokens,
            created=int(work.started_at),
            warnings=(*call.warnings, *ranking.warnings),
        )
        user_id = caller.who.context.user_id
        shown = work.shown
        asked = Asked(exposure, call.query, shown.texts, shown.text_of, call.max_tokens_per_doc, user_id, work.attempts)
        return Served(reply, exposure, asked)

    def assign(self, caller: Caller) -> Assignment:
        """Return the arm of *caller*: the flag decides, everything else can only say control.

        Raises:
            InvalidRequest: a tester forces the candidate, and it is switched off.

        """
        assignment = self._gate.assign(caller.who.context)
        if caller.forced is Arm.CANDIDATE and not self._settings.arms.use_candidate:
            reason = "x-rerank-force-arm: the candidate is switched off (USE_CROSS_ENCODER)"
            raise InvalidRequest(reason, field="x-rerank-force-arm")
        if caller.forced is not None and not (self._latch.is_set and caller.forced is Arm.CANDIDATE):
            return msgspec.structs.replace(assignment, arm=caller.forced, reason=Reason.FORCED)
        if assignment.arm is Arm.CONTROL:
            return assignment
        if not self._settings.arms.use_candidate:
            return msgspec.structs.replace(assignment, arm=Arm.CONTROL, reason=Reason.SWITCHED_OFF)
        if not self._trier.is_ready(Role.CANDIDATE):
            return msgspec.structs.replace(assignment, arm=Arm.CONTROL, reason=Reason.NOT_READY)
        return assignment

    async def _rank(self, work: _Work) -> _Ranking:
        if not work.shown.texts:
            role = Role(work.assignment.arm.value)
            return _Ranking(rank(work.shown, (), ()), role, self._trier.arms[role].arm.model, Outcome.OK)
        if work.assignment.arm is Arm.CANDIDATE:
            return await self._by_candidate(work)
        return await self._by_control(work)

    async def _by_candidate(self, work: _Work) -> _Ranking:
        patience = min(work.deadline, time.monotonic() + self._settings.deadline.candidate_seconds)
        tried = await self._try(Role.CANDIDATE, work, patience)
        if tried.outcome is Outcome.OK:
            return _ranking(work, tried, tried)
        if tried.outcome is Outcome.OVERLOADED:
            raise _overloaded(tried)
        spent = self._budget.exceeded(time.time()) if tried.answer is not None else None
        if spent is not None:
            return _ranking(work, tried, tried, f"{_why(tried)}, but {spent}")
        second = await self._try(Role.FALLBACK, work, work.deadline)
        if second.answer is not None:
            return _ranking(work, tried, second, f"answered by the fallback: {_why(tried)}")
        if tried.answer is not None:
            return _ranking(work, tried, tried, f"{_why(tried)}, but {_why(second)}")
        return self._last_resort(work)

    async def _by_control(self, work: _Work) -> _Ranking:
        can_rescue = self._can_rescue()
        reserve = self._settings.deadline.reserve_seconds if can_rescue else 0.0
        tried = await self._try(Role.CONTROL, work, work.deadline - reserve)
        if tried.answer is not None:
            return _ranking(work, tried, tried)
        if tried.outcome is Outcome.OVERLOADED:
            raise _overloaded(tried)
        if can_rescue:
            second = await self._try(Role.CANDIDATE, work, work.deadline)
            if second.answer is not None:
                return _ranking(work, tried, second, f"answered by the candidate: {_why(tried)}")
        return self._last_resort(work)

    def _can_rescue(self) -> bool:
        """Tell whether the candidate may answer where control failed: never while a rollback holds."""
        wanted = self._settings.fallback.on_control_failure == "candidate" and self._settings.arms.use_candidate
        return wanted and not self._latch.is_set and self._trier.is_ready(Role.CANDIDATE)

    async def _try(self, role: Role, work: _Work, deadline: float) -> Tried:
        call = work.call
        tried = await self._trier.try_arm(
            role,
            call.query,
            work.shown.texts,
            deadline=deadline,
            max_document_tokens=call.max_tokens_per_doc,
            user=work.caller.user_hash,
        )
        work.attempts.append(tried)
        return tried

    def _last_resort(self, work: _Work) -> _Ranking:
        """Answer in the order received where that is configured, else say that nobody can.

        Raises:
            DeadlineExceeded: all of the time was used up.
            NotReady: no arm could rank; worth another try soon.

        """
        reasons = ", ".join(map(_why, work.attempts))
        outcome = work.attempts[0].outcome
        if self._settings.fallback.last_resort == "received":
            warning = f"not ranked, the order is the one received: {reasons}"
            return _Ranking(as_received(work.shown), Role.RECEIVED, "none", outcome, warnings=(warning,))
        if all(tried.outcome is Outcome.TIMEOUT for tried in work.attempts):
            raise DeadlineExceeded(f"no arm could rank in time: {reasons}")
        raise NotReady(f"no arm could rank: {reasons}", retry_after_seconds=1)

    async def _refuse_too_long(self, work: _Work) -> None:
        """Refuse what some arm would have to cut: whichever arm the caller has, the answer is the same.

        Raises:
            InvalidRequest: names the query or the first document that is too long.
            Overloaded, DeadlineExceeded: nobody could tell, or not in time.

        """
        texts = work.shown.texts
        for role in (Role.CONTROL, Role.CANDIDATE):
            if not self._trier.is_ready(role):
                continue
            arm = self._trier.arms[role].arm
            place = await arm.first_too_long(work.call.query, texts, deadline=work.deadline)
            if place is not None:
                index = work.shown.text_of.index(place) if place >= 0 else 0
                field = f"{work.call.documents_field}[{index}]" if place >= 0 else "query"
                raise InvalidRequest(f"{field}: is too long for the model, and truncation is off", field=field)


def _ranking(work: _Work, first: Tried, served: Tried, *warnings: str) -> _Ranking:
    answer = served.answer
    assert answer is not None
    return _Ranking(
        results=rank(work.shown, answer.logits, answer.probabilities),
        role=served.attempt.role,
        model=answer.model,
        outcome=first.outcome,
        tokens=answer.tokens,
        warnings=(*warnings, *answer.warnings),
    )


def _exposure(work: _Work, gate: Gate, ranking: _Ranking, error: ProxyError | None) -> Exposure:
    return Exposure(
        request_id=work.caller.request_id,
        traceparent=work.caller.traceparent,
        route=work.caller.route,
        dialect=work.caller.dialect,
        flag=gate.state.flag,
        assignment=work.assignment,
        outcome=ranking.outcome,
        served_by=ranking.role,
        model=ranking.model,
        status=error.status if error else 200,
        user_hash=work.caller.user_hash,
        user_group=group_of(work.caller.who.context.user_id),
        user_source=work.caller.who.source,
        is_forced=work.caller.forced is not None,
        documents=len(work.call.documents),
        started_at=work.started_at,
        seconds=time.perf_counter() - work.began,
        attempts=tuple(tried.attempt for tried in work.attempts),
        error_code=error.code if error else None,
    )


def _outcome(work: _Work) -> Outcome:
    return work.attempts[0].outcome if work.attempts else Outcome.OK


def _why(tried: Tried) -> str:
    return f"the {tried.attempt.role} arm {tried.reason}"


def _overloaded(tried: Tried) -> Overloaded:
    return Overloaded("too many requests wait already", retry_after_seconds=tried.retry_after_seconds or 1.0)
