"""The guard of one process: what of alerts/ it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alerts.guardrails import Event, Guardrail, Value, default_guardrails, with_overrides
from alerts.judge import Judge
from proxy.settings import CrossEncoderBackend

if TYPE_CHECKING:
    from proxy.settings import Settings

_DAY_TICKS = 86400.0
_GPU_P95_SECONDS = 0.15
_CPU_P95_SECONDS = 0.6
_WITHOUT_SOURCE = (Event.MISS, Value.RECALL, Value.OVERLAP, Value.PROBE)
"""Nothing measures these yet: a guardrail that can never be proved would hold every stage."""


def guardrails_of(settings: Settings) -> dict[str, Guardrail]:
    """Return all guardrails as configured, by name; those that nothing is measured for are off."""
    candidate = settings.backend(settings.arms.candidate)
    is_gpu = isinstance(candidate, CrossEncoderBackend) and candidate.device == "cuda"
    defaults = default_guardrails(_GPU_P95_SECONDS if is_gpu else _CPU_P95_SECONDS)
    found = with_overrides(defaults, settings.guard.guardrails)
    return {each.name: each for each in found if each.signal not in _WITHOUT_SOURCE}


def judge_of(settings: Settings) -> Judge:
    """Return the judge of the rollout that is planned: its level is that of all of it, and a day at the least."""
    planned = sum(stage.bake_seconds for stage in settings.ramp.stages)
    return Judge(tuple(guardrails_of(settings).values()), max(_DAY_TICKS, planned), settings.guard.alpha)
