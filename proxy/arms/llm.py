"""The control: a language model that scores every document in one call, through the openai SDK."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any, cast

import msgspec
import openai
import structlog
import toktok

from proxy.arms.base import ArmAnswer, Usage
from proxy.arms.llm_prompt import INSTRUCTIONS, Scores, messages, read_scores, response_format, windows
from proxy.arms.together import together
from proxy.engine.calibration import Calibration
from proxy.errors import BackendError, DeadlineExceeded, InvalidAnswer, NotReady, Overloaded, ProxyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from openai.types.chat import ChatCompletion

    from proxy.settings import LlmBackend

_log = structlog.get_logger(__name__)

ENCODING = "o200k_base"
"""Of GPT-4o and later; near enough elsewhere to cut and to plan windows by."""
_TOKENS_AROUND_A_DOCUMENT = 8
_SURE = 0.995
"""A score of 100 as a probability; logits stay finite."""
_KNOWN_CODES = frozenset(
    {
        "account_deactivated",
        "insufficient_quota",
        "invalid_api_key",
        "invalid_organization",
        "model_not_found",
        "unsupported_country_region_territory",
    }
)
"""Error codes that may be logged: some servers quote the request in others."""

NO_STAND_IN = "the stand-in language model answered, not a real one: set OPENAI_API_KEY"


class _Usage(msgspec.Struct, frozen=True):
    """Tokens of one call, whatever came of it."""

    input: int = 0
    cached: int = 0
    output: int = 0


class _Window(msgspec.Struct, frozen=True):
    """One call's answer."""

    documents: range
    scores: Scores


class _Asked(msgspec.Struct, frozen=True):
    """What one request asks, as it is sent, and what that has cost so far."""

    query: str
    documents: list[str]
    tokens: list[int]
    """Of each document."""
    around_tokens: int
    """Of the query and the instructions: of each call again."""
    cut: int
    """Documents that lost some."""
    deadline: float
    spent: list[_Usage]
    """Of the calls that are over; grows."""


class LlmArm:
    """One attempt, one outcome: the SDK's own retries are off and every call has a timeout."""

    def __init__(
        self, settings: LlmBackend, *, stand_in_url: str | None = None, calibration: Calibration | None = None
    ) -> None:
        """Take what the model's scores mean; None: a score of 90 is a probability of 0.9."""
        self._settings = settings
        self.calibration = calibration or Calibration()
        self._is_calibrated = calibration is not None
        self._is_stand_in = stand_in_url is not None
        self._running = 0
        self._client: openai.AsyncOpenAI | None = None
        self._base_url = stand_in_url or settings.base_url
        self._overhead = sum(toktok.batch_count([INSTRUCTIONS], ENCODING)) + 32

    @property
    def model(self) -> str:
        """The model's name, marked where it is the stand-in."""
        return "stand-in-llm" if self._is_stand_in else self._settings.model

    @property
    def is_ready(self) -> bool:
        """Whether the client is there; whether the provider answers shows with the first call."""
        return self._client is not None

    @property
    def is_well(self) -> bool:
        """Whether it is started: asking the provider would cost."""
        return self.is_ready

    @property
    def has_price(self) -> bool:
        """Whether its calls are counted in dollars; the stand-in costs none."""
        return self._is_stand_in or self._settings.model in self._settings.prices

    @property
    def is_idle(self) -> bool:
        """Whether at least half of the calls that may be under way at once are not."""
        return 2 * self._running < self._settings.concurrency

    async def start(self) -> None:
        """Make the client; nothing is called."""
        if not self.has_price:  # and a budget in dollars never trips
            _log.warning("llm.no_price", model=self._settings.model, setting="backends.*.prices")
        key = self._settings.api_key
        self._client = openai.AsyncOpenAI(
            api_key=key.reveal() if key else "none",
            base_url=self._base_url,
            max_retries=0,
            timeout=self._settings.timeout_seconds,
        )

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def score(
        self,
        query: str,
        documents: Sequence[str],
        *,
        deadline: float,
        max_document_tokens: int | None = None,
        is_fresh: bool = False,
    ) -> ArmAnswer:
        """Score every document, in one call or, past the context limit, in overlapping windows."""
        del is_fresh  # nothing is remembered here
        if self._client is None:
            raise NotReady("the language model arm is not started", retry_after_seconds=1)
        if self._running >= self._settings.concurrency:
            raise Overloaded("too many calls to the language model are under way", retry_after_seconds=1)
        self._running += 1
        began = time.perf_counter()
        spent: list[_Usage] = []
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                asked = await asyncio.to_thread(self._cut, query, documents, max_document_tokens, deadline, spent)
                tokenized = time.perf_counter()
                budget = self._settings.max_context_tokens - asked.around_tokens
                plan = windows(asked.tokens, budget, self._settings.window_overlap)
                answers = await together(self._window(asked, part) for part in plan)
        except TimeoutError:
            raise self._charged(DeadlineExceeded("the language model did not answer in time"), spent) from None
        except ProxyError as exc:
            raise self._charged(exc, spent) from exc.__cause__
        finally:
            self._running -= 1
        return self._answer(asked, answers, tokenized - began, time.perf_counter() - tokenized)

    async def first_too_long(self, query: str, documents: Sequence[str], *, deadline: float) -> int | None:
        """Return the index of the first document that would be cut, -1 for the query, None if all fit."""
        try:
            async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                query_tokens, *counts = await asyncio.to_thread(toktok.batch_count, [query, *documents], ENCODING)
        except TimeoutError:
            raise DeadlineExceeded("the documents could not be counted in time") from None
        if query_tokens > self._settings.max_query_tokens:
            return -1
        return next((i for i, count in enumerate(counts) if count > self._settings.max_document_tokens), None)

    def _cut(
        self,
        query: str,
        documents: Sequence[str],
        max_document_tokens: int | None,
        deadline: float,
        spent: list[_Usage],
    ) -> _Asked:
        limit = min(self._settings.max_document_tokens, max_document_tokens or self._settings.max_document_tokens)
        kept_query, query_tokens = toktok.truncate(query, self._settings.max_query_tokens, ENCODING)
        kept = toktok.batch_truncate(documents, limit, ENCODING)
        return _Asked(
            query=kept_query,
            documents=[text for text, _ in kept],
            tokens=[min(tokens, limit) + _TOKENS_AROUND_A_DOCUMENT for _, tokens in kept],
            around_tokens=query_tokens + self._overhead,
            cut=sum(tokens > limit for _, tokens in kept),
            deadline=deadline,
            spent=spent,
        )

    async def _window(self, asked: _Asked, part: range) -> _Window:
        """Return the scores of some documents; what the call took is noted whatever comes of it."""
        texts = [asked.documents[i] for i in part]
        sent = asked.around_tokens + sum(asked.tokens[i] for i in part)
        try:
            completion = await self._complete(asked.query, texts, asked.deadline)
        except (DeadlineExceeded, asyncio.CancelledError):
            asked.spent.append(_Usage(input=sent))  # given up, but sent: the provider has read it by then
            raise
        try:
            asked.spent.append(_usage_of(completion, sent))
            return _Window(part, read_scores(_content(completion), len(texts)))
        except (AttributeError, TypeError) as exc:  # the SDK hands on what it was sent without a look
            raise InvalidAnswer("the language model's server answered what is no completion") from exc

    async def _complete(self, query: str, texts: Sequence[str], deadline: float) -> ChatCompletion:
        assert self._client is not None
        timeout = min(self._settings.timeout_seconds, max(0.001, deadline - time.monotonic()))
        extra: dict[str, Any] = {} if self._settings.seed is None else {"seed": self._settings.seed}
        if self._settings.temperature is not None:
            extra["temperature"] = self._settings.temperature
        try:
            completion: ChatCompletion = await self._client.chat.completions.create(
                model=self._settings.model,
                messages=cast("Any", messages(query, texts)),  # the SDK wants its own TypedDicts
                response_format=cast("Any", response_format(len(texts))),
                timeout=timeout,
                **extra,
            )
        except openai.APITimeoutError as exc:
            raise DeadlineExceeded("the language model did not answer in time") from exc
        except openai.RateLimitError as exc:
            raise BackendError("the language model's rate limit is reached") from exc
        except openai.APIStatusError as exc:
            if exc.status_code in {401, 403, 404}:  # nobody will mend these but a person
                code = exc.code if exc.code in _KNOWN_CODES else None  # some servers quote the request in it
                _log.error("llm.refused", status=exc.status_code, code=code, model=self._settings.model)
            raise BackendError(f"the language model's server answered {exc.status_code}") from exc
        except openai.APIConnectionError as exc:
            raise BackendError("the language model's server cannot be reached") from exc
        except openai.OpenAIError as exc:
            raise InvalidAnswer("the language model's server answered what is no completion") from exc
        return completion

    def _answer(self, asked: _Asked, parts: Sequence[_Window], tokenize_seconds: float, seconds: float) -> ArmAnswer:
        count = len(asked.documents)
        sums, times = [0.0] * count, [0] * count
        for part in parts:
            for i, score in zip(part.documents, part.scores.by_document, strict=True):
                sums[i] += score
                times[i] += 1
        chances = [min(_SURE, max(1 - _SURE, total / n / 100)) for total, n in zip(sums, times, strict=True)]
        warnings = [repair for part in parts for repair in part.scores.repairs]
        if cut := asked.cut:
            warnings.append(f"truncated {cut} document{'s' if cut > 1 else ''} to what the language model is sent")
        if self._is_stand_in:
            warnings.append(NO_STAND_IN)
        usage = self._bill(asked.spent)
        logits = tuple(math.log(p / (1 - p)) for p in chances)
        return ArmAnswer(
            logits=logits,
            probabilities=tuple(map(self.calibration.probability, logits) if self._is_calibrated else chances),
            model=self.model,
            tokens=usage.tokens,
            output_tokens=usage.output_tokens,
            cost_dollars=usage.cost_dollars,
            tokenize_seconds=tokenize_seconds,
            inference_seconds=seconds,
            warnings=tuple(warnings),
        )

    def _charged(self, error: ProxyError, spent: Sequence[_Usage]) -> ProxyError:
        error.usage = self._bill(spent)
        return error

    def _bill(self, spent: Sequence[_Usage]) -> Usage:
        return sum((Usage(one.input, one.output, self._cost(one)) for one in spent), Usage())

    def _cost(self, usage: _Usage) -> float:
        price = self._settings.prices.get(self._settings.model)
        if price is None or self._is_stand_in:
            return 0.0
        cached = price.input if price.cached_input is None else price.cached_input
        fresh = usage.input - usage.cached
        return (fresh * price.input + usage.cached * cached + usage.output * price.output) / 1e6


def _usage_of(completion: ChatCompletion, sent: int) -> _Usage:
    """Return what the server says that a call took; *sent* and a count of the answer where it does not."""
    usage: Any = completion.usage
    told, answered = getattr(usage, "prompt_tokens", None), getattr(usage, "completion_tokens", None)
    if isinstance(told, int) and isinstance(answered, int):
        cached = getattr(usage.prompt_tokens_details, "cached_tokens", None)
        return _Usage(told, cached if isinstance(cached, int) else 0, answered)
    message = completion.choices[0].message if completion.choices else None
    return _Usage(sent, 0, sum(toktok.batch_count([(message.content if message else None) or ""], ENCODING)))


def _content(completion: ChatCompletion) -> str:
    """Return the text of the answer.

    Raises:
        InvalidAnswer: the model refused, was filtered, or was cut off before the end.

    """
    if not completion.choices:
        raise InvalidAnswer("the language model answered nothing")
    choice = completion.choices[0]
    if choice.message.refusal or choice.finish_reason == "content_filter":
        raise InvalidAnswer("the language model refused to score these documents")
    if choice.finish_reason == "length":
        raise InvalidAnswer("the language model's answer was cut off")
    return choice.message.content or ""
