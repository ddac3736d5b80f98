"""Everything one process is made of, put together in one place."""

from __future__ import annotations

import asyncio
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Self
from uuid import uuid4

import structlog

from flags.file_gate import FileGate, write_flag_file
from flags.rollout import InvalidFlags
from flags.store import EmbeddedValkey, connect
from flags.unleash import UnleashGate
from proxy.alerting import Alerting
from proxy.arming import Arming
from proxy.budget import FallbackBudget
from proxy.dashboard.recent import RecentRequests
from proxy.dashboard.recorder import Recorder
from proxy.errors import InvalidSettings, Overloaded
from proxy.eventing import Events
from proxy.exchange import Exchange, SharedSpend
from proxy.exposure import Role
from proxy.feedbacking import Feedbacks
from proxy.gauges import export_gauges
from proxy.guarding import make_guard, make_prober, make_shadower, make_signals
from proxy.keys import Keys, token_of
from proxy.observed_share import ObservedShare
from proxy.observers import BudgetObserver, LogObserver, Observers
from proxy.otel import OpenTelemetry
from proxy.otel_observer import OtelObserver
from proxy.rollout import Replica, Rollout, flag_file
from proxy.search import SearchEngine
from proxy.secrets import read_or_create
from proxy.service import Service
from proxy.shadow_metrics import ShadowTally

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from alerts.guard import Guard
    from flags.gate import Gate
    from flags.membership import Membership
    from flags.ramp_control import RampControl
    from proxy.arms.base import Arm
    from proxy.settings import Settings

_log = structlog.get_logger(__name__)


class InFlight:
    """Counts requests under way, and says no above a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.count = 0

    def __enter__(self) -> Self:
        """Enter one request.

        Raises:
            Overloaded: there are too many.

        """
        if self.count >= self._limit:
            raise Overloaded("too many requests are under way", retry_after_seconds=1)
        self.count += 1
        return self

    def __exit__(self, *_: object) -> None:
        """Leave."""
        self.count -= 1


class Parts:
    """One process. Built without side effects on the world, started and closed explicitly."""

    def __init__(
        self,
        settings: Settings,
        env: Mapping[str, str],
        arms: Mapping[str, Arm] | None = None,
        *,
        lines_lost: Callable[[], int] = lambda: 0,
    ) -> None:
        self.settings = settings
        self.version = version("rerank-canary")
        self.instance_id = uuid4().hex[:12]
        self.salt = (settings.identity.salt.reveal() if settings.identity.salt else self._secret("salt")).encode()
        self.keys = Keys(
            settings.auth, settings.auth.control_tokens or [token_of("local", self._secret("control.token"))]
        )
        self.arming = Arming(settings, arms)
        self.arms, self.trier, self.stand_in = self.arming.arms, self.arming.trier, self.arming.stand_in
        self.budget = FallbackBudget(settings.fallback)
        self.embedded = None if settings.store.url else EmbeddedValkey(settings.data_dir / "store")
        url = settings.store.url.reveal() if settings.store.url else self.embedded.url if self.embedded else ""
        self.store = connect(url, settings.store.timeout_seconds)
        self.otel = OpenTelemetry(env, self.version, self.instance_id)
        self.telemetry = OtelObserver(self.otel)
        observed = ObservedShare()
        self.guard: Guard | None = None
        self.rollout = self._make_rollout(observed)
        self.signals = make_signals(settings, self.instance_id, self.rollout.stage_name)
        self.gate: Gate = self.rollout.gate
        self.events = Events(settings, self.salt, self.instance_id, self.rollout.membership)
        self.feedback = self._make_feedback()
        self.shadow_tally = ShadowTally()
        self.recent = (
            RecentRequests(self.store, settings.rollout_prefix, self.instance_id) if settings.dashboard.is_on else None
        )
        self.shadower = make_shadower(
            settings, self.trier, self.rollout.latch, self.signals, self.otel, self.shadow_tally, self.recent
        )
        self.exchange = self._make_exchange()
        self.alerting = Alerting(
            settings,
            self.store,
            rollout=self.rollout,
            guard=self.guard,
            budget=self.budget,
            store_error=lambda: self.exchange.error,
            on_delivery=self.telemetry.delivery,
        )
        self.prober = make_prober(
            settings.probes, self.trier, self.rollout.membership, self.signals.count_value, self.telemetry.probed
        )
        self.observers = seen = Observers(
            [BudgetObserver(self.budget), observed, self.signals, self.telemetry, LogObserver()],
            [*self.events.ranking_observers, *([self.recent] if self.recent else [])],
        )
        self.service = Service(
            settings, self.gate, self.rollout.latch, self.trier, self.budget, seen.observe, seen.observe_ranking
        )
        self.search = SearchEngine(settings.search, self.otel) if settings.search.index else None
        self.in_flight = InFlight(settings.server.max_connections)
        self.is_draining = False
        export_gauges(self, lines_lost)

    def _make_rollout(self, observed: ObservedShare) -> Rollout:
        return Rollout(
            self.settings,
            self._make_gate(),
            self.store,
            replica=Replica(self.instance_id, self.version, observed, lambda: all(self.readiness().values())),
            on_audit=self.telemetry.audit,
            make_judge=self._make_guard if self.settings.guard.is_on else lambda *_: None,
        )

    def _make_guard(self, control: RampControl, membership: Membership) -> Guard:
        self.guard = make_guard(self.settings, self.instance_id, control, membership, self.telemetry.judged)
        return self.guard

    def _make_feedback(self) -> Feedbacks | None:
        if not self.settings.feedback.is_on:
            return None
        return Feedbacks(
            self.settings,
            self.store,
            "" if self.settings.feedback.key else self._secret("feedback.key"),
            stage=self.rollout.stage_name,
            signals=self.signals,
            telemetry=self.otel,
            record=self.events.record_feedback,
            store_error=lambda: self.exchange.error,
        )

    def _make_exchange(self) -> Exchange:
        prefix = self.settings.rollout_prefix
        spends = [SharedSpend(self.budget, prefix, self.instance_id)]
        if self.shadower is not None:
            spends.append(SharedSpend(self.shadower.budget, prefix, self.instance_id, name="shadow-spend"))
        return Exchange(
            self.store,
            [
                *spends,
                self.rollout.control,
                self.signals,
                *([self.guard] if self.guard else []),
                *([self.feedback.keys] if self.feedback else []),
                *((self._make_recorder(), self.recent) if self.recent else ()),
            ],
            self.rollout.membership,
            self.rollout.pulse,
            embedded=self.embedded,
        )

    def _make_recorder(self) -> Recorder:
        return Recorder(
            self.settings.rollout_prefix,
            self.rollout.membership,
            self.rollout.latch,
            lambda: self.guard.report if self.guard else None,
        )

    def _secret(self, name: str) -> str:
        file = self.settings.data_dir / name
        try:
            return read_or_create(file)
        except (OSError, UnicodeError) as exc:
            raise InvalidSettings(f"$.data_dir: {file} cannot be used: {exc}") from exc

    def _make_gate(self) -> Gate:
        try:
            return self._make_unleash_gate(self.settings.flag.url) if self.settings.flag.url else self._make_file_gate()
        except (OSError, InvalidFlags) as exc:
            raise InvalidSettings(f"$.flag: {exc}") from exc

    def _make_unleash_gate(self, url: str) -> UnleashGate:
        flag = self.settings.flag
        return UnleashGate(
            url=url,
            token=flag.token.reveal() if flag.token else "",
            flag=flag.key,
            cache_file=self.settings.data_dir / "unleash-cache.json",
            bootstrap=flag.bootstrap,
            environment=flag.environment,
            instance_id=self.instance_id,
            poll_seconds=flag.poll_seconds,
            timeout_seconds=flag.timeout_seconds,
        )

    def _make_file_gate(self) -> FileGate:
        flag = self.settings.flag
        file = flag_file(self.settings)
        if flag.file is None and not file.exists():
            write_flag_file(file, flag.key, flag.initial_share_percent)
        return FileGate(file, flag.key)

    async def start(self) -> None:
        """Start everything; what may come up later (flag server, store) is not waited for.

        Raises:
            InvalidModel, InvalidSettings: the arms can never serve as configured.
            StoreNotStarted: the embedded store did not come up.

        """
        if self.embedded is not None:
            await self.embedded.start()
        await self.gate.start()
        await self.arming.start()
        if self.search is not None:
            await self.search.start()
        await self.exchange.once()  # before anybody is served: a rollback may hold
        self.exchange.start()
        self.rollout.start()
        if self.guard is not None:
            self.guard.start()
        self.alerting.start()
        self.events.start()
        if self.prober is not None:
            self.prober.start()

    async def close(self) -> None:
        """Close in the order of a shutdown: flush what was counted, then the clients, telemetry last. Never raises."""
        parts: list[tuple[str, Callable[[], Awaitable[None]]]] = [
            *([("shadower", self.shadower.close)] if self.shadower else []),
            *([("prober", self.prober.close)] if self.prober else []),
            *([("feedback", self.feedback.doubles.close)] if self.feedback else []),
            ("events", self.events.close),
            ("alerting", self.alerting.close),
            *([("guard", self.guard.close)] if self.guard else []),
            ("rollout", self.rollout.close),
            ("exchange", self.exchange.close),
            *((f"arm {name}", arm.close) for name, arm in self.arms.items()),
            *([("search", self.search.close)] if self.search else []),
            ("gate", self.gate.close),
            *([("stand-in", self.stand_in.close)] if self.stand_in else []),
            ("store", self.store.aclose),
            *([("valkey", self.embedded.close)] if self.embedded else []),
            ("telemetry", partial(asyncio.to_thread, self.otel.close)),
        ]
        for name, close in parts:
            try:
                await close()
            except Exception:  # noqa: BLE001 - whatever one part says, the next is closed: a Valkey must not be orphaned
                _log.exception("part.not_closed", part=name)

    def readiness(self) -> dict[str, bool]:
        """Return what has to be true before requests are sent here.

        A model of this process has to be well. A server that is away or an open breaker is the same for every
        replica: no other could do better, and each still has an arm that answers.
        """
        checks = {"not_draining": not self.is_draining}
        for role, bound in self.trier.arms.items():
            checks[f"{role}_ready"] = bound.arm.is_well if bound.kind == "cross-encoder" else bound.arm.is_ready
        return checks

    def models(self) -> dict[str, str]:
        """Return the model of each role."""
        return {role.value: bound.arm.model for role, bound in self.trier.arms.items()}

    def model_names(self) -> list[str]:
        """Return the models of the roles, the candidate's first."""
        order = (Role.CANDIDATE, Role.CONTROL, Role.FALLBACK)
        names = [self.trier.arms[role].arm.model for role in order if role in self.trier.arms]
        return list(dict.fromkeys(names))
