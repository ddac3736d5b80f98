"""From a fault to the page, on real servers: ``python -m tests.perf.incident [--rounds N]``.

Three proxies over a Redis and an Unleash, users without a pause, a candidate that is made late, fails, or
ranks worst first. When it was taken out is read off the record, when the last of its requests was served off the
proxies' logs, when the page came off the webhook behind a real Alertmanager.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.integration.test_guard import USERS, Site, failing, late, wait_for_rollback, wrong
from tests.parts.callers import Callers
from tests.parts.programs import eventually
from tests.parts.unleash import Postgres, Unleash
from tests.perf.machine import console, keep, table, this_machine

if TYPE_CHECKING:
    from collections.abc import Callable

_FAULTS = {"late": late, "failing": failing, "wrong": wrong}
_COLUMNS = (
    "fault",
    "guardrail",
    "candidate requests/s",
    "fault → rollback",
    "→ flag at 0",
    "→ last candidate request",
    "→ page",
    "rearm → resolved",
)


def main() -> None:
    """Print the table: medians, in seconds; after the second column from the rollback on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", type=Path, help="write the figures there, as JSON")
    arguments = parser.parse_args()
    machine = this_machine()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in _FAULTS}
    with tempfile.TemporaryDirectory() as name, Postgres() as database:
        folder = Path(name)
        (folder / "unleash").mkdir()
        with Unleash(database.url, folder / "unleash") as unleash:
            site = Site(unleash, folder)
            with site.candidate.server, site.on_call, site.alertmanager, site.redis, site.fleet, site.prometheus:
                for _ in range(arguments.rounds):
                    for kind, fault in _FAULTS.items():
                        found[kind].append(_incident(site, fault))
                        console().print(kind, found[kind][-1])
    rows = [[kind, each[0]["guardrail"], *(_median(each, key) for key in _KEYS)] for kind, each in found.items()]
    console().print(table("incidents", _COLUMNS, rows, caption=str(machine)))
    keep(arguments.keep, machine, incidents=found)


_KEYS = ("rate", "to_rollback", "to_flag", "to_last_candidate", "to_page", "to_resolved")


def _incident(site: Site, fault: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    site.begin()
    with Callers(site.fleet.proxies[0].url, USERS, threads=6) as callers:
        began, asked = time.time(), len(callers.answers)
        eventually(lambda: site.guard()["candidate_requests"] > 100, timeout_seconds=60)
        asked = sum(answer.arm == "candidate" for answer in callers.answers[asked:])
        rate = asked / (time.time() - began)
        at = time.time()
        site.candidate.fault = fault
        rollback = wait_for_rollback(site, timeout_seconds=90)
        eventually(lambda: site.pages(rollback["rollback_id"]), timeout_seconds=20, every_seconds=0.005)
        paged_at = time.time()
        site.fleet.wait_until_agreed()
        site.candidate.fault = None
        time.sleep(2)
    written = next(entry for entry in site.fleet.history() if entry["action"] == "flag_written")
    site.fleet.order("rearm", reason="mended", force=True)
    rearmed_at = time.time()
    eventually(lambda: site.pages(rollback["rollback_id"], "resolved"), timeout_seconds=20, every_seconds=0.005)
    return {
        "guardrail": json.loads(rollback["evidence"])["finding"]["guardrail"],
        "rate": rate,
        "to_rollback": rollback["at"] - at,
        "to_flag": written["at"] - rollback["at"],
        "to_last_candidate": _last_candidate_at(site, paged_at) - rollback["at"],
        "to_page": paged_at - rollback["at"],
        "to_resolved": time.time() - rearmed_at,
    }


def _last_candidate_at(site: Site, before: float) -> float:
    """Return when the last request that was the candidate's began, by the proxies' logs."""
    found = 0.0
    for proxy in site.fleet.proxies:
        for line in proxy.log.read_text().splitlines():
            if '"rerank.served"' not in line:
                continue
            told = json.loads(line)
            ended_at = dt.datetime.fromisoformat(told["timestamp"]).timestamp()
            if told["arm"] == "candidate" and ended_at < before + 5:
                found = max(found, ended_at - told["seconds"])
    return found


def _median(incidents: list[dict[str, Any]], key: str) -> str:
    return f"{statistics.median(each[key] for each in incidents):.2f}"


if __name__ == "__main__":
    main()
