"""A flag on a real Unleash, and gates and proxies that follow it."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from flags.bucketing import bucket
from flags.unleash import UnleashGate
from flags.vocabulary import Arm, FlagContext
from tests.parts.callers import QUICK
from tests.parts.programs import eventually
from tests.parts.unleash import CLIENT_TOKEN, Unleash

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from pathlib import Path

    from flags.gate import Gate

USERS = [f"user-{i}" for i in range(10_000)]
_numbers = itertools.count(1)


def new_flag_name() -> str:
    """Return a name that no other test of this run uses."""
    return f"flag-{next(_numbers)}"


class Rollout:
    """A flag with one gradual rollout, switched on."""

    def __init__(self, unleash: Unleash, percent: int) -> None:
        self.unleash = unleash
        self.flag = new_flag_name()
        self.percent = percent
        self._strategy = unleash.admin.create_rollout(self.flag, percent)

    def set_percent(self, percent: int) -> None:
        self.unleash.admin.patch_percent(self.flag, self._strategy, percent, was=self.percent)
        self.percent = percent

    def bucket(self, user: str) -> int:
        return bucket(self.flag, user)

    def gives_candidate(self, user: str) -> bool:
        """Tell what the published hash says of *user*."""
        return self.bucket(user) <= self.percent

    def env(self, url: str | None = None) -> dict[str, str]:
        """Return the variables of a proxy that follows it."""
        return unleash_env(self.flag, url or self.unleash.url)


def unleash_env(flag: str, url: str) -> dict[str, str]:
    return {**QUICK, "UNLEASH_URL": url, "UNLEASH_API_TOKEN": CLIENT_TOKEN, "RERANK_CANARY__FLAG__KEY": flag}


def unleash_gate(flag: str, url: str, folder: Path, bootstrap: Path | None = None) -> UnleashGate:
    return UnleashGate(
        url=url, token=CLIENT_TOKEN, flag=flag, cache_file=folder / f"{flag}-cache.json", bootstrap=bootstrap
    )


@asynccontextmanager
async def following(gate: Gate, *, percent: int | None = None) -> AsyncIterator[Gate]:
    """Start a gate, wait until it has seen its flag, with *percent* if that is given, and close it at the end."""
    await gate.start()
    try:
        await shows(gate, percent)
        yield gate
    finally:
        await gate.close()


async def shows(gate: Gate, percent: int | None = None) -> None:
    """Wait until the gate has a state, one of *percent* if that is given."""

    def is_there() -> bool:
        rollout = gate.state.rollout
        return gate.state.fresh_at is not None and percent in {None, rollout and rollout.share_percent}

    await asyncio.to_thread(eventually, is_there)
    await asyncio.sleep(0.05)  # the SDK's engine takes a state a moment after the gate has noted it


def candidates(gate: Gate, users: Iterable[str]) -> set[str]:
    """Return the users that the gate gives to the candidate."""
    return {user for user in users if gate.assign(FlagContext(user)).arm is Arm.CANDIDATE}
