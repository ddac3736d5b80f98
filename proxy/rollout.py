"""The rollout of one process: what of flags/ it is made of, and what it says of itself."""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

import structlog

from flags.file_writer import FileFlagWriter
from flags.latch import Latch
from flags.latched_gate import LatchedGate
from flags.membership import Member, Membership
from flags.pulse import Pulse
from flags.ramp import Phase, cool_down_ends_at
from flags.ramp_control import RampControl
from flags.reconciler import Reconciler
from flags.record_feed import RecordFeed
from flags.record_store import RecordStore
from flags.unleash_admin import UnleashFlagWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from redis.asyncio import Redis

    from flags.flag_writer import FlagWriter
    from flags.gate import Gate
    from flags.ramp import Ramp
    from flags.reconciler import Judge
    from flags.record import AuditEntry
    from proxy.observed_share import ObservedShare
    from proxy.settings import Flag, Settings

_log = structlog.get_logger(__name__)


class Replica(NamedTuple):
    """What one process says of itself to the others."""

    instance_id: str
    version: str
    observed: ObservedShare
    is_ready: Callable[[], bool]


class Rollout:
    """Latch, record, flag writer, members: built once, started and closed with the process."""

    def __init__(
        self,
        settings: Settings,
        gate: Gate,
        store: Redis,
        *,
        replica: Replica,
        on_audit: Callable[[AuditEntry], None],
        make_judge: Callable[[RampControl, Membership], Judge | None] = lambda *_: None,
    ) -> None:
        self._settings = settings
        self._replica = replica
        self._on_audit = on_audit
        self._started_at = time.time()
        prefix = settings.rollout_prefix
        self.latch = Latch(settings.data_dir / "rollouts" / f"{quote(settings.flag.key, safe='')}.json")
        self.pulse = Pulse()
        self.flag_gate = gate
        self.gate = LatchedGate(gate, self.latch, self.pulse)
        self.records = RecordStore(store, prefix, settings.ramp.audit_entries)
        self.control = RampControl(self.latch, self.records, self._audited)
        self.membership = Membership(prefix, replica.instance_id, self._describe)
        self.writer = _writer(settings.flag, flag_file(settings))
        self.reconciler = Reconciler(
            control=self.control,
            gate=gate,
            writer=self.writer,
            membership=self.membership,
            plan=settings.ramp.stages,
            auto_advance=settings.ramp.auto_advance,
            judge=make_judge(self.control, self.membership),
        )
        self.feed = RecordFeed(store, self.records.channel, self.control)

    def start(self) -> None:
        """Begin to follow the record."""
        self.pulse.start()
        self.feed.start()
        self.reconciler.start()

    async def close(self) -> None:
        """Stop following; the last state goes on deciding."""
        await self.pulse.close()
        await self.reconciler.close()
        await self.feed.close()
        if self.writer is not None:
            await self.writer.close()

    def stage_name(self) -> str:
        """Return what is another one as soon as other users have the candidate, or have it again."""
        record = self.latch.record
        ramp = record.ramp if record else None
        return f"{ramp.group_id}:{ramp.rollbacks}:{ramp.share_percent}" if ramp else ""

    def effective_share_percent(self) -> int | None:
        """Return the share that this replica gives to the candidate; None: the flag is not known."""
        if self.gate.shut_by() is not None or not self._settings.arms.use_candidate:
            return 0
        if self.latch.is_retired:
            return 100
        rollout = self.gate.state.rollout
        return None if rollout is None else rollout.given_percent

    def _describe(self) -> Member:
        candidate, all_requests = self._replica.observed.last_minute()
        return Member(
            instance_id=self._replica.instance_id,
            at=time.time(),
            host=platform.node(),
            started_at=self._started_at,
            version=self._replica.version,
            is_ready=self._replica.is_ready(),
            is_latched=self.latch.is_set,
            record_version=self.latch.record.version if self.latch.record else 0,
            flag_share_percent=self.effective_share_percent(),
            flag_age_seconds=self.gate.state.age_seconds(time.time()),
            candidate_requests=candidate,
            requests=all_requests,
        )

    def _audited(self, entry: AuditEntry) -> None:
        _log.warning(
            f"ramp.{entry.action}",
            actor=entry.actor,
            through=entry.through,
            from_share_percent=entry.from_share_percent,
            to_share_percent=entry.to_share_percent,
            phase=entry.phase,
            reason=entry.reason,
            rollback_id=entry.rollback_id or None,
            version=entry.version,
        )
        self._on_audit(entry)

    def status(self) -> dict[str, Any]:
        """Return where the rollout is, as an operator asks."""
        now = time.time()
        record = self.latch.record
        ramp = record.ramp if record else None
        members = [member for member in self.membership.members if not member.is_gone(now)]
        requests = sum(member.requests for member in members)
        return {
            "phase": ramp.phase if ramp else None,
            "share_percent": {
                "desired": ramp.share_percent if ramp else None,
                "effective": self.effective_share_percent(),
                "observed": 100 * sum(m.candidate_requests for m in members) / requests if requests else None,
                "observed_requests": requests,
            },
            "stage": self._stage(ramp, now),
            "plan": [{"share_percent": s.share_percent, "bake_seconds": s.bake_seconds} for s in self._plan(ramp)],
            "is_ready_to_advance": bool(ramp and ramp.is_ready),
            "auto_advance": self._settings.ramp.auto_advance,
            "latch": {
                "is_set": self.latch.is_set,
                "rollback": self.latch.undelivered or (ramp.rollback if ramp and ramp.is_rolled_back else None),
                "is_delivered": self.latch.undelivered is None,
                "is_known": self.latch.is_known,
                "cool_down_seconds_left": self._cool_down_left(ramp, now),
            },
            "flag_is_behind": bool(record and record.is_pending),
            "flag_error": self.reconciler.error,
            "record_version": record.version if record else None,
            "record_error": self.control.error,
            "warnings": self._warnings(members),
            "leader": self.membership.leader,
            "replicas": [_member(member, now) for member in self.membership.members],
        }

    def _warnings(self, members: list[Member]) -> list[str]:
        """Return what is wrong with how this rollout is set up, as far as that shows."""
        if self._settings.flag.url or len({member.host for member in members}) < 2:
            return []
        return ["several hosts follow flag files of their own: each splits by its own; use Unleash, or one shared file"]

    def _plan(self, ramp: Ramp | None) -> tuple[Any, ...]:
        return ramp.plan if ramp else self._settings.ramp.stages

    def _stage(self, ramp: Ramp | None, now: float) -> dict[str, Any] | None:
        if ramp is None or ramp.stage is None:
            return None
        return {
            "number": ramp.stage + 1,
            "of": len(ramp.plan),
            "share_percent": ramp.share_percent,
            "seconds_left": ramp.baked_seconds_left(now) if ramp.phase is Phase.RAMPING else 0.0,
        }

    def _cool_down_left(self, ramp: Ramp | None, now: float) -> float:
        if ramp is None or not ramp.is_rolled_back:
            return 0.0
        return max(0.0, cool_down_ends_at(ramp, self._settings.ramp.cool_down_seconds) - now)


def flag_file(settings: Settings) -> Path:
    """Return the flag file of those who have no Unleash server."""
    return settings.flag.file or settings.data_dir / "flags.json"


def _writer(flag: Flag, file: Path) -> FlagWriter | None:
    """Return who may write the flag; None: nobody here, for want of an admin token."""
    if not flag.url:
        return FileFlagWriter(file, flag.key)
    return unleash_writer(flag) if flag.admin_token else None


def unleash_writer(flag: Flag) -> UnleashFlagWriter:
    """Return who writes the flag to Unleash; its URL and an admin token have to be there."""
    assert flag.url is not None
    assert flag.admin_token is not None
    return UnleashFlagWriter(
        url=flag.url,
        token=flag.admin_token.reveal(),
        flag=flag.key,
        project=flag.project,
        environment=flag.admin_environment or _environment_of(flag.token.reveal() if flag.token else ""),
        timeout_seconds=flag.timeout_seconds,
    )


def _environment_of(token: str) -> str:
    """Return the environment that a client token is for: ``project:environment.secret``."""
    _, _, rest = token.partition(":")
    return rest.partition(".")[0] or "development"


def _member(member: Member, now: float) -> dict[str, Any]:
    return {
        "instance_id": member.instance_id,
        "host": member.host,
        "version": member.version,
        "heartbeat_seconds_ago": max(0.0, now - member.at),
        "is_gone": member.is_gone(now),
        "is_ready": member.is_ready,
        "is_latched": member.is_latched,
        "record_version": member.record_version,
        "share_percent": member.flag_share_percent,
        "flag_age_seconds": member.flag_age_seconds,
        "requests_last_minute": member.requests,
        "candidate_requests_last_minute": member.candidate_requests,
    }
