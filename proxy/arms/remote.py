"""A reranking server as an arm: text-embeddings-inference, Infinity, vLLM, Cohere or Jina."""

from __future__ import annotations

import asyncio
import functools
import math
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import structlog

from proxy.arms.base import ArmAnswer, Usage
from proxy.arms.remote_health import RemoteHealth
from proxy.arms.together import together
from proxy.engine.calibration import Calibration
from proxy.engine.model_folder import find_folder
from proxy.engine.pairs import PairEncoder
from proxy.errors import (
    BackendError,
    DeadlineExceeded,
    InvalidAnswer,
    InvalidModel,
    InvalidScores,
    NotReady,
    Overloaded,
    ProxyError,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.settings import RemoteBackend

_log = structlog.get_logger(__name__)

_SIGMOID = Calibration()
_SURE = 1e-9
_FIRST_WAIT_SECONDS = 0.1
_PATIENCE_SECONDS = 2.0
_ROUNDING = 1e-6
"""How far a server's probability may be outside of [0, 1] and still be one."""


class _Api(msgspec.Struct, frozen=True):
    """How one server is asked and answers."""

    path: str
    documents: str = "documents"
    score: str = "relevance_score"
    gives_logits: bool = False
    fixed: dict[str, Any] = {}
    batch: int = 1000


_APIS = {
    "tei": _Api("/rerank", "texts", "score", gives_logits=True, fixed={"raw_scores": True, "truncate": True}, batch=32),
    "infinity": _Api("/rerank", gives_logits=True, fixed={"raw_scores": True, "return_documents": False}),
    "vllm": _Api("/rerank", fixed={"truncate_prompt_tokens": -1}),
    "cohere": _Api("/v2/rerank"),
    "jina": _Api("/v1/rerank", fixed={"return_documents": False}),
}


class RemoteArm:
    """Splits by the server's batch limit, and passes its 429 on or waits it out."""

    def __init__(self, settings: RemoteBackend, transport: httpx.AsyncBaseTransport | None = None) -> None:
        self._settings = settings
        self._api = _APIS[settings.api]
        self._transport = transport
        self._client: httpx.AsyncClient | None = None
        self._encoder: PairEncoder | None = None
        self._tokenizer = ThreadPoolExecutor(1, thread_name_prefix="remote-tokenizer")
        self._health: RemoteHealth | None = None
        self._batch = settings.max_batch_documents or self._api.batch
        self._model = settings.model or settings.api
        self._running = 0

    @property
    def model(self) -> str:
        """The model's name as configured or as the server says, and the server's kind."""
        return f"{self._model}/{self._settings.api}"

    @property
    def is_ready(self) -> bool:
        """Whether the client is there; whether the server answers shows with the first call."""
        return self._client is not None

    @property
    def is_well(self) -> bool:
        """Whether the server was there when it was last asked."""
        return self._client is not None and self._health is not None and self._health.is_up

    @property
    def is_idle(self) -> bool:
        """Whether at least half of the calls that may be under way at once are not."""
        return 2 * self._running < self._settings.concurrency

    async def start(self) -> None:
        """Make the client and ask for the server's health; one that is down may come up later.

        Raises:
            InvalidModel: the tokenizer to cut with cannot be read.

        """
        tokenizer = self._settings.tokenizer or "shipped"
        folder = find_folder(tokenizer)
        if folder is None:
            raise InvalidModel(f"{tokenizer}: is no folder with a tokenizer.json")
        self._encoder = PairEncoder.from_file(folder / "tokenizer.json")
        key = self._settings.api_key
        self._client = httpx.AsyncClient(
            base_url=self._settings.base_url,
            headers={"Authorization": f"Bearer {key.reveal()}"} if key else {},
            timeout=self._settings.timeout_seconds,
            transport=self._transport,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=self._settings.concurrency),
        )
        self._health = RemoteHealth(self._client, self._read_info)
        await self._health.start()

    async def close(self) -> None:
        """Close the connections."""
        if self._health is not None:
            await self._health.close()
        self._tokenizer.shutdown(wait=False)
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    async def _read_info(self) -> None:
        """Ask a TEI server, which is up, for its model and its limits."""
        if self._settings.api != "tei" or self._client is None:
            return
        try:
            info = (await self._client.get("/info", timeout=_PATIENCE_SECONDS)).raise_for_status().json()
            self._model = self._settings.model or str(info["model_id"])
            self._batch = self._settings.max_batch_documents or int(info["max_client_batch_size"])
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as exc:
            url = self._client.base_url  # without what may be a password
            _log.warning("remote.no_info", host=url.host, port=url.port, error=type(exc).__name__, batch=self._batch)

    async def score(
        self,
        query: str,
        documents: Sequence[str],
        *,
        deadline: float,
        max_document_tokens: int | None = None,
        is_fresh: bool = False,
    ) -> ArmAnswer:
        """Score every document, in as many calls as the server's batch limit takes."""
        del is_fresh  # nothing is remembered here
        if self._client is None or self._encoder is None:
            raise NotReady("the remote arm is not started", retry_after_seconds=1)
        if self._running >= self._settings.concurrency:
            raise Overloaded("too many calls to the reranking server are under way", retry_after_seconds=1)
        self._running += 1
        began = time.perf_counter()
        paid: list[float] = []
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                texts, cut = await self._cut(documents, max_document_tokens)
                tokenized = time.perf_counter()
                parts = [texts[i : i + self._batch] for i in range(0, len(texts), self._batch)]
                answers = await together(self._part(query, part, deadline, paid) for part in parts)
        except TimeoutError:
            raise self._failed(DeadlineExceeded("the reranking server did not answer in time"), paid) from None
        except ProxyError as exc:
            raise self._failed(exc, paid) from exc.__cause__
        finally:
            self._running -= 1
        scores = [score for answer in answers for score in answer]
        logits, chances = self._meaning(scores)
        return ArmAnswer(
            logits=logits,
            probabilities=chances,
            model=self.model,
            cost_dollars=sum(paid),
            tokenize_seconds=tokenized - began,
            inference_seconds=time.perf_counter() - tokenized,
            warnings=(f"truncated {cut} document{'s' if cut > 1 else ''} to what the server's model reads",)
            if cut
            else (),
        )

    async def _cut(self, documents: Sequence[str], max_tokens: int | None) -> tuple[Sequence[str], int]:
        """Return the documents as they are sent, and how many lost some: cutting is left to the server if it can be."""
        assert self._encoder is not None
        limits = [max_tokens] if max_tokens else []
        if self._settings.tokenizer is not None:
            limits.append(self._settings.max_document_tokens)
        if not limits or max(map(len, documents), default=0) <= min(limits):  # a token has one character or more
            return documents, 0
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._tokenizer, self._encoder.cut_texts, documents, min(limits))

    async def first_too_long(self, query: str, documents: Sequence[str], *, deadline: float) -> int | None:
        """Return the index of the first document that would be cut, None if all fit."""
        del query
        if self._encoder is None:
            raise NotReady("the remote arm is not started", retry_after_seconds=1)
        find = functools.partial(self._encoder.first_longer, documents, self._settings.max_document_tokens)
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                return await asyncio.get_running_loop().run_in_executor(self._tokenizer, find)
        except TimeoutError:
            raise DeadlineExceeded("the documents could not be counted in time") from None

    def _failed(self, error: ProxyError, paid: Sequence[float]) -> ProxyError:
        """Return the failure of a call with what it cost all the same, and have the server looked at."""
        error.usage = Usage(cost_dollars=sum(paid))
        if self._health is not None and not isinstance(error, Overloaded):
            self._health.doubt()
        return error

    def _meaning(self, scores: Sequence[float]) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return *scores* as logits and as probabilities, whichever of the two the server gives.

        A score that cannot be a probability shows that none of them is one, whatever the API promises.
        """
        if self._api.gives_logits or not all(-_ROUNDING <= score <= 1 + _ROUNDING for score in scores):
            return tuple(scores), tuple(map(_SIGMOID.probability, scores))
        chances = tuple(min(1.0, max(0.0, score)) for score in scores)
        inside = (min(1 - _SURE, max(_SURE, p)) for p in chances)
        return tuple(math.log(p / (1 - p)) for p in inside), chances

    async def _part(self, query: str, texts: Sequence[str], deadline: float, paid: list[float]) -> list[float]:
        """Return the score of each text, waiting out a full server where that is configured."""
        client = self._client
        assert client is not None
        body: dict[str, Any] = {"query": query, self._api.documents: texts, **self._api.fixed}
        if self._settings.model:
            body["model"] = self._settings.model
        content = msgspec.json.encode(body)
        wait = _FIRST_WAIT_SECONDS
        while True:
            try:
                response = await client.post(
                    self._api.path, content=content, headers={"content-type": "application/json"}
                )
            except httpx.TimeoutException as exc:
                raise DeadlineExceeded("the reranking server did not answer in time") from exc
            except httpx.HTTPError as exc:
                raise BackendError("the reranking server cannot be reached") from exc
            if response.status_code != httpx.codes.TOO_MANY_REQUESTS:
                break
            asked_for = _retry_after(response)
            if self._settings.on_overload == "pass":
                raise Overloaded("the reranking server is full", retry_after_seconds=asked_for or 1.0)
            wait = asked_for or wait * 2
            if time.monotonic() + wait >= deadline:
                raise BackendError("the reranking server is full")
            await asyncio.sleep(wait)
        if response.is_error:
            raise BackendError(f"the reranking server answered {response.status_code}")
        paid.append(self._settings.dollars_per_search)
        return self._read(response, len(texts))

    def _read(self, response: httpx.Response, count: int) -> list[float]:
        """Return the scores in the order asked.

        Raises:
            InvalidAnswer: the answer is no ranking of exactly these documents.
            InvalidScores: a score is not finite.

        """
        scores: dict[int, float] = {}
        try:
            answer = response.json()
            results = answer if isinstance(answer, list) else answer["results"]
            for result in results:
                scores[int(result["index"])] = float(result[self._api.score])
        except (ValueError, KeyError, TypeError, OverflowError) as exc:
            raise InvalidAnswer("the reranking server answered what is no ranking") from exc
        if len(results) != count or sorted(scores) != list(range(count)):
            raise InvalidAnswer("the reranking server left out, doubled or invented documents")
        if not all(map(math.isfinite, scores.values())):
            raise InvalidScores("the reranking server's scores are not finite")
        return [scores[i] for i in range(count)]


def _retry_after(response: httpx.Response) -> float | None:
    try:
        return max(0.0, float(response.headers["retry-after"]))
    except (KeyError, ValueError):
        return None
