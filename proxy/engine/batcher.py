"""Brings the requests of all callers together in batches by token budget, for one worker thread.

A round takes at most a few rows of each waiting request, so that a thousand documents do not keep
twenty-five waiting; the rows of a round are sorted by length and cut into batches of `batch_tokens`,
so that little padding is paid for. Pairs already waiting are scored once for everybody who asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import msgspec
import numpy as np
import structlog

from proxy.engine.jobs import Job, Taken, finish, tell
from proxy.errors import BackendError, DeadlineExceeded, NotReady, Overloaded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from proxy.engine.base import Engine, Logits
    from proxy.engine.pairs import EncodedPairs, TokenPair

_T = TypeVar("_T")
_log = structlog.get_logger(__name__)

ROWS_PER_REQUEST = 64
"""Rows that one request may have in one round."""
ROUND_TOKENS = 16_384
"""Tokens that one round may have; the longest time that a new request waits is that of one round."""
STUCK_SECONDS = 30.0
"""A round that takes longer is not slow any more."""
_PROBE_SECONDS = 5.0
"""How often a model that failed is asked again when nobody asks."""


class Scored(msgspec.Struct):
    """What became of one request."""

    logits: list[float]
    """One for each document, in the order given; the best of its windows."""
    tokens: list[int]
    """One sum for each document, query and special tokens included."""
    was_cut: list[bool]
    query_was_cut: bool
    tokenize_seconds: float
    queue_seconds: float
    inference_seconds: float


class Batcher:
    """A bounded queue in front of one model."""

    def __init__(self, engine: Engine, *, queue_documents: int, stuck_seconds: float = STUCK_SECONDS) -> None:
        self._engine = engine
        self._stuck_seconds = stuck_seconds
        self._busy_since: float | None = None
        self._is_broken = False
        self._probe_rows = engine.encoder.encode("a", ["a"], engine.limits).rows
        self._limit = queue_documents
        self._waiting = 0
        self._rate = 100.0
        """Rows a second, smoothed: what Retry-After is computed from."""
        self._jobs: deque[Job] = deque()
        self._wake = threading.Condition()
        self._is_closed = False
        self._tokenizer = ThreadPoolExecutor(1, thread_name_prefix="tokenizer")
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows that wait or are worked on; a document is one, or one for each of its windows."""
        return self._waiting

    @property
    def is_well(self) -> bool:
        """Whether the model answers: not after it failed on the plainest pair, nor while it sits on one round."""
        since = self._busy_since
        return not self._is_broken and (since is None or time.monotonic() - since < self._stuck_seconds)

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
            Overloaded: too many rows wait.
            DeadlineExceeded: the deadline passed first.
            BackendError: the model failed.
            NotReady: the batcher is closed.

        """
        with self._place(len(documents)):
            return await self._score(query, documents, deadline, max_document_tokens)

    async def first_too_long(self, query: str, documents: Sequence[str], *, deadline: float) -> int | None:
        """Return the index of the first document that would be cut, -1 for the query, None if all fit.

        Raises:
            Overloaded: too many rows wait.
            DeadlineExceeded: the deadline passed first.
            NotReady: the batcher is closed.

        """
        engine = self._engine
        with self._place(len(documents)):
            return await self._tokenize(deadline, engine.encoder.first_too_long, query, documents, engine.limits)

    @contextlib.contextmanager
    def _place(self, rows: int, held: int = 0) -> Iterator[None]:
        """Hold room for *rows* more than those *held*; who waits alone may hold more than the queue has."""
        if self._is_closed:
            raise NotReady("the model is shutting down", retry_after_seconds=1)
        if rows and self._waiting > held and self._waiting + rows > self._limit:
            wait = max(1.0, self._waiting / self._rate)
            raise Overloaded("the model's queue is full", retry_after_seconds=wait)
        self._waiting += rows
        try:
            yield
        finally:
            self._waiting -= rows

    async def _tokenize(self, deadline: float, work: Callable[..., _T], *args: object) -> _T:
        """Do *work* in the one thread that may use the tokenizer."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout_at(loop.time() + deadline - time.monotonic()):
                return await loop.run_in_executor(self._tokenizer, work, *args)
        except TimeoutError:
            raise DeadlineExceeded("the model did not answer in time") from None

    async def _score(
        self, query: str, documents: Sequence[str], deadline: float, max_document_tokens: int | None
    ) -> Scored:
        began = time.perf_counter()
        engine = self._engine
        encode = engine.encoder.encode
        pairs = await self._tokenize(deadline, encode, query, documents, engine.limits, max_document_tokens)
        tokenized = time.perf_counter()
        with self._place(len(pairs.rows) - len(documents), held=len(documents)):
            job = await self._run_job(pairs, deadline)
        ended = time.perf_counter()
        started = job.started or ended
        return Scored(
            logits=job.logits,
            tokens=_tokens_of(pairs, len(documents)),
            was_cut=pairs.was_cut,
            query_was_cut=pairs.query_was_cut,
            tokenize_seconds=tokenized - began,
            queue_seconds=started - job.entered,
            inference_seconds=ended - started,
        )

    async def _run_job(self, pairs: EncodedPairs, deadline: float) -> Job:
        """Return the job of *pairs* once the model is through with it."""
        loop = asyncio.get_running_loop()
        job = Job(pairs, deadline, loop.create_future())
        self._submit(job)
        try:
            async with asyncio.timeout_at(loop.time() + deadline - time.monotonic()):
                await job.future
        except TimeoutError:
            raise DeadlineExceeded("the model did not answer in time") from None
        return job

    def _submit(self, job: Job) -> None:
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
                    if not self._wake.wait(_PROBE_SECONDS if self._is_broken else None):
                        break
                if not self._jobs and self._is_closed:
                    return
                taken = self._take()
            if (taken and not self._work(taken)) or self._is_broken:
                self._probe()

    def _probe(self) -> None:
        """Find out whether a failure was the request's or is the model's, by the plainest pair there is."""
        try:
            self._score_now([self._probe_rows])
        except Exception as exc:  # noqa: BLE001 - as in _work; the cause is logged there
            if not self._is_broken:
                _log.error("engine.broken", engine=self._engine.name, error=type(exc).__name__)
            self._is_broken = True
        else:
            if self._is_broken:
                _log.info("engine.mended", engine=self._engine.name)
            self._is_broken = False

    def _score_now(self, batches: Sequence[Sequence[TokenPair]]) -> list[Logits]:
        self._busy_since = time.monotonic()
        try:
            return self._engine.score(batches)
        finally:
            self._busy_since = None

    def _take(self) -> Taken:
        """Take the rows of the next round, fair between requests; forget those nobody waits for."""
        now = time.monotonic()
        taken: Taken = []
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

    def _work(self, taken: Taken) -> bool:
        """Score a round; tell whether the model did."""
        began = time.perf_counter()
        for job, _ in taken:
            job.started = job.started or began
        same: dict[tuple[int, ...], Taken] = {}
        for job, row in taken:
            same.setdefault(tuple(job.rows[row].ids), []).append((job, row))
        askers = list(same.values())
        rows = [asker[0][0].rows[asker[0][1]] for asker in askers]
        batches = batches_of(rows, self._engine.batch_tokens)
        try:
            results = self._score_now([[rows[i] for i in batch] for batch in batches])
        except Exception as exc:  # noqa: BLE001 - the worker must outlive whatever a model throws; everybody concerned is told
            _log.exception("engine.failed", engine=self._engine.name, rows=len(rows))
            error = exc if isinstance(exc, BackendError) else BackendError("the model failed")
            tell(taken, error)
            return False
        for batch, logits in zip(batches, results, strict=True):
            for i, logit in zip(batch, logits, strict=True):
                for job, row in askers[i]:
                    owner = job.owners[row]
                    job.logits[owner] = float(np.maximum(job.logits[owner], logit))  # keeps a NaN
                    job.open -= 1
        finish(taken)
        self._rate += 0.2 * (len(taken) / (time.perf_counter() - began) - self._rate)
        return True


def _tokens_of(pairs: EncodedPairs, documents: int) -> list[int]:
    """Return the tokens of each document's rows."""
    tokens = [0] * documents
    for owner, row in zip(pairs.document_of_row, pairs.rows, strict=True):
        tokens[owner] += len(row)
    return tokens


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
