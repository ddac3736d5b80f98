"""Background tasks, ended for sure."""

from __future__ import annotations

import asyncio

_PATIENCE_SECONDS = 1.0


async def end(task: asyncio.Task[None] | None) -> None:
    """Cancel *task*, again and again until it is over: a client's timeout that ends just then may swallow a cancel.

    Raises:
        Exception: what ended it before.

    """
    if task is None:
        return
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_PATIENCE_SECONDS)
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error
