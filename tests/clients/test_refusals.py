"""Every client raises its own exception for what the proxy refuses, with the proxy's own words where it keeps them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from tests.clients.cases import CASES
from tests.clients.test_rankings import check_ranking
from tests.clients.ways import BLANK, MANY, WAYS, WRONG_KEY
from tests.running import DOCUMENTS, QUERY

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.clients.conftest import Places
    from tests.clients.driving import Driver
    from tests.clients.ways import Way

_WORDS = {
    BLANK: "must not be empty",
    MANY: "1001 documents, at most 1000 are allowed",
    WRONG_KEY: "no valid API key",
}


@pytest.mark.parametrize(
    ("way", "wrong"), [pytest.param(way, wrong, id=f"{way.id}-{wrong}") for way in WAYS for wrong in way.raises]
)
def test_a_client_raises_its_own_exception_with_the_words_of_the_proxy(
    places: Places, driver_of: Callable[[Way], Driver], way: Way, wrong: str
) -> None:
    driver, place = driver_of(way), places.guarded(way)
    served_before = place.proxy.logged("rerank.served")

    answer = driver.ask(
        way,
        url=place.proxy.url,
        key="wrong" if wrong == WRONG_KEY else place.key,
        query=" \t" if wrong == BLANK else QUERY,
        documents=["one"] * 1001 if wrong == MANY else DOCUMENTS,
    )

    assert answer.error is not None, answer.ranks
    assert answer.error.kinds[0] == way.raises[wrong], answer.error
    if not way.hides_message:
        assert _WORDS[wrong] in answer.error.message
    assert place.proxy.logged("rerank.served") == served_before


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.id)
def test_a_client_with_the_right_key_is_served(places: Places, driver_of: Callable[[Way], Driver], way: Way) -> None:
    driver, place = driver_of(way), places.guarded(way)
    answer = driver.ask(way, url=place.proxy.url, key=place.key, query=QUERY, documents=DOCUMENTS)
    assert answer.ranks is not None, answer.error
    check_ranking(answer.ranks, CASES[0], is_raw=way.is_raw)


@pytest.mark.parametrize("client", ["cohere5", "cohere7"])
def test_cohere_s_exception_carries_the_body(places: Places, driver_of: Callable[[Way], Driver], client: str) -> None:
    way = next(way for way in WAYS if way.client == client and way.call == "v2")
    answer = driver_of(way).ask(way, url=places.open.proxy.url, key=places.open.key, query="", documents=DOCUMENTS)
    assert answer.error is not None
    assert answer.error.body["message"] == "query: must not be empty"


def test_dify_accepts_the_proxy_when_the_model_is_added(places: Places, driver_of: Callable[[Way], Driver]) -> None:
    way = next(way for way in WAYS if way.client == "dify")
    adding = msgspec.structs.replace(way, call="validate")
    asked = {"url": places.keyed.proxy.url, "query": "", "documents": ()}
    assert driver_of(way).ask(adding, key=places.keyed.key, **asked).error is None
    refused = driver_of(way).ask(adding, key="wrong", **asked).error
    assert refused is not None
    assert refused.kinds[0] == "CredentialsValidateFailedError"
