"""What changes while somebody looks, as server-sent events: each fragment when it reads otherwise than before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from litestar.response import Stream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from proxy.dashboard.board import Board
    from proxy.dashboard.session import Session
    from proxy.dashboard.tiers import Tier

_EVERY_SECONDS = 2.0
_CHARTS_EVERY = 3
"""Turns between two looks at what is dear to draw; its points are seconds apart."""
_LOOK_SECONDS = 0.25
"""How soon an end of the process ends the stream."""


def events(board: Board, session: Session, tier: Tier, only: str, rollback_id: str = "") -> Stream:
    """Return the stream; *only* ``replicas`` or ``incident``: of that page, not of the rollout's."""
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return Stream(_events(board, session, tier, only, rollback_id), media_type="text/event-stream", headers=headers)


async def _events(board: Board, session: Session, tier: Tier, only: str, rollback_id: str) -> AsyncIterator[str]:
    sent: dict[str, str] = {}
    turn = 0
    yield "retry: 2000\n\n"
    while await _goes_on(board, session):
        turn += 1
        yield "event: beat\ndata: \n\n"
        for name, html in (await _fragments(board, session, tier, (only, rollback_id), turn)).items():
            if sent.get(name) != html:
                sent[name] = html
                yield _event(name, html)


async def _goes_on(board: Board, session: Session) -> bool:
    """Wait for the next turn; False: the process ends, the token was withdrawn, or its owner signed out."""
    for _ in range(round(_EVERY_SECONDS / _LOOK_SECONDS)):
        if board.parts.is_draining:
            return False
        await asyncio.sleep(_LOOK_SECONDS)
    return session.actor in board.parts.keys.actors() and not await board.ended.has(session)


async def _fragments(board: Board, session: Session, tier: Tier, page: tuple[str, str], turn: int) -> dict[str, str]:
    match page:
        case "replicas", _:
            return {"replicas": await board.replicas_html()}
        case "incident", rollback_id:
            return {"incident": await board.incident_html(rollback_id)}
    role = session.actor.role
    found = {"state": await board.state_html(role), "actions": await board.actions_html(role)}
    if turn % _CHARTS_EVERY == 0:
        found |= {"guardrails": await board.guardrails_html(), "charts": await board.charts_html(tier)}
    return found


def _event(name: str, html: str) -> str:
    lines = "".join(f"data: {line}\n" for line in html.splitlines())
    return f"event: {name}\n{lines}\n"
