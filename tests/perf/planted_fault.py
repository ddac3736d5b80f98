"""A fault of ranking, and what sees it: ``python -m tests.perf.planted_fault [--share 5] [--faulty 0.4]``.

One proxy as installed; both arms are servers that rank by words in common. Users ask the judged sample, and what they
make of an answer cites the passages that are relevant, wherever those stand. Until the fault both arms are the same, so
that what is read then is an A/A pair. Then the candidate turns the order of some queries round: no error, no delay.
Every guardrail of ranking only reports, so that each can be seen to find it.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import tempfile
import threading
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

from proxy.offline.judged_collection import Sources, read_collection
from tests.parts.cross_encoder import CrossEncoderServer, by_words, json_answer
from tests.perf.machine import console, keep, table, this_machine
from tests.running import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.offline.judged import Judged
    from tests.parts.http_server import HttpAnswer

_SEEN_BY = {"shadow": "overlap", "probes, nDCG": "probes", "probes, recall": "recall", "feedback": "misses_relative"}
_USERS = 600
_THREADS = 8
_WAIT_SECONDS = 900.0
_COLUMNS = ("signal", "guardrail", "before the fault", "of", "since the fault", "of", "found after, s")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=int, default=5, help="percent of the users that have the candidate")
    parser.add_argument("--faulty", type=float, default=0.4, help="share of the queries whose order is turned round")
    parser.add_argument("--rate", type=float, default=40.0, help="requests a second")
    parser.add_argument("--healthy-seconds", type=float, default=60.0)
    parser.add_argument("--keep", type=Path, help="write the figures there, as JSON")
    arguments = parser.parse_args()
    machine = this_machine()
    sample = Path("sample_queries.jsonl")
    judged = read_collection(Sources(queries=sample), depth=25)
    with tempfile.TemporaryDirectory() as name:
        found = _planted(Path(name), judged, arguments)
    rows = [[kind, guardrail, *found[guardrail]] for kind, guardrail in _SEEN_BY.items()]
    caption = (
        f"{arguments.rate:g} requests/s, {arguments.share} % to the candidate, which turns {arguments.faulty:.0%} of "
        f"the queries round; values of pairs are differences plus 0.5; {machine}"
    )
    console().print(table("a planted fault of ranking", _COLUMNS, rows, caption=caption))
    keep(arguments.keep, machine, planted=found)


def _planted(folder: Path, judged: Judged, arguments: argparse.Namespace) -> dict[str, tuple[str, ...]]:
    control, candidate = CrossEncoderServer(), CrossEncoderServer()
    env = _env(folder, judged, arguments.share, control, candidate)
    with control.server, candidate.server, Proxy(folder, env) as proxy, _Users(proxy, judged, arguments.rate):
        time.sleep(arguments.healthy_seconds)
        before = _findings(proxy)
        candidate.fault = _turned_round(arguments.faulty)
        began = time.monotonic()
        seen: dict[str, float] = {}
        while len(seen) < len(_SEEN_BY) and time.monotonic() < began + _WAIT_SECONDS:
            after = _findings(proxy)
            for name in _SEEN_BY.values():
                if after[name]["is_breached"] and name not in seen:
                    seen[name] = time.monotonic() - began
                    console().print(f"{seen[name]:6.1f} s  {name}: {_share(after[name])}")
            time.sleep(0.5)
    return {
        name: (
            f"{_share(before[name]):.3f}",
            f"{before[name]['trials']:,.0f}",
            f"{_share(after[name], before[name]):.3f}",
            f"{after[name]['trials'] - before[name]['trials']:,.0f}",
            f"{seen[name]:.0f}" if name in seen else f"not in {_WAIT_SECONDS:g}",
        )
        for name in _SEEN_BY.values()
    }


def _env(
    folder: Path, judged: Judged, share: int, control: CrossEncoderServer, candidate: CrossEncoderServer
) -> dict[str, str]:
    folder.mkdir(parents=True, exist_ok=True)
    probes = folder / "probes.jsonl"
    lines = (
        {
            "query": judged.queries[name],
            "documents": judged.texts(name),
            "judgements": {str(i): judged.grades[name].get(each, 0) for i, each in enumerate(judged.candidates[name])},
        }
        for name in judged.queries
    )
    probes.write_text("\n".join(map(json.dumps, lines)))
    settings: dict[str, object] = {
        "FLAG__INITIAL_SHARE_PERCENT": share,
        "PROBES__FILE": probes,
        "PROBES__INTERVAL_SECONDS": 0.5,
        "SHADOW__IS_ON": "true",
        "SHADOW__CONTROL_PERCENT": 10,
        "SHADOW__CANDIDATE_PERCENT": 50,
        "SHADOW__EXPECTED_OVERLAP": 1.0,
        "FEEDBACK__JUDGE": "true",
        "ARMS__CONTROL": "old",
        "ARMS__CANDIDATE": "new",
        "GUARD__IS_ON": "true",
        "GUARD__GUARDRAILS": json.dumps([{"name": name, "report_only": True} for name in _SEEN_BY.values()]),
    }
    for name, server in (("OLD", control), ("NEW", candidate)):
        url = f"http://127.0.0.1:{server.server.port}"
        settings |= {f"BACKENDS__{name}__KIND": "remote", f"BACKENDS__{name}__API": "tei"}
        settings[f"BACKENDS__{name}__BASE_URL"] = url
    return {f"RERANK_CANARY__{key}": str(value) for key, value in settings.items()}


def _turned_round(share: float) -> Callable[[dict[str, Any]], HttpAnswer]:
    """Return what answers *share* of the queries with the worst documents first, always the same queries."""

    def answer(body: dict[str, Any]) -> HttpAnswer:
        found = by_words(body)
        if zlib.crc32(body["query"].encode()) / 2**32 < share:
            found = [{**each, "score": -each["score"]} for each in found]
        return json_answer(found)

    return answer


class _Users:
    """Ask at a rate, and say by feedback what was relevant."""

    def __init__(self, proxy: Proxy, judged: Judged, rate: float) -> None:
        self._proxy = proxy
        self._judged = judged
        self._names = list(judged.queries)
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(seed, _THREADS / rate)) for seed in range(_THREADS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, seed: int, every_seconds: float) -> None:
        dice = random.Random(seed)  # noqa: S311 - a simulation
        with httpx.Client(base_url=self._proxy.url, timeout=30) as client:
            while not self._stop.wait(dice.expovariate(1 / every_seconds)):
                name = dice.choice(self._names)
                body = {"query": self._judged.queries[name], "documents": self._judged.texts(name)}
                answer = client.post("/v1/rerank", json=body, headers={"x-user-id": f"user-{dice.randrange(_USERS)}"})
                grades = self._judged.grades[name]
                cited = [i for i, each in enumerate(self._judged.candidates[name]) if grades.get(each, 0) > 1]
                if cited:
                    told = {"request_id": answer.raise_for_status().headers["x-rerank-feedback"], "cited": cited}
                    client.post("/v1/feedback", json=told).raise_for_status()


def _findings(proxy: Proxy) -> dict[str, dict[str, Any]]:
    answer = proxy.control("/guard").raise_for_status()
    return {each["guardrail"]: each for each in answer.json()["report"]["findings"]}


def _share(now: dict[str, Any], before: dict[str, Any] | None = None) -> float:
    """Return the mean, or the share of bad events, since *before*."""
    bad = now["bad"] - (before["bad"] if before else 0)
    trials = now["trials"] - (before["trials"] if before else 0)
    return float(bad / trials) if trials else math.nan


if __name__ == "__main__":
    main()
