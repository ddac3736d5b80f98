"""How well control ranks judged queries, asked of a running proxy, measured by ir-measures.

Recall at k tells nothing of an order of k documents or fewer: every order has the same. So it is measured over the
queries that bring more documents than k, and where there are none, that is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from proxy.baseline_file import Measure, Quality
from proxy.probes import Probe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


_NDCG_AT = (10, 25)
_RECALL_AT = (5, 25, 50)
_TIMEOUT_SECONDS = 60.0
_JOBS = 4


class Ordered(msgspec.Struct, frozen=True):
    """One judged query, and the order that control made of its documents."""

    probe: Probe
    order: Sequence[int]
    model: str


class RefusedByProxy(Exception):
    """The proxy does not let this caller ask; the message says why."""

    def __init__(self, message: str, *, is_key: bool) -> None:
        super().__init__(message)
        self.is_key = is_key
        """Whether it is for a key or token."""


class ControlArm:
    """A running proxy's control arm; whatever the flag says, it is asked to rank."""

    def __init__(self, url: str, *, key: str, control_token: str) -> None:
        headers = {
            "x-rerank-force-arm": "control",
            "x-rerank-control-key": control_token,
            "x-user-id": "baseline",
            **({"authorization": f"Bearer {key}"} if key else {}),
        }
        self._client = httpx.Client(base_url=url, headers=headers, timeout=_TIMEOUT_SECONDS)

    def rank(self, probe: Probe) -> Ordered | None:
        """Return control's order; None: it gave none, whoever answered instead.

        Raises:
            httpx.HTTPError: the proxy cannot be reached.
            RefusedByProxy: it refuses to be asked.

        """
        count = len(probe.documents)
        body = {"query": probe.query, "documents": probe.documents, "return_documents": False, "top_n": count}
        answer = self._client.post("/v1/rerank", json=body)
        if 400 <= answer.status_code < 500 and answer.status_code != 429:
            raise RefusedByProxy(_message(answer), is_key=answer.status_code in {401, 403})
        if not answer.is_success or answer.headers.get("x-rerank-served-by") != "control":
            return None
        found = answer.json()
        order = [each["index"] for each in found["results"]]
        return Ordered(probe, order, found["model"]) if len(order) == count else None

    def rank_all(self, probes: Sequence[Probe], on_ranked: Callable[[], None]) -> list[Ordered | None]:
        """Rank all, a few at a time. Raises what `rank` does."""

        def rank(probe: Probe) -> Ordered | None:
            found = self.rank(probe)
            on_ranked()
            return found

        with ThreadPoolExecutor(_JOBS) as pool:
            try:
                return list(pool.map(rank, probes))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _message(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"the proxy answered {answer.status_code}"


def quality_of_orders(file: Path, found: Sequence[Ordered | None]) -> Quality:
    """Return the measures of what was ranked."""
    ranked = [each for each in found if each is not None]
    measures = [_mean(f"nDCG@{at}", ranked) for at in _NDCG_AT]
    for at in _RECALL_AT:
        telling = [each for each in ranked if len(each.order) > at]
        note = "" if telling else f"every order of {at} documents or fewer has the same; no query has more"
        measures.append(msgspec.structs.replace(_mean(f"R@{at}", telling), note=note))
    return Quality(
        file=str(file),
        queries=len(found),
        not_ranked=len(found) - len(ranked),
        models=sorted({each.model for each in ranked}),
        measures=measures,
    )


def _mean(name: str, ranked: Sequence[Ordered]) -> Measure:
    if not ranked:
        return Measure(name=name, value=None, queries=0)
    import ir_measures  # noqa: PLC0415 - comes with the extra

    run: dict[str, dict[str, float]] = {}
    grades: dict[str, dict[str, int]] = {}
    for number, each in enumerate(ranked):
        count = len(each.order)
        run[str(number)] = {str(index): float(count - place) for place, index in enumerate(each.order)}
        grades[str(number)] = {str(index): grade for index, grade in each.probe.judgements.items()}
    measure: Any = ir_measures.parse_measure(name)
    found = ir_measures.calc_aggregate([measure], grades, run)
    return Measure(name=name, value=float(found[measure]), queries=len(ranked))
