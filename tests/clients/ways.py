"""Every way to call that is tested, and what each client makes of an answer."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

BLANK, MANY, WRONG_KEY = "blank_query", "too_many_documents", "wrong_key"


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One call of one client."""

    client: str
    """Its environment, and its list of requirements."""
    driver: str
    call: str
    dialect: str
    """What the proxy must take it for."""
    raises: dict[str, str]
    """What it raises, by what is wrong."""
    hides_message: bool = False
    """Whether it keeps what the proxy said to itself."""
    user_source: str = "header:X-User-Id"
    """What names its user. `query`: it can send no header, and is split by key and query."""
    asks_for_none: bool = True
    """Whether it sends an empty list at all."""
    documents: Literal["not", "text", "object"] = "not"
    """How it returns documents."""
    takes_objects: bool = False
    """Whether documents may be objects."""
    keeps_fields: bool = True
    """Whether it returns what an object holds besides its text."""
    keeps_empty: bool = True
    """Whether it returns documents without text."""
    batch: int = 10_000
    """Documents that it sends in one request."""
    is_raw: bool = False
    """Whether its scores are raw logits, which may tie and leave [0, 1]."""
    needs_switch: bool = False
    """Whether the server must be told of it: its requests look like another's, its answers must not."""

    @property
    def id(self) -> str:
        """Return a name for reports."""
        return f"{self.client}-{self.call}"


def _raises(blank: str, many: str, wrong_key: str) -> dict[str, str]:
    return {BLANK: blank, MANY: many, WRONG_KEY: wrong_key}


def _ways(calls: dict[str, str], **common: Any) -> list[Way]:
    return [Way(call=call, dialect=dialect, **common) for call, dialect in calls.items()]


_COHERE = _raises("BadRequestError", "UnprocessableEntityError", "UnauthorizedError")
_VOYAGE = _raises("InvalidRequestError", "MalformedRequestError", "AuthenticationError")
_LITELLM = _raises("BadRequestError", "BadRequestError", "AuthenticationError")
_LITELLM_TEI = _raises("APIError", "APIError", "AuthenticationError")


def _cohere_sdk(client: str) -> list[Way]:
    common: dict[str, Any] = {"client": client, "driver": "cohere", "raises": _COHERE, "takes_objects": True}
    return [
        *_ways({"v1": "cohere-v1", "v1-async": "cohere-v1"}, documents="object", **common),
        *_ways({"v2": "cohere-v2", "v2-async": "cohere-v2", "v2-under-v1": "cohere-v2"}, **common),
    ]


def _langchain_cohere() -> list[Way]:
    common: dict[str, Any] = {
        "client": "langchain_cohere",
        "driver": "langchain_cohere",
        "raises": _COHERE,
        "user_source": "query",
        "asks_for_none": False,
    }
    return [
        *_ways({"rerank": "cohere-v2"}, **common),
        *_ways({"compress": "cohere-v2", "compress-async": "cohere-v2"}, documents="text", **common),
    ]


def _llama_index() -> list[Way]:
    common: dict[str, Any] = {
        "client": "llama_index",
        "driver": "llama_index",
        "user_source": "query",
        "asks_for_none": False,
        "documents": "text",
    }
    runtime, assertion = _raises(*["RuntimeError"] * 3), _raises(*["AssertionError"] * 3)
    return [
        *_ways({"cohere": "cohere-v2"}, raises=_COHERE, **common),
        *_ways({"jina": "jina"}, raises=runtime, **common),
        *_ways({"tei": "tei"}, raises=assertion, hides_message=True, **common),
        *_ways({"voyage": "voyage"}, raises=_VOYAGE, **common),
    ]


def _litellm() -> list[Way]:
    bare: dict[str, Any] = {"client": "litellm", "driver": "litellm"}
    common = bare | {"documents": "object", "keeps_fields": False}
    plain = {
        "cohere": "cohere-v2",
        "cohere-async": "cohere-v2",
        "cohere-v1": "jina",  # without the SDK's headers the two cannot be told apart, nor need be
        "hosted_vllm": "jina",
        "hosted_vllm-v1": "jina",
    }
    return [
        *_ways(plain, raises=_LITELLM, takes_objects=True, **common),
        # without documents: a null in their place would be an error
        *_ways(
            {"cohere-bare": "cohere-v2", "hosted_vllm-bare": "jina", "infinity-bare": "jina"}, raises=_LITELLM, **bare
        ),
        *_ways({"jina_ai": "jina"}, raises=_LITELLM, takes_objects=True, user_source="query", **common),
        *_ways({"huggingface": "tei"}, raises=_LITELLM_TEI, **common),
        *_ways({"nvidia_nim": "nim"}, raises=_LITELLM, is_raw=True, **common),
        # the same request as hosted_vllm's, to the byte, but the document must be a string
        *_ways({"infinity": "jina"}, raises=_LITELLM, needs_switch=True, keeps_empty=False, **common),
        # without a top_n there is no sign of Voyage in its request
        *_ways({"voyage": "voyage"}, raises=_LITELLM, needs_switch=True, user_source="query", **common),
    ]


WAYS = (
    *_cohere_sdk("cohere5"),
    *_cohere_sdk("cohere7"),
    *_langchain_cohere(),
    *_llama_index(),
    *_litellm(),
    *_ways(
        {"sync": "voyage", "async": "voyage"},
        client="voyageai",
        driver="voyageai",
        raises=_VOYAGE,
        user_source="query",
        documents="text",
    ),
    *_ways(
        {"invoke": "jina"},
        client="dify",
        driver="dify",
        raises=_raises(*["InvokeError"] * 3),
        hides_message=True,
        user_source="query",
        asks_for_none=False,
        documents="text",
    ),
    *_ways(
        {"predict": "jina"},
        client="open_webui",
        driver="open_webui",
        raises=_raises(*["LookupError"] * 3),
        hides_message=True,
        user_source="header:X-OpenWebUI-User-Id",
        asks_for_none=False,
    ),
    *_ways(
        {"sync": "nim", "async": "nim"},
        client="nvidia",
        driver="nvidia",
        raises={BLANK: "Exception", WRONG_KEY: "Exception"},  # too many documents it sends in batches
        asks_for_none=False,
        documents="text",
        batch=32,
        is_raw=True,
    ),
)
