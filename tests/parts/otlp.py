"""An OTLP receiver over gRPC and HTTP/protobuf that keeps all it is sent, and fails when told to."""

from __future__ import annotations

import gzip
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal, Self

import grpc  # type: ignore[import-untyped]
from google.protobuf import text_format  # type: ignore[import-untyped]
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2, logs_service_pb2_grpc
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

from tests.parts.http_server import HttpAnswer, HttpRequest, HttpServer
from tests.running import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

Protocol = Literal["grpc", "http/protobuf"]
Mode = Literal["take", "hang", "refuse"]

_REQUESTS: dict[str, Any] = {
    "metrics": metrics_service_pb2.ExportMetricsServiceRequest,
    "traces": trace_service_pb2.ExportTraceServiceRequest,
    "logs": logs_service_pb2.ExportLogsServiceRequest,
}
_ANSWERS: dict[str, Any] = {
    "metrics": metrics_service_pb2.ExportMetricsServiceResponse,
    "traces": trace_service_pb2.ExportTraceServiceResponse,
    "logs": logs_service_pb2.ExportLogsServiceResponse,
}
_ADD_TO_SERVER: dict[str, Any] = {
    "metrics": metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server,
    "traces": trace_service_pb2_grpc.add_TraceServiceServicer_to_server,
    "logs": logs_service_pb2_grpc.add_LogsServiceServicer_to_server,
}


class OtlpReceiver:
    """Takes metrics, traces and logs; `mode` says what it does with the next of them."""

    def __init__(self) -> None:
        self.mode: Mode = "take"
        self.failed = 0
        """Exports that were hung or refused."""
        self._taken: dict[str, list[Any]] = {"metrics": [], "traces": [], "logs": []}
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._http = HttpServer(self._over_http)
        self._grpc_port = free_port()
        self._grpc: Any = None

    def __enter__(self) -> Self:
        self._grpc = grpc.server(ThreadPoolExecutor(32))
        for signal, add in _ADD_TO_SERVER.items():
            add(_Servicer(self, signal), self._grpc)
        self._grpc.add_insecure_port(f"127.0.0.1:{self._grpc_port}")
        self._grpc.start()
        self._http.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._grpc.stop(0).wait()
        self._http.stop()

    def env(self, protocol: Protocol) -> dict[str, str]:
        """Return the standard variables that send everything here, quickly."""
        port = self._grpc_port if protocol == "grpc" else self._http.port
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
            "OTEL_METRIC_EXPORT_INTERVAL": "500",
            "OTEL_BSP_SCHEDULE_DELAY": "200",
            "OTEL_BLRP_SCHEDULE_DELAY": "200",
        }

    def take(self, signal: str, request: Any) -> bool:
        """Keep one export; False where it is refused. Hangs in mode ``hang``."""
        if self.mode == "take":
            with self._lock:
                self._taken[signal].append(request)
            return True
        self.failed += 1
        if self.mode == "hang":
            self._released.wait(60)
        return False

    def clear(self) -> None:
        with self._lock:
            for taken in self._taken.values():
                taken.clear()

    def spans(self, name: str | None = None) -> list[Any]:
        return [span for span in self._each("traces", "resource_spans", "scope_spans", "spans") if _named(span, name)]

    def metrics(self, name: str | None = None) -> list[Any]:
        found = self._each("metrics", "resource_metrics", "scope_metrics", "metrics")
        return [metric for metric in found if _named(metric, name)]

    def events(self, name: str) -> list[Any]:
        found = self._each("logs", "resource_logs", "scope_logs", "log_records")
        return [record for record in found if record.event_name == name]

    def text(self) -> str:
        """Return everything that was taken, readable."""
        with self._lock:
            requests = [request for taken in self._taken.values() for request in taken]
        return "\n".join(text_format.MessageToString(request, as_utf8=True) for request in requests)

    def _each(self, signal: str, resource: str, scope: str, item: str) -> Iterator[Any]:
        with self._lock:
            requests = list(self._taken[signal])
        for request in requests:
            for of_resource in getattr(request, resource):
                for of_scope in getattr(of_resource, scope):
                    yield from getattr(of_scope, item)

    def _over_http(self, request: HttpRequest) -> HttpAnswer:
        signal = request.path.removeprefix("/v1/")
        if signal not in _REQUESTS:
            return HttpAnswer(404)
        is_packed = request.headers.get("content-encoding") == "gzip"
        body = gzip.decompress(request.body) if is_packed else request.body
        if self.take(signal, _REQUESTS[signal].FromString(body)):
            answer = _ANSWERS[signal]().SerializeToString()
            return HttpAnswer(200, answer, {"content-type": "application/x-protobuf"})
        return HttpAnswer(503)


class _Servicer:
    """One gRPC service; each has the one method Export."""

    def __init__(self, receiver: OtlpReceiver, signal: str) -> None:
        self._receiver = receiver
        self._signal = signal

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's name
        if not self._receiver.take(self._signal, request):
            context.abort(grpc.StatusCode.UNAVAILABLE, "told to refuse")
        return _ANSWERS[self._signal]()


def _named(item: Any, name: str | None) -> bool:
    return name is None or item.name == name


def attributes(item: Any) -> dict[str, Any]:
    """Return the attributes of a span, a data point or a log record."""
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in item.attributes}


def points(metric: Any) -> list[Any]:
    """Return the data points of a metric of any kind."""
    return list(getattr(metric, metric.WhichOneof("data")).data_points)
