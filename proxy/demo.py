"""A whole rollout in a few minutes: real proxy, real engine, real guard; made-up users and a planted fault.

Everything is embedded: the flag file, the store, the shipped cross-encoder as candidate, and a stand-in that plays the
language model at its price. Users ask the shipped sample and click what is relevant. At the third stage the candidate
becomes slow; the guard has to find it. Then it is mended, re-armed and ramped to everybody.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from flags.ramp import Stage
from proxy import orders
from proxy.arms.cross_encoder import CrossEncoderArm
from proxy.arms.llm import LlmArm
from proxy.backends import CrossEncoderBackend, LlmBackend
from proxy.errors import Conflict
from proxy.offline.judged_collection import Sources, read_collection
from proxy.orders import RampOrder, RearmOrder
from proxy.secrets import Secret
from proxy.settings import Flag, Settings
from proxy.settings import Ramp as RampSettings
from proxy.stand_in import StandIn

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from flags.ramp import Rollback
    from proxy.arms.base import Arm, ArmAnswer
    from proxy.parts import Parts
    from proxy.settings import ControlToken

SHARES = (5, 25, 50, 100)
_FAULT_STAGE = 2
_DOCUMENTS = 10
_USERS = 400
_SHADOWED_PERCENT = 25.0
_LLM_SECONDS = 0.6
_LATE_SECONDS = 1.2
_WAIT_SECONDS = 90.0
_CLICKS = 0.4
"""Share of the answers of which a user clicks something."""


class Faulty:
    """An arm that can be made late."""

    def __init__(self, arm: Arm) -> None:
        self._arm = arm
        self.late_seconds = 0.0

    def __getattr__(self, name: str) -> Any:
        """Return whatever else the arm has."""
        return getattr(self._arm, name)

    async def score(
        self,
        query: str,
        documents: Sequence[str],
        *,
        deadline: float,
        max_document_tokens: int | None = None,
        is_fresh: bool = False,
    ) -> ArmAnswer:
        """Score, late."""
        await asyncio.sleep(self.late_seconds)
        return await self._arm.score(
            query, documents, deadline=deadline, max_document_tokens=max_document_tokens, is_fresh=is_fresh
        )


class DemoFailed(Exception):
    """It did not go as planned; the message says what was in the way, such as a machine that is too slow."""


class Found(msgspec.Struct, kw_only=True):
    """What there is to tell at the end."""

    requests: int = 0
    failed: int = 0
    fault_at: float = 0.0
    rolled_back_at: float | None = None
    rollback_id: str = ""
    reason: str = ""
    is_promoted: bool = False


def settings_of(base: Settings, folder: Path, stage_seconds: float, llm_url: str) -> Settings:
    """Return the settings of a demo: those given, with stages as short as *stage_seconds*."""
    llm = LlmBackend(base_url=llm_url, api_key=Secret("none-is-needed"))
    return msgspec.structs.replace(
        base,
        data_dir=folder,
        flag=Flag(key="rerank-demo", initial_share_percent=0),
        ramp=RampSettings(
            stages=tuple(Stage(share, 2 * stage_seconds) for share in SHARES), cool_down_seconds=stage_seconds
        ),
        shadow=msgspec.structs.replace(
            base.shadow,
            is_on=True,
            control_percent=_SHADOWED_PERCENT,
            candidate_percent=_SHADOWED_PERCENT,
        ),
        feedback=msgspec.structs.replace(base.feedback, is_on=True, judge=True),
        backends={"gpt": llm, "cross-encoder": CrossEncoderBackend()},
    )


def arms_of(settings: Settings) -> tuple[dict[str, Arm], Faulty]:
    """Return the arms, and the candidate among them."""
    cross_encoder, llm = settings.backend("cross-encoder"), settings.backend("gpt")
    assert isinstance(cross_encoder, CrossEncoderBackend)
    assert isinstance(llm, LlmBackend)
    candidate = Faulty(CrossEncoderArm(cross_encoder, calibrations={}))
    return {"cross-encoder": candidate, "gpt": LlmArm(llm)}, candidate


def stand_in() -> StandIn:
    """Return what plays the language model."""
    return StandIn(_LLM_SECONDS)


class Demo:
    """The script, and the users."""

    def __init__(
        self,
        parts: Parts,
        url: str,
        candidate: Faulty,
        *,
        stage_seconds: float,
        rate: float,
        tell: Callable[[str], None],
        seed: int = 1,
    ) -> None:
        self._parts = parts
        self._candidate = candidate
        self._stage_seconds = stage_seconds
        self._rate = rate
        self._tell = tell
        self._dice = random.Random(seed)  # noqa: S311 - a simulation
        self._judged = read_collection(Sources(), depth=_DOCUMENTS)
        self._names = list(self._judged.queries)
        self._client = httpx.AsyncClient(base_url=url, timeout=30)
        self._asking: set[asyncio.Task[None]] = set()
        self.found = Found()

    async def run(self) -> Found:
        """Go through all of it."""
        async with self._client:
            users = asyncio.create_task(self._users(), name="demo-users")
            try:
                await self._script()
            finally:
                users.cancel()
                await asyncio.gather(users, *self._asking, return_exceptions=True)
        return self.found

    async def _script(self) -> None:
        await self._wait(lambda: self._parts.rollout.latch.record is not None)
        self._tell("nobody has the candidate yet; shadows compare the arms in the dark")
        await asyncio.sleep(self._stage_seconds)
        for place, share in enumerate(SHARES[: _FAULT_STAGE + 1]):
            await self._ramp(share)
            if place == _FAULT_STAGE:
                await self._fault()
            else:
                await asyncio.sleep(self._stage_seconds)
        await self._mend()
        for share in SHARES:
            await self._ramp(share)
            await asyncio.sleep(self._stage_seconds)
        record = self._parts.rollout.latch.record
        self.found.is_promoted = record is not None and record.ramp.share_percent == SHARES[-1]

    async def _ramp(self, share: int) -> None:
        """Move the share.

        Raises:
            DemoFailed: the guard was quicker, without a fault of ours.

        """
        try:
            await orders.ramp(self._parts, self._actor, RampOrder(share_percent=share, reason="the demo goes on"))
        except Conflict as exc:
            rollback = self._rollback()
            raise DemoFailed(f"{exc}: {rollback.reason}" if rollback else str(exc)) from exc
        self._tell(f"ramped to {share} %")

    async def _fault(self) -> None:
        """Make the candidate late, and wait for the guard."""
        await asyncio.sleep(self._stage_seconds / 2)
        self.found.fault_at = time.time()
        self._candidate.late_seconds = _LATE_SECONDS
        self._tell(f"the candidate is {_LATE_SECONDS:g} s late from now on; nobody tells the guard")
        await self._wait(lambda: self._rollback() is not None)
        if (rollback := self._rollback()) is not None:
            self.found.rolled_back_at, self.found.rollback_id = rollback.at, rollback.rollback_id
            self.found.reason = rollback.reason
            took = rollback.at - self.found.fault_at
            self._tell(f"rolled back by the {rollback.actor} {took:.1f} s after the fault began: {rollback.reason}")

    def _rollback(self) -> Rollback | None:
        record = self._parts.rollout.latch.record
        return record.ramp.rollback if record is not None and record.is_rolled_back else None

    async def _mend(self) -> None:
        self._candidate.late_seconds = 0.0
        await asyncio.sleep(self._stage_seconds)
        order = RearmOrder(reason="the demo's fault is mended", force=True)
        await orders.rearm(self._parts, self._actor, order)
        self._tell("mended and re-armed: from the start")

    async def _users(self) -> None:
        while True:
            await asyncio.sleep(self._dice.expovariate(self._rate))
            task = asyncio.create_task(self._ask())
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)

    async def _ask(self) -> None:
        name = self._dice.choice(self._names)
        body = {"query": self._judged.queries[name], "documents": self._judged.texts(name)}
        user = f"user-{self._dice.randrange(_USERS)}"
        self.found.requests += 1
        try:
            answer = await self._client.post("/v1/rerank", json=body, headers={"x-user-id": user})
            if answer.status_code != 200:
                self.found.failed += 1
            elif self._dice.random() < _CLICKS:
                await self._click(name, answer.headers)
        except httpx.HTTPError:
            self.found.failed += 1

    async def _click(self, name: str, headers: Mapping[str, str]) -> None:
        """Say that a relevant document was cited, wherever it stands."""
        grades = self._judged.grades[name]
        cited = [i for i, each in enumerate(self._judged.candidates[name]) if grades.get(each, 0) > 0]
        if cited and (token := headers.get("x-rerank-feedback")):
            await self._client.post("/v1/feedback", json={"request_id": token, "cited": cited[:1]})

    async def _wait(self, is_so: Callable[[], bool]) -> None:
        end = time.monotonic() + _WAIT_SECONDS
        while not is_so() and time.monotonic() < end:  # noqa: ASYNC110 - the record has no event to wait for
            await asyncio.sleep(0.1)

    @property
    def _actor(self) -> ControlToken:
        return self._parts.keys.actors()[0]
