"""One request on its way through tokenizer and model, and how its caller hears of the end."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

    from proxy.engine.pairs import EncodedPairs
    from proxy.errors import BackendError


class Job:
    """The rows of one request: made on the event loop, worked on by the model's thread."""

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


Taken = list[tuple[Job, int]]
"""Rows of one round: each a job and the row's index in it."""


def finish(taken: Taken) -> None:
    """Hand their scores to the jobs that have no row left to wait for."""
    for job in _jobs_of(taken):
        if not job.open:
            job.future.get_loop().call_soon_threadsafe(_resolve, job.future, job.logits)


def tell(taken: Taken, error: BackendError) -> None:
    """Tell a failure to the jobs it concerns, and forget their other rows."""
    for job in _jobs_of(taken):
        job.todo.clear()
        job.future.get_loop().call_soon_threadsafe(_reject, job.future, error)


def _jobs_of(taken: Taken) -> Sequence[Job]:
    return list({id(job): job for job, _ in taken}.values())


def _resolve(future: asyncio.Future[list[float]], logits: list[float]) -> None:
    if not future.done():
        future.set_result(logits)


def _reject(future: asyncio.Future[list[float]], error: BackendError) -> None:
    if not future.done():
        future.set_exception(error)
