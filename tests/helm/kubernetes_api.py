"""An API server that keeps what it is given and checks nothing: kmock, in the environment of the checkers.

Started by test_install.py with a port. What is kept is at /kept, as JSON: kind, namespace, name → manifest.
"""

from __future__ import annotations

import asyncio
import sys

import kmock
from aiohttp import web

RESOURCES = {
    "v1": ("ConfigMap", "PersistentVolumeClaim", "Pod", "Secret", "Service", "ServiceAccount"),
    "apps/v1": ("Deployment",),
    "autoscaling/v2": ("HorizontalPodAutoscaler",),
    "batch/v1": ("CronJob", "Job"),
    "gateway.networking.k8s.io/v1": ("HTTPRoute",),
    "monitoring.coreos.com/v1": ("PrometheusRule", "ServiceMonitor"),
    "networking.k8s.io/v1": ("Ingress", "NetworkPolicy"),
    "policy/v1": ("PodDisruptionBudget",),
}
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def plural(kind: str) -> str:
    """Return the name of a kind in a path."""
    name = kind.lower()
    return name[:-1] + "ies" if name.endswith("y") else name + "es" if name.endswith("s") else name + "s"


def make() -> kmock.KubernetesEmulator:
    """Return the server's logic."""
    api = kmock.KubernetesEmulator()
    api["get /version"] << {"major": "1", "minor": "37", "gitVersion": "v1.37.0"}
    for version, kinds in RESOURCES.items():
        group, _, number = version.rpartition("/")
        for kind in kinds:
            info = {"kind": kind, "singular": kind.lower(), "verbs": set(VERBS), "namespaced": True}
            api.resources[kmock.resource(group=group, version=number, plural=plural(kind))] = info
    # kmock says `/v1` of the core's group, which helm does not read.
    api["get /api/v1"] << {
        "apiVersion": "v1",
        "kind": "APIResourceList",
        "groupVersion": "v1",
        "resources": [
            {"name": plural(kind), "kind": kind, "singularName": kind.lower(), "namespaced": True, "verbs": VERBS}
            for kind in RESOURCES["v1"]
        ],
    }
    return api


async def serve(port: int) -> None:
    """Serve until killed."""
    api = make()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path != "/kept":
            return await api(request)
        kept = [each.raw for each in api.objects.values() if not each.deleted]
        return web.json_response(kept)

    async with api:
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
