"""Background tasks end, whatever the libraries in them make of a cancel."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from flags import tasks


async def test_a_task_that_swallows_a_cancel_is_ended_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks, "_PATIENCE_SECONDS", 0.01)
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            if swallowed < 2:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.sleep(60)
                swallowed += 1
            else:
                await asyncio.sleep(60)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await tasks.end(task)
    assert (task.cancelled(), swallowed) == (True, 2)


async def test_what_ended_a_task_before_is_raised() -> None:
    async def broken() -> None:
        raise ValueError("boom")

    task = asyncio.create_task(broken())
    await asyncio.wait([task])
    with pytest.raises(ValueError, match="boom"):
        await tasks.end(task)
    await tasks.end(None)
