"""The arms of one process: which back ends there are, and which role each of them has."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import structlog

from proxy.arms.cross_encoder import CrossEncoderArm
from proxy.arms.llm import LlmArm
from proxy.arms.remote import RemoteArm
from proxy.attempts import BoundArm, Trier
from proxy.breaker import Breaker
from proxy.doubt import Doubt, doubt_of
from proxy.exposure import Role
from proxy.settings import CrossEncoderBackend, LlmBackend
from proxy.stand_in import StandIn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.arms.base import Arm
    from proxy.settings import Backend, Settings

_log = structlog.get_logger(__name__)


class Arming:
    """Makes, starts and closes the arms."""

    def __init__(self, settings: Settings, arms: Mapping[str, Arm] | None = None) -> None:
        """Take *arms* by the names of their back ends instead of making them."""
        self.settings = settings
        self.stand_in: StandIn | None = None
        self.arms = dict(arms) if arms is not None else self._make_arms()
        self.trier = Trier(self._bind())

    def _make_arms(self) -> dict[str, Arm]:
        roles = self.settings.arms
        names = {roles.control, roles.fallback} | ({roles.candidate} if roles.use_candidate else set())
        return {name: self._make_arm(self.settings.backend(name)) for name in sorted(names)}

    def _make_arm(self, backend: Backend) -> Arm:
        if isinstance(backend, CrossEncoderBackend):
            return CrossEncoderArm(backend, calibrations=self.settings.calibrations)
        if isinstance(backend, LlmBackend):
            if backend.api_key or backend.base_url:
                return LlmArm(backend, calibration=self.settings.calibrations.get(backend.model))
            self.stand_in = self.stand_in or StandIn(backend.stand_in_delay_seconds)
            return LlmArm(backend, stand_in_url=self.stand_in.url)
        return RemoteArm(backend)

    def _bind(self) -> dict[Role, BoundArm]:
        """Bind roles to back ends; roles of one back end share its breaker."""
        rules = self.settings.fallback
        roles = self.settings.arms
        bound = {
            name: BoundArm(
                arm, _kind(self.settings.backend(name)), Breaker(rules.breaker_failures, rules.breaker_seconds)
            )
            for name, arm in self.arms.items()
        }
        wanted = {Role.CONTROL: roles.control, Role.CANDIDATE: roles.candidate, Role.FALLBACK: roles.fallback}
        return {role: bound[name] for role, name in wanted.items() if name in bound}

    async def start(self) -> None:
        """Load the models, and let the candidate be doubted by what is known of it.

        Raises:
            InvalidModel, InvalidSettings: the arms can never serve as configured.

        """
        if self.stand_in is not None:
            await self.stand_in.start()
        await asyncio.gather(*(arm.start() for arm in self.arms.values()))
        self._tell_of_calibrations()
        self.trier.doubt = self._make_doubt()

    def _make_doubt(self) -> Doubt:
        candidate = self.arms.get(self.settings.arms.candidate)
        if not isinstance(candidate, CrossEncoderArm):
            return Doubt()
        return doubt_of(self.settings.fallback, candidate.loaded)

    def _tell_of_calibrations(self) -> None:
        """Log those that hold for no model here: after a new revision the thresholds are not what they were."""
        for model in sorted(set(self.settings.calibrations) - {arm.model for arm in self.arms.values()}):
            _log.warning("calibration.unused", model=model)


def _kind(backend: Backend) -> str:
    return str(backend.__struct_config__.tag)
