"""The guard of one process: what of alerts/ it is made of."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from alerts.guard import Guard
from alerts.guardrails import Event, Guardrail, Value, default_guardrails, with_overrides
from alerts.health import Health
from alerts.judge import Judge
from alerts.relative_limit import Relative
from proxy.baseline_file import BASELINE_NAME, read_baseline
from proxy.budget import ShadowBudget
from proxy.errors import InvalidFile, InvalidSettings
from proxy.probes import Prober, read_probes
from proxy.settings import CrossEncoderBackend
from proxy.shadow import Shadower
from proxy.shadow_metrics import OverlapCount, ShadowMetrics
from proxy.signal_observer import SignalObserver

if TYPE_CHECKING:
    from collections.abc import Callable

    from alerts.guard import Lease
    from alerts.quality import Quality
    from alerts.report import Report
    from flags.latch import Latch
    from flags.membership import Membership
    from flags.ramp_control import RampControl
    from proxy.attempts import Trier
    from proxy.dashboard.recent import RecentRequests
    from proxy.exposure import Role
    from proxy.otel import OpenTelemetry
    from proxy.quality_settings import Probes
    from proxy.settings import Settings
    from proxy.shadow_metrics import ShadowTally

_DAY_TICKS = 86400.0
_GPU_P95_SECONDS = 0.15
_CPU_P95_SECONDS = 0.6


def guardrails_of(settings: Settings) -> dict[str, Guardrail]:
    """Return all guardrails as configured, by name; those that nothing is measured for are off."""
    candidate = settings.backend(settings.arms.candidate)
    is_gpu = isinstance(candidate, CrossEncoderBackend) and candidate.device == "cuda"
    shadow = settings.shadow
    defaults = default_guardrails(_GPU_P95_SECONDS if is_gpu else _CPU_P95_SECONDS, shadow.expected_overlap)
    found = with_overrides(defaults, settings.guard.guardrails)
    is_heard = settings.feedback.is_on and settings.feedback.judge
    is_measured = {  # a guardrail that nothing measures could never be proved, and would hold every stage
        Event.MISS: is_heard,
        Value.RECALL: settings.probes.file is not None,
        Value.PROBE: settings.probes.file is not None,
        Value.OVERLAP: shadow.is_on and shadow.expected_overlap is not None,
    }
    return {each.name: each for each in found if is_measured.get(each.signal, True)}


def make_guard(
    settings: Settings,
    instance_id: str,
    control: RampControl,
    membership: Membership,
    on_report: Callable[[Report], None],
) -> Guard:
    """Return who judges, and rolls back."""
    return Guard(
        prefix=settings.rollout_prefix,
        instance_id=instance_id,
        judge=judge_of(settings),
        control=control,
        lease=membership,
        relative=Relative(guardrails_of(settings)["p95_relative"].limit, _baseline_p95_seconds(settings)),
        health=Health(membership, settings.flag.poll_seconds),
        on_report=on_report,
    )


def _baseline_p95_seconds(settings: Settings) -> float:
    """Return the upper limit of the baseline's p95; NaN: there is no baseline, or it has too few requests.

    Raises:
        InvalidSettings: the file cannot be used.

    """
    named = settings.guard.baseline_file
    file = named or settings.data_dir / BASELINE_NAME
    if named is None and not file.exists():
        return math.nan
    try:
        found = read_baseline(file)
    except InvalidFile as exc:
        raise InvalidSettings(f"$.guard.baseline_file: {exc}") from exc
    upper = found.latency.p95_upper
    return math.nan if upper is None else upper


def make_signals(settings: Settings, instance_id: str, stage: Callable[[], str]) -> SignalObserver:
    """Return who counts what the guard judges."""
    limits = guardrails_of(settings)
    return SignalObserver(
        prefix=settings.rollout_prefix,
        instance_id=instance_id,
        p95_seconds=limits["p95"].limit,
        cost_limit_dollars=limits["cost"].limit,
        stage=stage,
    )


def make_prober(
    settings: Probes,
    trier: Trier,
    lease: Lease,
    count: Callable[[Value, int], None],
    measure: Callable[[Role, Quality], None],
) -> Prober | None:
    """Return who replays the probes; None: there are none.

    Raises:
        InvalidSettings: the file holds no probes.

    """
    if settings.file is None:
        return None
    try:
        probes = read_probes(settings.file)
    except InvalidFile as exc:
        raise InvalidSettings(f"$.probes.file: {exc}") from exc
    return Prober(probes, settings, trier, lease, count=count, measure=measure)


def make_shadower(
    settings: Settings,
    trier: Trier,
    latch: Latch,
    signals: SignalObserver,
    telemetry: OpenTelemetry,
    tally: ShadowTally,
    recent: RecentRequests | None,
) -> Shadower | None:
    """Return who shadows; None: it is off, or there is no candidate."""
    if not (settings.shadow.is_on and settings.arms.use_candidate):
        return None
    metrics = ShadowMetrics(telemetry)
    return Shadower(
        settings.shadow,
        settings.fallback,
        trier,
        ShadowBudget(settings.shadow),
        latch,
        observers=[
            metrics.shadowed,
            OverlapCount(signals.count_value).shadowed,
            tally.shadowed,
            *([recent.shadowed] if recent else []),
        ],
        on_skip=metrics.skipped,
    )


def judge_of(settings: Settings) -> Judge:
    """Return the judge of the rollout that is planned: its level is that of all of it, and a day at the least."""
    planned = sum(stage.bake_seconds for stage in settings.ramp.stages)
    return Judge(tuple(guardrails_of(settings).values()), max(_DAY_TICKS, planned), settings.guard.alpha)
