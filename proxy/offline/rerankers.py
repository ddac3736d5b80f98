"""What the benchmark compares, by the plan's names, each behind one port."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

import msgspec

from proxy.arms.cross_encoder import CrossEncoderArm
from proxy.arms.llm import LlmArm
from proxy.arms.remote import RemoteArm
from proxy.backends import CrossEncoderBackend, LlmBackend
from proxy.errors import ProxyError
from proxy.offline.lexical import Bm25
from proxy.ranking import check_scores, distinct, rank
from proxy.stand_in import StandIn

if TYPE_CHECKING:
    from proxy.arms.base import Arm, ArmAnswer
    from proxy.engine.calibration import Calibration
    from proxy.offline.judged import Judged
    from proxy.settings import Backend, Settings

NAMES = ("crossencoder", "legacy", "bm25", "none")


class Ranked(msgspec.Struct, frozen=True, kw_only=True):
    """What one query came to."""

    order: list[int]
    """Places of the candidates, best first, each once."""
    logits: list[float] = []
    """Raw scores in the order of the candidates; empty where there are none."""
    seconds: float = 0.0
    """As a caller waits for it, without HTTP."""
    model_seconds: float = 0.0
    """Of these, what tokenising and the model took."""
    tokens: int = 0
    output_tokens: int = 0
    dollars: float | None = 0.0
    """What the call is billed; None: it is not known."""
    error: str | None = None
    """Why the order is the one received."""


class Reranker(Protocol):
    """Ranks the candidates of judged queries."""

    name: str
    stand_in: str | None
    """What of its figures is not the real thing, in words."""
    machine_dollars_per_hour: float | None
    """What the machine it keeps busy costs; None: it is billed by the call, or not known."""

    @property
    def model(self) -> str:
        """Model, revision and engine."""

    async def start(self) -> None:
        """Load what ranking needs, and be warm.

        Raises:
            InvalidModel: it can never rank as configured.

        """

    async def rank(self, query_id: str) -> Ranked:
        """Rank the candidates of a query of the collection."""

    async def close(self) -> None:
        """Give back what is held."""


class ArmReranker:
    """An arm as the proxy builds it, but for the memory of scores seen before."""

    machine_dollars_per_hour: float | None = None
    stand_in: str | None = None

    def __init__(self, name: str, backend: Backend, judged: Judged, settings: Settings) -> None:
        self.name = name
        self._calibrations = settings.calibrations
        self._judged = judged
        self._deadline_seconds = settings.deadline.total_seconds
        self._backend = backend
        self._server: StandIn | None = None
        self._arm = self._make(backend)

    def _make(self, backend: Backend) -> Arm:
        if isinstance(backend, CrossEncoderBackend):
            self.machine_dollars_per_hour = backend.machine_dollars_per_hour
            unremembered = msgspec.structs.replace(backend, cache_entries=0)
            return CrossEncoderArm(unremembered, calibrations=self._calibrations)
        if not isinstance(backend, LlmBackend):
            return RemoteArm(backend)
        if backend.api_key or backend.base_url:
            return LlmArm(backend, calibration=self._calibrations.get(backend.model))
        self._server = StandIn(backend.stand_in_delay_seconds)
        self.stand_in = (
            f"a stand-in answered for {backend.model} (no OPENAI_API_KEY): it ranks by BM25 and waits "
            f"{backend.stand_in_delay_seconds:g} s by configuration; its tokens are counted, and priced as "
            f"{backend.model}'s"
        )
        return LlmArm(backend, stand_in_url=self._server.url)

    @property
    def calibration(self) -> Calibration | None:
        """What its scores are taken to mean, once it has started; None: it brings probabilities of its own."""
        if isinstance(self._arm, CrossEncoderArm):
            return self._arm.loaded.calibration
        return self._arm.calibration if isinstance(self._arm, LlmArm) else None

    @property
    def model(self) -> str:
        """Model, revision and engine."""
        return self._arm.model

    async def start(self) -> None:
        """Load; a model of this process is shown one query more than is counted."""
        if self._server is not None:
            await self._server.start()
        await self._arm.start()
        if isinstance(self._arm, CrossEncoderArm):
            await self.rank(next(iter(self._judged.candidates)))

    async def rank(self, query_id: str) -> Ranked:
        """Rank as the service does: blank texts are not shown, equal ones once; after a failure as received."""
        documents = self._judged.texts(query_id)
        began = time.perf_counter()
        shown = distinct(documents)
        if not shown.texts:
            return Ranked(order=list(range(len(documents))))
        try:
            answer = await self._arm.score(
                self._judged.queries[query_id], shown.texts, deadline=time.monotonic() + self._deadline_seconds
            )
            check_scores(answer, len(shown.texts))
        except ProxyError as exc:
            usage = exc.usage
            return Ranked(
                order=list(range(len(documents))),
                seconds=time.perf_counter() - began,
                tokens=usage.tokens if usage else 0,
                output_tokens=usage.output_tokens if usage else 0,
                dollars=usage.cost_dollars if usage else 0.0,
                error=f"{exc.code}: {exc.message}",
            )
        ranked = rank(shown, answer.logits, answer.probabilities)
        seconds = time.perf_counter() - began
        logits = {found.index: found.logit for found in ranked}
        return Ranked(
            order=[found.index for found in ranked],
            logits=[logits[i] for i in range(len(documents))],
            seconds=seconds,
            model_seconds=answer.tokenize_seconds + answer.queue_seconds + answer.inference_seconds,
            tokens=answer.tokens,
            output_tokens=answer.output_tokens,
            dollars=self._dollars(answer),
        )

    def _dollars(self, answer: ArmAnswer) -> float | None:
        backend = self._backend
        if not isinstance(backend, LlmBackend):
            return answer.cost_dollars
        price = backend.prices.get(backend.model)
        if price is None:
            return None
        if self.stand_in is None:
            return answer.cost_dollars
        return (answer.tokens * price.input + answer.output_tokens * price.output) / 1e6

    async def close(self) -> None:
        """Close the arm and its stand-in."""
        await self._arm.close()
        if self._server is not None:
            await self._server.close()


class Bm25Reranker:
    """BM25, its rare words weighed over the whole collection."""

    name = model = "bm25"
    stand_in: str | None = None
    machine_dollars_per_hour: float | None = None

    def __init__(self, judged: Judged) -> None:
        self._judged = judged

    async def start(self) -> None:
        """Index the collection."""
        self._index = Bm25(self._judged.documents)

    async def rank(self, query_id: str) -> Ranked:
        """Rank by score, ties as received."""
        began = time.perf_counter()
        scores = self._index.scores(self._judged.queries[query_id], self._judged.candidates[query_id])
        order = sorted(range(len(scores)), key=lambda place: -scores[place])
        seconds = time.perf_counter() - began
        return Ranked(order=order, logits=scores, seconds=seconds, model_seconds=seconds)

    async def close(self) -> None:
        """Nothing is held."""


class AsReceived:
    """The retriever's order."""

    name = "none"
    model = "the order received"
    stand_in: str | None = None
    machine_dollars_per_hour: float | None = None

    def __init__(self, judged: Judged) -> None:
        self._judged = judged

    async def start(self) -> None:
        """Nothing to load."""

    async def rank(self, query_id: str) -> Ranked:
        """Return it."""
        return Ranked(order=list(range(len(self._judged.candidates[query_id]))))

    async def close(self) -> None:
        """Nothing is held."""


def make_reranker(name: str, settings: Settings, judged: Judged) -> Reranker:
    """Return one of `NAMES`: `crossencoder` is the candidate of the configuration, `legacy` its control."""
    match name:
        case "bm25":
            return Bm25Reranker(judged)
        case "none":
            return AsReceived(judged)
        case "legacy":
            role = settings.arms.control
        case _:
            role = settings.arms.candidate
    return ArmReranker(name, settings.backend(role), judged, settings)


def concurrency_of(name: str, settings: Settings, asked: int, to_llm: int) -> int:
    """Return how many queries are under way at once: calls to a language model do not slow each other down."""
    is_llm = name == "legacy" and isinstance(settings.backend(settings.arms.control), LlmBackend)
    return max(asked, to_llm) if is_llm else asked
