"""Brings the requests of all callers together in batches by token budget, for one worker thread.

A round takes at most a few rows of each waiting request, so that a thousand documents do not keep
twenty-five waiting; the rows of a round are sorted by length and cut into batches of `batch_tokens`,
so that little padding is paid for. Pairs already waiting are scored once for everybody who asked.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import structlog

from proxy.errors import BackendError, DeadlineExceeded, NotReady, Overloaded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.engine.base import Engine
    from proxy.engine.pairs import EncodedPairs, TokenPair

_log = structlog.get_logger(__name__)

ROWS_PER_REQUEST = 64
"""Rows that one request may have in one round."""
ROUND_TOKENS = 16_384
"""Tokens that one round may have; the longest time that a new request waits is that of one round."""


class Scored(msgspec.Struct):
    """What became of one request."""

    logits: list[float]
    """One for each document, in the order given; the best of its windows."""
    tokens: int
    was_cut: list[bool]
    query_was_cut: bool
    tokenize_seconds: float
    queue_seconds: float
    inference_seconds: float


class _Job:
    """One request on its way through tokenizer and model."""

    def __init__(self, pairs: EncodedPairs, deadline: float, future: asyncio.Future[list[float]]) -> None:
        self.rows = pairs.rows
        self.owners = pairs.document_of_row
        self.logits: list[float] = [float("-inf")] * (max(self.owners) + 1)
        self.todo = deque(range(len(self.rows)))
        self.open = len(self.rows)
        self.deadline = deadline
        self.future = future
        self.entered = time.perf_counter()
        self.started: float | None = None

    def is_wanted(self, now: float) -> bool:
        """Tell whether somebody still waits for this."""
        return not self.future.done() and now < self.deadline


class Batcher:
    """A bounded queue in front of one model."""

    def __init__(self, engine: Engine, *, queue_documents: int) -> None:
        self._engine = engine
        self._limit = queue_documents
        self._waiting = 0
        self._rate = 100.0
        """Rows a second, smoothed: what Retry-After is computed from."""
        self._jobs: deque[_Job] = deque()
        self._wake = threading.Condition()
        self._is_closed = False
        self._tokenizer = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Documents that wait or are worked on."""
        return self._waiting

    async def score(
        self, query: str, documents: Sequence[str], *, deadline: float, max_document_tokens: int | None = None
    ) -> Scored:
        """Return the raw logits of *query* against each document.

        Args:
            query: what is asked.
            documents: at least one.
            deadline: on the clock of `time.monotonic`; the work is dropped when it has passed.
            max_document_tokens: a caller's own lower limit a document.

        Raises:
            Overloaded: too many documents wait.
            DeadlineExceeded: the deadline passed first.
            BackendError: the model failed.
            NotReady: the batcher is closed.

        """
        self._enter(len(documents))
        try:
            return await self._score(query, documents, deadline, max_document_tokens)
        finally:
            self._waiting -= len(documents)

    def _enter(self, documents: int) -> None:
        if self._is_closed:
            raise NotReady("the model is shutting down", retry_after_seconds=1)
        if self._waiting and self._waiting + documents > self._limit:
            wait = max(1.0, self._waiting / self._rate)
            raise Overloaded("the model's queue is full", retry_after_seconds=wait)
        self._waiting += documents

    async def _score(
        self, query: str, documents: Sequence[str], deadline: float, max_document_tokens: int | None
    ) -> Scored:
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        engine = self._engine
        try:
            async with asyncio.timeout_at(loop.time() + deadline - time.monotonic()):
                pairs = await loop.run_in_executor(
                    self._tokenizer, engine.encoder.encode, query, documents, engine.limits, max_document_tokens
                )
                tokenized = time.perf_counter()
                job = _Job(pairs, deadline, loop.create_future())
                self._submit(job)
                logits = await job.future
        except TimeoutError:
            raise DeadlineExceeded("the model did not answer in time") from None
        ended = time.perf_counter()
        started = job.started or ended
        return Scored(
            logits=logits,
            tokens=sum(len(row) for row in pairs.rows),
            was_cut=pairs.was_cut,
            query_was_cut=pairs.query_was_cut,
            tokenize_seconds=tokenized - began,
            queue_seconds=started - job.entered,
            inference_seconds=ended - started,
        )

    def _submit(self, job: _Job) -> None:
        with self._wake:
            self._jobs.append(job)
            self._wake.notify()

    async def close(self) -> None:
        """Finish what waits, then stop the worker."""
        self._is_closed = True
        with self._wake:
            self._wake.notify()
        await asyncio.to_thread(self._thread.join)
        self._tokenizer.shutdown(wait=False)

    def _run(self) -> None:
        """Work round by round until closed and empty; a failure is told to those it concerns, never swallowed."""
        while True:
            with self._wake:
                while not self._jobs and not self._is_closed:
                    self._wake.wait()
                if not self._jobs:
                    return
                taken = self._take()
            if taken:
                self._work(taken)

    def _take(self) -> list[tuple[_Job, int]]:
        """Take the rows of the next round, fair between requests; forget those nobody waits for."""
        now = time.monotonic()
        taken: list[tuple[_Job, int]] = []
        tokens = 0
        for _ in range(len(self._jobs)):
            job = self._jobs.popleft()
            if not job.is_wanted(now):
                continue
            share = min(ROWS_PER_REQUEST, len(job.todo))
            while share and (not taken or tokens < ROUND_TOKENS):
                row = job.todo.popleft()
                taken.append((job, row))
                tokens += len(job.rows[row])
                share -= 1
            if job.todo:
                self._jobs.append(job)
            if tokens >= ROUND_TOKENS:
                break
        return taken

    def _work(self, taken: list[tuple[_Job, int]]) -> None:
        began = time.perf_counter()
        for job, _ in taken:
            job.started = job.started or began
        same: dict[tuple[int, ...], list[tuple[_Job, int]]] = {}
        for job, row in taken:
            same.setdefault(tuple(job.rows[row].ids), []).append((job, row))
        askers = list(same.values())
        rows = [asker[0][0].rows[asker[0][1]] for asker in askers]
        batches = batches_of(rows, self._engine.batch_tokens)
        try:
            results = self._engine.score([[rows[i] for i in batch] for batch in batches])
        except Exception as exc:  # noqa: BLE001 - the worker must outlive whatever a model throws; everybody concerned is told
            _log.exception("engine.failed", engine=self._engine.name, rows=len(rows))
            error = exc if isinstance(exc, BackendError) else BackendError("the model failed")
            _tell(taken, error)
            return
        for batch, logits in zip(batches, results, strict=True):
            for i, logit in zip(batch, logits, strict=True):
                for job, row in askers[i]:
                    owner = job.owners[row]
                    job.logits[owner] = float(np.maximum(job.logits[owner], logit))  # keeps a NaN
                    job.open -= 1
        _finish(taken)
        self._rate += 0.2 * (len(taken) / (time.perf_counter() - began) - self._rate)


def _finish(taken: list[tuple[_Job, int]]) -> None:
    """Hand their scores to the jobs that have no row left to wait for."""
    for job in _jobs_of(taken):
        if not job.open:
            job.future.get_loop().call_soon_threadsafe(_resolve, job.future, job.logits)


def _jobs_of(taken: list[tuple[_Job, int]]) -> list[_Job]:
    return list({id(job): job for job, _ in taken}.values())


def _tell(taken: list[tuple[_Job, int]], error: BackendError) -> None:
    """Tell a failure to the jobs it concerns, and forget their other rows."""
    for job in _jobs_of(taken):
        job.todo.clear()
        job.future.get_loop().call_soon_threadsafe(_reject, job.future, error)


def _resolve(future: asyncio.Future[list[float]], logits: list[float]) -> None:
    if not future.done():
        future.set_result(logits)


def _reject(future: asyncio.Future[list[float]], error: BackendError) -> None:
    if not future.done():
        future.set_exception(error)


def batches_of(rows: Sequence[TokenPair], batch_tokens: int) -> list[list[int]]:
    """Return the indices of *rows* in batches, similar lengths together, each at most *batch_tokens* with padding.

    A row longer than the budget is a batch of its own.
    """
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
    batches: list[list[int]] = []
    longest = 0
    for i in order:
        if batches and (len(batches[-1]) + 1) * longest <= batch_tokens:
            batches[-1].append(i)
        else:
            batches.append([i])
            longest = len(rows[i])
    return batches
