"""Probes: judged queries replayed steadily through both arms, to see whether the candidate ranks worse.

Synthetic traffic that the leader makes: no exposure, no user, no share of anybody's budget but its own. Queries are
drawn at random with replacement, so that the paired differences are independent and their mean is that of the set.
Control's answer to a probe is kept for a while: it is paid for, and changes with its model only.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import structlog

from alerts.guardrails import Value
from alerts.quality import quality_of
from alerts.signals import paired_levels
from flags.tasks import end
from proxy.errors import InvalidFile
from proxy.exposure import Role

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from alerts.guard import Lease
    from alerts.quality import Quality
    from proxy.attempts import Trier
    from proxy.quality_settings import Probes

_log = structlog.get_logger(__name__)

_DEADLINE_SECONDS = 15.0
_RECALL_AT = 5


class Probe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One judged query."""

    query: str
    documents: list[str]
    judgements: dict[int, int]
    """Index of a document → grade; those not named are 0."""

    def shuffled(self) -> Probe:
        """Return it with its documents in another order, always the same one.

        Judged files tend to list what is relevant first: whoever breaks ties by the order received, or a model whose
        scores are all the same, would rank them without a fault.
        """
        places = list(range(len(self.documents)))
        random.Random(self.query).shuffle(places)  # noqa: S311 - an order, no secret
        grades = {new: self.judgements[old] for new, old in enumerate(places) if old in self.judgements}
        return Probe(self.query, [self.documents[old] for old in places], grades)


def read_probes(file: Path) -> tuple[Probe, ...]:
    """Return the probes of a JSONL file.

    Raises:
        InvalidFile: it cannot be read, or a line is no probe with a relevant document; names the line.

    """
    try:
        lines = file.read_bytes().splitlines()
    except OSError as exc:
        raise InvalidFile(file, f"cannot be read: {exc}") from exc
    decoder = msgspec.json.Decoder(Probe)
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            probe = decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError) as exc:
            raise InvalidFile(file, str(exc), line=number) from exc
        if wrong := _wrong_with(probe):
            raise InvalidFile(file, wrong, line=number)
        found.append(probe)
    if not found:
        raise InvalidFile(file, "has no probes")
    return tuple(found)


def _wrong_with(probe: Probe) -> str | None:
    if not probe.query.strip() or len(probe.documents) < 2:
        return "a probe needs a query and at least two documents"
    if any(not 0 <= place < len(probe.documents) for place in probe.judgements):
        return "judgements: an index is no document's"
    if any(not 0 <= grade <= 100 for grade in probe.judgements.values()):
        return "judgements: a grade must be from 0 to 100"
    return None if any(probe.judgements.values()) else "judgements: no document is relevant"


class Prober:
    """Replays probes while this replica leads."""

    def __init__(
        self,
        probes: Sequence[Probe],
        settings: Probes,
        trier: Trier,
        lease: Lease,
        *,
        count: Callable[[Value, int], None],
        measure: Callable[[Role, Quality], None],
    ) -> None:
        """Take *count*, which is told a paired value's level, and *measure*, told each arm's quality."""
        self._probes = [each.shuffled() for each in probes]
        self._settings = settings
        self._trier = trier
        self._lease = lease
        self._count = count
        self._measure = measure
        self._known: dict[int, tuple[float, Quality]] = {}
        self._dollars: list[tuple[float, float]] = []
        self._task: asyncio.Task[None] | None = None
        self.error: str | None = None
        """Why the last probe gave no pair."""

    def start(self) -> None:
        """Begin, in the background."""
        self._task = asyncio.create_task(self._run(), name="prober")

    async def close(self) -> None:
        """Stop."""
        await end(self._task)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._settings.interval_seconds)
            if not self._lease.is_leader:
                continue
            try:
                await self.once(random.randrange(len(self._probes)))  # noqa: S311 - a sample, no secret
            except Exception:  # noqa: BLE001 - whatever one probe meets, the next is tried
                _log.exception("probe.failed")

    async def once(self, number: int) -> None:
        """Replay one probe; without an answer of both arms there is no pair."""
        probe = self._probes[number]
        self.error = None
        control = await self._of_control(number, probe)
        candidate = await self._ask(Role.CANDIDATE, probe)
        if control is None or candidate is None:
            return
        self._measure(Role.CANDIDATE, candidate)
        self._measure(Role.CONTROL, control)
        pairs = {Value.PROBE: candidate.ndcg_at_10 - control.ndcg_at_10}
        if len(probe.documents) > _RECALL_AT:  # of fewer every order has the same
            pairs[Value.RECALL] = candidate.recall_at_5 - control.recall_at_5
        for value, difference in pairs.items():
            self._count(value, int(paired_levels(np.array(difference), np.array(random.random()))))  # noqa: S311 - no secret

    async def _of_control(self, number: int, probe: Probe) -> Quality | None:
        now = time.monotonic()
        at, known = self._known.get(number, (-math.inf, None))
        if known is not None and now - at < self._settings.control_seconds:
            return known
        self._dollars = [(when, spent) for when, spent in self._dollars if now - when < 3600]
        if sum(spent for _, spent in self._dollars) >= self._settings.max_dollars_per_hour:
            self.error = "the probes' budget of this hour is spent"
            return known
        found = await self._ask(Role.CONTROL, probe)
        if found is not None:
            self._known[number] = (now, found)
        return found

    async def _ask(self, role: Role, probe: Probe) -> Quality | None:
        """Return how well an arm ranks a probe; None: it did not, which is no news of its rankings."""
        if not self._trier.is_ready(role):
            self.error = f"the {role} arm is not ready"
            return None
        tried = await self._trier.try_arm(
            role,
            probe.query,
            probe.documents,
            deadline=time.monotonic() + _DEADLINE_SECONDS,
            max_document_tokens=None,
            user="probe",
            is_fresh=True,  # a model gone wrong must not be hidden by what it said before
        )
        if role is Role.CONTROL:
            self._dollars.append((time.monotonic(), tried.attempt.cost_dollars))
        if tried.answer is None:
            self.error = f"the {role} arm {tried.reason}"
            return None
        return quality_of(probe.judgements, tried.answer.logits)
