"""Metrics, spans and the flag event of every request, over OTLP and as a Prometheus page.

Exporters are chosen by the standard OTEL_ variables; without any only the Prometheus page is served.
They run in threads of the SDK behind bounded queues, so a collector that is down costs nothing but its
data; what is dropped is counted by the SDK's own ``otel.sdk.*`` metrics. Labels come from closed sets.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote

import structlog
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExplicitBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import CollectorRegistry

from proxy.errors import InvalidSettings

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_log = structlog.get_logger(__name__)

Signal = Literal["TRACES", "METRICS", "LOGS"]

_PROTOCOLS = ("grpc", "http/protobuf")
_FLUSH_SECONDS = 5.0
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.4, 0.6, 0.8, 1, 1.5, 2.5, 5, 7.5, 10, 20)
_TOKENS = (64, 256, 1024, 2048, 4096, 8192, 16384, 65536)


class OpenTelemetry:
    """The providers of one process; nothing global.

    Raises:
        InvalidSettings: an OTEL_ variable asks for an exporter or a protocol that is not here.

    """

    def __init__(self, env: Mapping[str, str], version: str, instance_id: str) -> None:
        os.environ.setdefault("OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED", "true")
        protocols = protocols_of(env)
        resource = Resource.create(_attributes(env, version, instance_id))
        self.registry = CollectorRegistry()
        readers: list[MetricReader] = [PrometheusMetricReader(scope_info_enabled=False, registry=self.registry)]
        if protocol := protocols["METRICS"]:
            readers.append(PeriodicExportingMetricReader(_exporter(protocol, "METRICS", None)))
        self.meters = MeterProvider(readers, resource=resource, views=_views(), shutdown_on_exit=False)
        self.traces: TracerProvider | None = None
        if protocol := protocols["TRACES"]:
            self.traces = TracerProvider(resource=resource, meter_provider=self.meters, shutdown_on_exit=False)
            exporter = _exporter(protocol, "TRACES", self.meters)
            self.traces.add_span_processor(BatchSpanProcessor(exporter, meter_provider=self.meters))
        self.logs: LoggerProvider | None = None
        if protocol := protocols["LOGS"]:
            self.logs = LoggerProvider(resource=resource, shutdown_on_exit=False)
            exporter = _exporter(protocol, "LOGS", self.meters)
            self.logs.add_log_record_processor(BatchLogRecordProcessor(exporter, meter_provider=self.meters))

    def close(self) -> None:
        """Send what is left, for a few seconds at most: a collector that hangs must not keep the process. Blocks."""
        providers = [provider for provider in (self.traces, self.logs, self.meters) if provider is not None]
        # Daemons, because the SDK's own calls cannot be broken off: one that hangs ends with the process.
        threads = [threading.Thread(target=provider.shutdown, daemon=True) for provider in providers]
        end = time.monotonic() + _FLUSH_SECONDS
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        if any(thread.is_alive() for thread in threads):
            _log.warning("telemetry.not_flushed", seconds=_FLUSH_SECONDS)


def _attributes(env: Mapping[str, str], version: str, instance_id: str) -> dict[str, str]:
    """Return what this process is: what the OTEL_ variables say, and our own words for the rest."""
    pairs = (pair.partition("=") for pair in env.get("OTEL_RESOURCE_ATTRIBUTES", "").split(",") if "=" in pair)
    given = {name.strip(): unquote(value.strip()) for name, _, value in pairs}
    if env.get("OTEL_SERVICE_NAME"):
        given["service.name"] = env["OTEL_SERVICE_NAME"]
    ours = {"service.name": "rerank-canary", "service.version": version, "service.instance.id": instance_id}
    return ours | given


def protocols_of(env: Mapping[str, str]) -> dict[Signal, str | None]:
    """Return ``grpc`` or ``http/protobuf`` for each signal; None where nothing says that it is to be exported.

    Raises:
        InvalidSettings: an OTEL_ variable asks for an exporter or a protocol that is not here.

    """
    return {"TRACES": _protocol(env, "TRACES"), "METRICS": _protocol(env, "METRICS"), "LOGS": _protocol(env, "LOGS")}


def _protocol(env: Mapping[str, str], signal: Signal) -> str | None:
    if env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    variable = f"OTEL_{signal}_EXPORTER"
    has_endpoint = bool(env.get(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or env.get("OTEL_EXPORTER_OTLP_ENDPOINT"))
    chosen = {name.strip() for name in (env.get(variable) or ("otlp" if has_endpoint else "none")).split(",")}
    known = {"otlp", "none"} | ({"prometheus"} if signal == "METRICS" else set())  # its page is always served
    if unknown := chosen - known:
        raise InvalidSettings(f"{variable}: there is no exporter `{min(unknown)}` here, only {_words(known)}")
    if "otlp" not in chosen:
        return None
    for name in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        if protocol := env.get(name):
            if protocol not in _PROTOCOLS:
                raise InvalidSettings(f"{name}: there is no protocol `{protocol}` here, only {_words(_PROTOCOLS)}")
            return protocol
    return "http/protobuf"


def _words(names: Collection[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _exporter(protocol: str, signal: Signal, meters: MeterProvider | None) -> Any:
    """Return the exporter of one signal; it reads the rest of its OTEL_ variables itself."""
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter  # noqa: PLC0415 - gRPC is slow to load
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    else:
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter  # type: ignore[assignment]  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # type: ignore[assignment]  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # type: ignore[assignment]  # noqa: PLC0415
    kinds: dict[str, Any] = {"TRACES": OTLPSpanExporter, "METRICS": OTLPMetricExporter, "LOGS": OTLPLogExporter}
    return kinds[signal](meter_provider=meters) if meters else kinds[signal]()


def _views() -> list[View]:
    return [
        View(instrument_unit="s", aggregation=ExplicitBucketHistogramAggregation(_SECONDS)),
        View(instrument_unit="{token}", aggregation=ExplicitBucketHistogramAggregation(_TOKENS)),
    ]
