"""What can stand behind an arm, and how each is configured."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, field

from proxy.bounds import Count, Dollars, Pause, Seconds, Section
from proxy.secrets import Secret


class CrossEncoderBackend(Section, frozen=True, tag_field="kind", tag="cross-encoder"):
    """A cross-encoder in this process."""

    model: str = "shipped"
    """``shipped``, a folder, or the name of a sentence-transformers CrossEncoder."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    engine: Literal["auto", "openvino", "stock"] = "auto"
    """How it runs. ``auto``: OpenVINO where the folder holds an IR, else `CrossEncoder.predict`."""
    batch: Count = 16
    """Rows of one batch of the stock engine (the plan's RERANK_BATCH)."""
    batch_tokens: Count = 256
    """Tokens of one batch of the other engines, padding included."""
    threads: Annotated[int, Meta(ge=0)] = 0
    """CPU threads of the model. 0: one per core."""
    max_tokens: Annotated[int, Meta(ge=16)] | None = None
    """Tokens of query and document together. None: what the model was made for."""
    max_query_tokens: Annotated[int, Meta(ge=8)] = 128
    """The query is kept whole up to this; documents get the rest."""
    long_documents: Literal["cut", "windows"] = "cut"
    """Cut at the limit, or score overlapping windows and take the best."""
    queue_documents: Count = 5000
    """Documents waiting for the model before a request is answered 429."""
    cache_entries: Annotated[int, Meta(ge=0)] = 50_000
    """Scores of (query, document) pairs kept in memory. 0: none."""
    machine_dollars_per_hour: Dollars | None = None
    """What the GPU, or the machine, that runs it costs: what reports count a query at. None: not known."""
    trust_remote_code: bool = False


class Price(Section, frozen=True):
    """Dollars a million tokens."""

    input: Dollars
    output: Dollars
    cached_input: Dollars | None = None
    """None: as `input`."""


_GPT_4O_MINI = Price(input=0.15, cached_input=0.075, output=0.60)


class LlmBackend(Section, frozen=True, tag_field="kind", tag="llm"):
    """A language model behind an OpenAI-compatible endpoint."""

    model: str = "gpt-4o-mini"
    base_url: str | None = None
    """None: OpenAI's. Without an API key and without this, the stand-in answers."""
    api_key: Secret | None = None
    timeout_seconds: Seconds = 30.0
    max_context_tokens: Count = 120_000
    """Longer prompts are split into overlapping windows."""
    window_overlap: Annotated[int, Meta(ge=0)] = 2
    """Documents that two neighbouring windows share; their scores are averaged."""
    max_document_tokens: Count = 512
    """Documents are cut at this with the model's own encoding."""
    max_query_tokens: Count = 512
    concurrency: Count = 64
    """Requests in flight before the next is answered 429."""
    prices: dict[str, Price] = field(
        default_factory=lambda: {"gpt-4o-mini": _GPT_4O_MINI, "gpt-4o-mini-2024-07-18": _GPT_4O_MINI}
    )
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = 0.0
    """None: not sent, for models that take none."""
    seed: int | None = 7
    stand_in_delay_seconds: Pause = 1.0
    """Median delay of the stand-in."""


class RemoteBackend(Section, frozen=True, tag_field="kind", tag="remote"):
    """A reranking server as an arm."""

    api: Literal["tei", "infinity", "vllm", "cohere", "jina"]
    base_url: str
    """Without the path: ``/rerank``, ``/v1/rerank`` or ``/v2/rerank`` is added as the API has it."""
    model: str | None = None
    api_key: Secret | None = None
    max_batch_documents: Count | None = None
    """None: what the server says of itself, or its default (TEI: 32)."""
    timeout_seconds: Seconds = 10.0
    on_overload: Literal["pass", "absorb"] = "absorb"
    """A 429 of the server: pass it on to the caller, or wait and try again within the deadline."""
    max_document_tokens: Count = 512
    """What a document may have, where `tokenizer` is set or a request forbids to cut."""
    tokenizer: str | None = None
    """A folder with the ``tokenizer.json`` to cut documents by. None: the server cuts, with its own."""
    concurrency: Count = 64
    dollars_per_search: Dollars = 0.0


Backend = CrossEncoderBackend | LlmBackend | RemoteBackend
