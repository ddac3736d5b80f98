"""What a proxy says of itself: the metrics page, the status page, the probes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

    from tests.running import Proxy


def status(proxy: Proxy) -> dict[str, Any]:
    found: dict[str, Any] = proxy.control("/status").json()
    return found


def metrics_page(proxy: Proxy) -> str:
    return httpx.get(f"{proxy.control_url}/metrics").text


def samples(proxy: Proxy, name: str) -> list[Sample]:
    families = text_string_to_metric_families(metrics_page(proxy))
    return [sample for family in families for sample in family.samples if sample.name == name]


def metric(proxy: Proxy, name: str) -> float:
    """Return the sum of a metric over its labels; 0 where it is not there."""
    return sum(sample.value for sample in samples(proxy, name))
