from __future__ import annotations

import asyncio
import time

from flags.pulse import Pulse


async def test_a_process_that_is_awake_is_sure() -> None:
    pulse = Pulse()
    pulse.start()
    await asyncio.sleep(0.4)
    assert not pulse.is_unsure
    await pulse.close()


async def test_a_process_that_slept_is_unsure_until_it_has_asked_since() -> None:
    pulse = Pulse()
    pulse.start()
    await asyncio.sleep(0)
    asked_before = time.monotonic()
    time.sleep(2.3)  # noqa: ASYNC251 - as in a stopped process, the loop runs nothing
    found = [pulse.is_unsure]
    await asyncio.sleep(0.3)
    pulse.asked(asked_before)
    found.append(pulse.is_unsure)
    pulse.asked(time.monotonic())
    found.append(pulse.is_unsure)
    await pulse.close()
    assert found == [True, True, False]
