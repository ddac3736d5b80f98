"""Every client gets every ranking that a reranker of its own would give it, whichever arm answers."""

from __future__ import annotations

import math
from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

import pytest

from flags.bucketing import bucket
from proxy.identity import identify
from proxy.settings import Identity
from tests.clients.cases import CASES, OBJECTS
from tests.clients.conftest import SHARE_PERCENT
from tests.clients.ways import WAYS
from tests.running import user_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.clients.cases import Case
    from tests.clients.conftest import Places
    from tests.clients.driving import Driver, Rank
    from tests.clients.ways import Way

_ASKED = [
    pytest.param(way, case, id=f"{way.id}-{case.id}")
    for way in WAYS
    for case in (*CASES, *([OBJECTS] if way.takes_objects else []))
]


def query_of(arm: str, query: str, key: str) -> str:
    """Return *query*, with as many spaces after it as make the split give its caller to *arm*."""
    for spaces in count():
        padded = query + " " * spaces
        who = identify(Identity(), {}, {}, query=padded, api_key=key, remote_address=None)
        if (bucket("rerank-canary", str(who.context.user_id)) <= SHARE_PERCENT) == (arm == "candidate"):
            return padded
    raise AssertionError


@pytest.mark.parametrize("arm", ["control", "candidate"])
@pytest.mark.parametrize(("way", "case"), _ASKED)
def test_a_client_gets_the_whole_ranking_in_order_from_the_arm_of_its_user(
    places: Places, driver_of: Callable[[Way], Driver], way: Way, case: Case, arm: str
) -> None:
    driver, place = driver_of(way), places.usual(way)
    served_before = len(place.proxy.logged("rerank.served"))

    answer = driver.ask(
        way,
        url=place.proxy.url,
        key=place.key,
        query=query_of(arm, case.query, place.key) if way.user_source == "query" else case.query,
        documents=case.documents,
        top_n=case.top_n,
        user=None if way.user_source == "query" else user_of(arm, SHARE_PERCENT),
        send_nulls=case.send_nulls,
    )

    assert answer.error is None, answer.error
    assert answer.ranks is not None
    check_ranking(answer.ranks, case, is_raw=way.is_raw)
    assert [one.document for one in answer.ranks] == [returned(way, case, one.index) for one in answer.ranks]
    served = place.proxy.logged("rerank.served")[served_before:]
    assert len(served) == requests_of(way, case)
    for line in served:
        assert (line["arm"], line["served_by"]) == (arm, arm), line
        assert line["outcome"] in {"ok", "low_score"}, line  # nothing falls back here: max_share is 0
        assert (line["dialect"], line["user_source"]) == (way.dialect, way.user_source)


def check_ranking(ranks: list[Rank], case: Case, *, is_raw: bool = False) -> None:
    """Pass what may come back for *case*: each document once, the right one first, scores that fall."""
    order = [one.index for one in ranks]
    scores = [one.score for one in ranks]
    assert len(order) == case.results
    assert len(set(order)) == len(order)
    assert set(order) <= set(range(len(case.documents)))
    assert order[:1] == ([] if case.best is None else [case.best])
    assert all(map(math.isfinite, scores))
    if is_raw:
        assert all(above >= below for above, below in pairwise(scores))
    else:
        assert all(0 <= score <= 1 for score in scores)
        assert all(above > below for above, below in pairwise(scores)), scores
    if case.blank:
        assert set(order[-len(case.blank) :]) == case.blank
    for places_of_one in case.equal:
        assert [index for index in order if index in places_of_one] == list(places_of_one)


def returned(way: Way, case: Case, index: int) -> Any:
    """Return the document that *way* must hand back for a place in *case*; None: none."""
    if way.documents == "not":
        return None
    if way.documents == "text":
        return case.text(index)
    if not (case.text(index) or way.keeps_empty):
        return None
    return case.documents[index] if case.are_objects and way.keeps_fields else {"text": case.text(index)}


def requests_of(way: Way, case: Case) -> int:
    """Return how many requests *way* makes for *case*, retries being none of them."""
    if not case.documents:
        return int(way.asks_for_none)
    return math.ceil(len(case.documents) / way.batch)
