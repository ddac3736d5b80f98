"""The batcher, around an engine that tests own."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from proxy.engine.batcher import Batcher
from proxy.engine.pairs import PairLimits
from proxy.errors import BackendError, DeadlineExceeded, NotReady, Overloaded
from tests.unit.test_pairs import ENCODER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from proxy.engine.base import Logits
    from proxy.engine.pairs import TokenPair


class SumEngine:
    """Scores a row by the sum of its token ids, when the gate is open."""

    name = "sum"
    precision = "float64"
    limits = PairLimits(64, 16)
    batch_tokens = 256

    def __init__(self) -> None:
        self.encoder = ENCODER
        self.gate = threading.Event()
        self.gate.set()
        self.rounds: list[list[int]] = []
        self.rows = 0
        self.seen: list[list[list[int]]] = []
        self.fault: Exception | None = None

    def score(self, batches: Sequence[Sequence[TokenPair]]) -> list[Logits]:
        self.gate.wait(10)
        self.rounds.append([len(batch) for batch in batches])
        self.rows += sum(map(len, batches))
        self.seen.append([row.ids for batch in batches for row in batch])
        if self.fault:
            raise self.fault
        return [np.array([float(sum(row.ids)) for row in batch]) for batch in batches]

    def close(self) -> None:
        """Nothing to give back."""


@pytest.fixture
async def engine() -> SumEngine:
    return SumEngine()


@pytest.fixture
async def batcher(engine: SumEngine) -> AsyncIterator[Batcher]:
    made = Batcher(engine, queue_documents=200)
    yield made
    engine.gate.set()
    await made.close()


def soon(seconds: float = 5.0) -> float:
    return time.monotonic() + seconds


def expected(query: str, documents: list[str]) -> list[float]:
    return [float(sum(row.ids)) for row in ENCODER.encode(query, documents, SumEngine.limits).rows]


async def test_scores_come_back_in_the_order_of_the_documents(batcher: Batcher) -> None:
    documents = ["tree " * (i % 13 + 1) for i in range(60)]
    scored = await batcher.score("q", documents, deadline=soon())
    assert scored.logits == expected("q", documents)
    assert scored.tokens == [len(r) for r in ENCODER.encode("q", documents, SumEngine.limits).rows]


async def test_requests_of_many_callers_share_a_round(batcher: Batcher, engine: SumEngine) -> None:
    engine.gate.clear()
    first = asyncio.create_task(batcher.score("first", ["a"], deadline=soon()))
    await asyncio.sleep(0.05)
    others = [asyncio.create_task(batcher.score(f"q{i}", ["a", "b"], deadline=soon())) for i in range(10)]
    await asyncio.sleep(0.1)
    engine.gate.set()
    answers = await asyncio.gather(first, *others)
    assert len(engine.rounds) == 2
    assert [answer.logits for answer in answers[1:]] == [expected(f"q{i}", ["a", "b"]) for i in range(10)]


async def test_a_large_request_does_not_keep_a_small_one_waiting(batcher: Batcher, engine: SumEngine) -> None:
    engine.gate.clear()
    large = asyncio.create_task(batcher.score("large", [f"tree {i}" for i in range(150)], deadline=soon()))
    await asyncio.sleep(0.05)
    small = asyncio.create_task(batcher.score("small", ["a"], deadline=soon()))
    await asyncio.sleep(0.05)
    engine.gate.set()
    await asyncio.gather(large, small)
    wanted = ENCODER.encode("small", ["a"], engine.limits).rows[0].ids
    assert [wanted in seen for seen in engine.seen] == [False, True, False]


async def test_one_request_larger_than_a_batch_is_split(batcher: Batcher, engine: SumEngine) -> None:
    await batcher.score("q", ["tree " * 40 + str(i) for i in range(30)], deadline=soon())
    assert sum(map(sum, engine.rounds)) == 30
    assert max(map(max, engine.rounds)) <= 256 // 40


async def test_equal_pairs_of_several_callers_are_scored_once(batcher: Batcher, engine: SumEngine) -> None:
    engine.gate.clear()
    first = asyncio.create_task(batcher.score("first", ["a"], deadline=soon()))
    await asyncio.sleep(0.05)
    same = [asyncio.create_task(batcher.score("same", ["x", "y"], deadline=soon())) for _ in range(5)]
    await asyncio.sleep(0.1)
    engine.gate.set()
    answers = await asyncio.gather(first, *same)
    assert engine.rows == 3
    assert all(answer.logits == expected("same", ["x", "y"]) for answer in answers[1:])


async def test_a_full_queue_is_refused_with_the_time_to_wait(batcher: Batcher, engine: SumEngine) -> None:
    engine.gate.clear()
    waiting = asyncio.create_task(batcher.score("q", ["a"] * 150, deadline=soon()))
    await asyncio.sleep(0.05)
    with pytest.raises(Overloaded) as caught:
        await batcher.score("q", ["a"] * 51, deadline=soon())
    assert (caught.value.retry_after_seconds or 0) >= 1
    engine.gate.set()
    await waiting
    assert batcher.waiting == 0


async def test_one_request_over_the_whole_queue_is_served_when_nobody_waits(batcher: Batcher) -> None:
    assert len((await batcher.score("q", ["a"] * 250, deadline=soon())).logits) == 250


async def test_a_deadline_ends_the_waiting_and_drops_the_work(batcher: Batcher, engine: SumEngine) -> None:
    engine.gate.clear()
    first = asyncio.create_task(batcher.score("first", ["a"], deadline=soon()))
    await asyncio.sleep(0.05)
    with pytest.raises(DeadlineExceeded):
        await batcher.score("late", ["b"] * 20, deadline=soon(0.1))
    engine.gate.set()
    await first
    await batcher.score("next", ["c"], deadline=soon())
    assert engine.rows == 2
    assert batcher.waiting == 0


async def test_a_caller_who_is_gone_is_dropped_from_the_queue(batcher: Batcher, engine: SumEngine) -> None:
    engine.gate.clear()
    first = asyncio.create_task(batcher.score("first", ["a"], deadline=soon()))
    await asyncio.sleep(0.05)
    gone = asyncio.create_task(batcher.score("gone", ["b"] * 20, deadline=soon()))
    await asyncio.sleep(0.05)
    gone.cancel()
    engine.gate.set()
    await first
    await batcher.score("next", ["c"], deadline=soon())
    assert engine.rows == 2


@pytest.mark.parametrize("fault", [BackendError("no"), RuntimeError("secret text")], ids=["known", "foreign"])
async def test_a_failure_is_told_to_those_it_concerns_and_the_worker_lives_on(
    batcher: Batcher, engine: SumEngine, fault: Exception
) -> None:
    engine.fault = fault
    with pytest.raises(BackendError) as caught:
        await batcher.score("q", ["a"] * 100, deadline=soon())
    assert "secret" not in str(caught.value)
    engine.fault = None
    assert (await batcher.score("q", ["a"], deadline=soon())).logits == expected("q", ["a"])


async def test_a_score_that_is_not_finite_is_passed_on_as_it_is(batcher: Batcher, engine: SumEngine) -> None:
    engine.score = lambda batches: [np.full(len(b), np.nan) for b in batches]  # type: ignore[method-assign]
    assert math.isnan((await batcher.score("q", ["a"], deadline=soon())).logits[0])


async def test_the_best_window_of_a_document_is_its_score(engine: SumEngine) -> None:
    engine.limits = PairLimits(24, 8, windows=True)
    batcher = Batcher(engine, queue_documents=100)
    words = " ".join(f"w{i}" for i in range(60))
    scored = await batcher.score("q", [words, "b"], deadline=soon())
    rows = ENCODER.encode("q", [words, "b"], engine.limits)
    assert len(rows.rows) > 3
    assert scored.logits[0] == max(float(sum(row.ids)) for row in rows.rows[:-1])
    await batcher.close()


async def test_closing_finishes_what_waits_and_refuses_what_comes(engine: SumEngine) -> None:
    batcher = Batcher(engine, queue_documents=100)
    running = asyncio.create_task(batcher.score("q", ["a"], deadline=soon()))
    await asyncio.sleep(0.05)
    await batcher.close()
    assert (await running).logits == expected("q", ["a"])
    with pytest.raises(NotReady):
        await batcher.score("q", ["a"], deadline=soon())


async def test_windows_take_as_much_of_the_queue_as_they_are_rows(engine: SumEngine) -> None:
    engine.limits = PairLimits(24, 8, windows=True)
    batcher = Batcher(engine, queue_documents=20)
    long = " ".join(f"w{i}" for i in range(500))
    engine.gate.clear()
    first = asyncio.create_task(batcher.score("first", ["a"], deadline=soon()))
    await asyncio.sleep(0.05)
    with pytest.raises(Overloaded):
        await batcher.score("q", [long], deadline=soon())
    assert batcher.waiting == 1
    engine.gate.set()
    await first
    scored = await batcher.score("q", [long, "b"], deadline=soon())
    assert scored.tokens[0] > 500
    assert batcher.waiting == 0
    await batcher.close()


async def test_what_would_be_cut_is_told_within_the_deadline_and_the_queue(batcher: Batcher, engine: SumEngine) -> None:
    assert await batcher.first_too_long("q", ["a", "tree " * 90], deadline=soon()) == 1
    with pytest.raises(DeadlineExceeded):
        await batcher.first_too_long("q", ["a"], deadline=soon(-1))
    engine.gate.clear()
    waiting = asyncio.create_task(batcher.score("q", ["a"] * 150, deadline=soon()))
    await asyncio.sleep(0.05)
    with pytest.raises(Overloaded):
        await batcher.first_too_long("q", ["a"] * 51, deadline=soon())
    engine.gate.set()
    await waiting


async def test_a_model_that_sits_on_one_round_is_not_well(engine: SumEngine) -> None:
    batcher = Batcher(engine, queue_documents=20, stuck_seconds=0.05)
    engine.gate.clear()
    stuck = asyncio.create_task(batcher.score("q", ["a"], deadline=soon()))
    await asyncio.sleep(0.2)
    seen = [batcher.is_well]
    engine.gate.set()
    await stuck
    assert [*seen, batcher.is_well] == [False, True]
    await batcher.close()


async def test_a_model_that_fails_on_the_plainest_pair_is_not_well_until_it_answers_again(
    batcher: Batcher, engine: SumEngine
) -> None:
    engine.fault = RuntimeError("device lost")
    with pytest.raises(BackendError):
        await batcher.score("q", ["a"], deadline=soon())
    await until(lambda: not batcher.is_well)
    engine.fault = None
    await batcher.score("q", ["a"], deadline=soon())
    await until(lambda: batcher.is_well)


async def test_a_request_that_the_model_fails_on_says_nothing_of_the_model(batcher: Batcher, engine: SumEngine) -> None:
    score = engine.score

    def choke(batches: Sequence[Sequence[TokenPair]]) -> list[Logits]:
        if max(len(row) for batch in batches for row in batch) > 30:
            raise RuntimeError("out of memory")
        return score(batches)

    engine.score = choke  # type: ignore[method-assign]
    with pytest.raises(BackendError):
        await batcher.score("q", ["tree " * 40], deadline=soon())
    await until(lambda: engine.rows == 1)
    assert batcher.is_well


async def test_a_model_that_failed_is_asked_again_when_nobody_asks(
    monkeypatch: pytest.MonkeyPatch, batcher: Batcher, engine: SumEngine
) -> None:
    monkeypatch.setattr("proxy.engine.batcher._PROBE_SECONDS", 0.02)
    engine.fault = RuntimeError("device lost")
    with pytest.raises(BackendError):
        await batcher.score("q", ["a"], deadline=soon())
    await until(lambda: not batcher.is_well)
    engine.fault = None
    await until(lambda: batcher.is_well)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - the model's thread has nothing to tell us by
            await asyncio.sleep(0.005)
