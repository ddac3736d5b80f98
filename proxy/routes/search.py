"""Retrieves passages and ranks them, on the data plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from proxy.routes.data import Entry, count_tokens, off_loop, ranked, route_of
from proxy.wire.limits import check_limits
from proxy.wire.search import SearchDialect

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler

    from proxy.offline.corpus import Passage
    from proxy.service import Caller
    from proxy.wire.canonical import RerankCall

SEARCH_PATH = "/v1/search"
_SEARCH = SearchDialect()


async def _search(entry: Entry, body: bytes) -> object:
    """Answer one search: from here on it is a ranking like any other, of the same user, arm and fallback."""
    entry.visit.speaker = _SEARCH
    settings = entry.parts.settings

    def understand() -> tuple[RerankCall, Caller]:
        call = _SEARCH.read(body, settings.wire)
        check_limits(call, settings.limits, count_tokens, len(body))
        return call, entry.caller(body, call.query, _SEARCH.name)

    call, caller = await off_loop(body, understand)
    assert entry.parts.search is not None  # or there would be no route
    hits = await entry.parts.search.find(call.query)
    entry.visit.timings.append(("retrieve", hits.seconds))
    whole = msgspec.structs.replace(
        call,
        documents=tuple(passage.whole for passage in hits.passages),
        echoes=tuple(_echo(passage, settings.events.document_id) for passage in hits.passages),
        warnings=(*call.warnings, *hits.warnings),
    )
    return await ranked(entry, _SEARCH, whole, caller)


def _echo(passage: Passage, document_id: str) -> dict[str, Any]:
    """Return a passage as the answer has it, its id where feedback and event log look for one."""
    title = {"title": passage.title} if passage.title else {}
    return {document_id: passage.id, "id": passage.id, **title, "text": passage.text}


def search_routes() -> list[HTTPRouteHandler]:
    """Return the route of searches."""
    return [route_of([SEARCH_PATH], "search", _search, [_SEARCH])]
