"""The retriever of one process: what finds the passages of ``/v1/search``."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from proxy.errors import InvalidFile, InvalidModel, InvalidSettings, NotReady
from proxy.offline.corpus import Passage

if TYPE_CHECKING:
    from proxy.offline.retrieve import Found, Mode, Retriever
    from proxy.otel import OpenTelemetry
    from proxy.settings import Search as SearchSettings

_log = structlog.get_logger(__name__)

_THREADS = 2


class Outcome(StrEnum):
    """What became of one search."""

    OK = "ok"
    WITHOUT_VECTORS_FAILED = "without_vectors_failed"
    WITHOUT_VECTORS_LATE = "without_vectors_late"
    WITHOUT_VECTORS_BUSY = "without_vectors_busy"
    FAILED = "failed"


_WHY = {
    Outcome.WITHOUT_VECTORS_FAILED: "the bi-encoder failed",
    Outcome.WITHOUT_VECTORS_LATE: "the bi-encoder was late",
    Outcome.WITHOUT_VECTORS_BUSY: "too many searches wait for the bi-encoder",
}


class Hits(msgspec.Struct, frozen=True):
    """What was retrieved."""

    passages: list[Passage]
    """The best first."""
    seconds: float
    warnings: tuple[str, ...] = ()


class SearchEngine:
    """Retrieves in threads; where the bi-encoder cannot, or not in time, by BM25 alone."""

    def __init__(self, settings: SearchSettings, telemetry: OpenTelemetry) -> None:
        self._settings = settings
        self._retriever: Retriever | None = None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="search")
        self._waiting = 0
        meter = telemetry.meters.get_meter("rerank-canary")
        self._searches = meter.create_counter("rerank.searches", "{search}", "Searches by what became of them")
        self._duration = meter.create_histogram("rerank.search.duration", "s", "Retrieving, before anybody ranks")

    async def start(self) -> None:
        """Open the index and load its model.

        Raises:
            InvalidSettings: that is not possible, or the corpus has changed under the index.

        """
        self._retriever = await asyncio.to_thread(self._load)

    def _load(self) -> Retriever:
        from proxy.offline.retrieve import Retriever  # noqa: PLC0415 - numpy and a model, only where it is configured

        settings = self._settings
        assert settings.index is not None  # or there would be no engine
        try:
            retriever = Retriever.load(settings.index, model=settings.model, device=settings.device)
            retriever.search("the first query takes longest", 1)
        except (InvalidFile, InvalidModel) as exc:
            raise InvalidSettings(f"$.search: {exc}") from exc
        except (RuntimeError, ValueError) as exc:
            reason = (str(exc).splitlines() or [repr(exc)])[0]
            raise InvalidSettings(f"$.search: the bi-encoder of {settings.index} fails: {reason}") from exc
        return retriever

    async def find(self, query: str) -> Hits:
        """Return the passages for a query.

        Raises:
            NotReady: nothing could be retrieved.

        """
        began = time.perf_counter()
        outcome, found = await self._find(query)
        seconds = time.perf_counter() - began
        self._searches.add(1, {"rerank.search.outcome": outcome.value})
        self._duration.record(seconds, {"rerank.search.outcome": outcome.value})
        if found is None:
            raise NotReady("nothing could be retrieved", retry_after_seconds=1)
        warnings = (f"retrieved by BM25 alone: {_WHY[outcome]}",) if outcome in _WHY else ()
        return Hits([each.passage for each in found], seconds, warnings)

    async def _find(self, query: str) -> tuple[Outcome, list[Found] | None]:
        retriever = self._retriever
        if retriever is None:
            return Outcome.FAILED, None
        outcome, found = Outcome.OK, None
        if retriever.modes != ("bm25",):
            outcome, found = await self._by_vectors(query, retriever)
        try:
            return outcome, found or await asyncio.to_thread(self._search, retriever, query, "bm25")
        except Exception as exc:  # noqa: BLE001 - whatever the files do, the caller is told, and the log says why
            _log.error("search.failed", error=type(exc).__name__)
            return Outcome.FAILED, None

    async def _by_vectors(self, query: str, retriever: Retriever) -> tuple[Outcome, list[Found] | None]:
        if self._waiting >= self._settings.max_waiting:
            return Outcome.WITHOUT_VECTORS_BUSY, None
        self._waiting += 1
        work = asyncio.get_running_loop().run_in_executor(self._threads, self._search, retriever, query, "hybrid")
        work.add_done_callback(self._done)
        await asyncio.wait({work}, timeout=self._settings.timeout_seconds)  # what is late goes on, and is waited for
        if not work.done():
            return Outcome.WITHOUT_VECTORS_LATE, None
        if error := work.exception():
            _log.warning("search.vectors_failed", error=type(error).__name__)
            return Outcome.WITHOUT_VECTORS_FAILED, None
        return Outcome.OK, work.result()

    def _done(self, work: asyncio.Future[Any]) -> None:
        self._waiting -= 1
        if not work.cancelled():
            work.exception()  # asked, or the loop complains of it

    def _search(self, retriever: Retriever, query: str, mode: Mode) -> list[Found]:
        return retriever.search(query, self._settings.top_k, mode)

    def status(self) -> dict[str, Any]:
        """Return what an operator asks first."""
        manifest = self._retriever.manifest if self._retriever else None
        dense = manifest.dense if manifest else None
        return {
            "index": str(self._settings.index),
            "passages": manifest.passages if manifest else None,
            "corpus_checksum": manifest.stamp.checksum if manifest else None,
            "model": dense.model if dense else None,
            "revision": dense.revision if dense else None,
            "waiting": self._waiting,
        }

    async def close(self) -> None:
        """Let go of the threads; what is under way ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)
