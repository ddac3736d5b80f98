from __future__ import annotations

import pytest

from proxy.errors import InvalidSettings
from proxy.otel import OpenTelemetry, protocols_of

HTTP, GRPC = "http/protobuf", "grpc"


def exported(traces: str | None, metrics: str | None, logs: str | None) -> dict[str, str | None]:
    return {"TRACES": traces, "METRICS": metrics, "LOGS": logs}


@pytest.mark.parametrize(
    ("env", "found"),
    [
        ({}, exported(None, None, None)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, exported(HTTP, HTTP, HTTP)),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, exported(None, None, None)),
        ({"OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": "http://c"}, exported(None, None, HTTP)),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": GRPC}, exported(GRPC, None, None)),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": GRPC},
            exported(HTTP, GRPC, HTTP),
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_METRICS_EXPORTER": "prometheus"},
            exported(HTTP, None, HTTP),
        ),
        ({"OTEL_METRICS_EXPORTER": "otlp,prometheus"}, exported(None, HTTP, None)),
        ({"OTEL_TRACES_EXPORTER": "console", "OTEL_SDK_DISABLED": "true"}, exported(None, None, None)),
    ],
    ids=str,
)
def test_the_standard_variables_say_what_is_exported_and_how(env: dict[str, str], found: dict[str, str | None]) -> None:
    assert protocols_of(env) == found


@pytest.mark.parametrize(
    ("env", "place"),
    [
        ({"OTEL_TRACES_EXPORTER": "console"}, "OTEL_TRACES_EXPORTER"),
        ({"OTEL_LOGS_EXPORTER": "prometheus"}, "OTEL_LOGS_EXPORTER"),
        ({"OTEL_METRICS_EXPORTER": "otlp,zipkin"}, "zipkin"),
        (
            {"OTEL_METRICS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ),
        (
            {"OTEL_LOGS_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "gprc"},
            "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_exported_is_named(env: dict[str, str], place: str) -> None:
    with pytest.raises(InvalidSettings, match=place):
        protocols_of(env)


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({}, "rerank-canary"),
        ({"OTEL_SERVICE_NAME": "mine"}, "mine"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "team=x, service.name=of%20ours"}, "of ours"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=other", "OTEL_SERVICE_NAME": "mine"}, "mine"),
        ({"OTEL_RESOURCE_ATTRIBUTES": "nonsense"}, "rerank-canary"),
    ],
    ids=str,
)
def test_a_service_that_is_given_a_name_keeps_it(env: dict[str, str], name: str) -> None:
    otel = OpenTelemetry(env, "1", "i")
    otel.meters.get_meter("t").create_counter("c").add(1)
    found = {
        sample.labels["service_name"]: sample.labels["service_version"]
        for metric in otel.registry.collect()
        for sample in metric.samples
        if metric.name == "target"
    }
    otel.close()
    assert found == {name: "1"}
