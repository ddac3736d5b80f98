"""Judged probes: what is read, how an order is measured, and what is counted of a pair."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from alerts.guardrails import Value
from alerts.quality import Quality, quality_of
from proxy.attempts import BoundArm, Trier
from proxy.breaker import Breaker
from proxy.errors import BackendError, InvalidFile
from proxy.exposure import Role
from proxy.otel import OpenTelemetry
from proxy.otel_observer import OtelObserver
from proxy.probes import Probe, Prober, read_probes
from proxy.quality_settings import Probes
from tests.arms import WordArm

if TYPE_CHECKING:
    from pathlib import Path

PROBE = Probe("cats", ["dogs", "cats", "birds", "more cats", "mice", "fish", "cows"], {1: 2, 3: 1})


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "has no probes"),
        (["{"], ":1"),
        (['{"query": "x", "documents": ["a"], "judgements": {"0": 1}}'], "at least two documents"),
        (['{"query": " ", "documents": ["a", "b"], "judgements": {"0": 1}}'], "needs a query"),
        (['{"query": "x", "documents": ["a", "b"], "judgements": {"2": 1}}'], "an index is no document's"),
        (['{"query": "x", "documents": ["a", "b"], "judgements": {"0": -1}}'], "a grade must be"),
        (['{"query": "x", "documents": ["a", "b"], "judgements": {"0": 0}}'], "no document is relevant"),
        (['{"query": "x", "documents": ["a", "b"], "judgements": {}, "more": 1}'], "more"),
    ],
)
def test_a_file_that_is_no_probes_is_refused_by_its_line(tmp_path: Path, lines: list[str], words: str) -> None:
    file = tmp_path / "probes.jsonl"
    file.write_text("\n".join(lines))
    with pytest.raises(InvalidFile) as refused:
        read_probes(file)
    assert words in str(refused.value)
    assert str(file) in str(refused.value)


def test_probes_are_read_with_blank_lines_between(tmp_path: Path) -> None:
    file = tmp_path / "probes.jsonl"
    line = json.dumps({"query": "cats", "documents": PROBE.documents, "judgements": PROBE.judgements})
    file.write_text(f"{line}\n\n{line}\n")
    assert read_probes(file) == (PROBE, PROBE)


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="cannot be read"):
        read_probes(tmp_path / "none.jsonl")


class Leads:
    is_leader = True


def prober(
    control: WordArm, candidate: WordArm, settings: Probes | None = None, probe: Probe = PROBE
) -> tuple[Prober, Counted]:
    bound = {
        role: BoundArm(arm, "scripted", Breaker(5, 10.0))
        for role, arm in ((Role.CONTROL, control), (Role.CANDIDATE, candidate))
    }
    counted = Counted()
    made = Prober(
        [probe],
        settings or Probes(),
        Trier(bound),
        Leads(),
        count=lambda value, level: counted.levels.append((value, level)),
        measure=lambda role, quality: counted.measured.append((role, quality)),
    )
    return made, counted


class Counted:
    def __init__(self) -> None:
        self.levels: list[tuple[Value, int]] = []
        self.measured: list[tuple[Role, Quality]] = []


def best() -> WordArm:
    return WordArm("best", lambda _, text: float("cats" in text) + (text == "cats"))


def worst() -> WordArm:
    return WordArm("worst", lambda _, text: -float("cats" in text) - (text == "cats"))


def test_a_candidate_that_ranks_worse_counts_below_the_middle() -> None:
    made, counted = prober(best(), worst())
    asyncio.run(made.once(0))
    found = dict(counted.levels)
    assert found[Value.PROBE] < 32
    assert found[Value.RECALL] < 32
    assert [role for role, _ in counted.measured] == [Role.CANDIDATE, Role.CONTROL]


def test_of_five_documents_or_fewer_recall_says_nothing_and_is_not_counted() -> None:
    made, counted = prober(best(), worst(), probe=Probe("cats", ["dogs", "cats", "birds", "more cats"], {1: 2}))
    asyncio.run(made.once(0))
    assert [value for value, _ in counted.levels] == [Value.PROBE]


def test_equal_orders_count_in_the_middle() -> None:
    made, counted = prober(best(), best())
    asyncio.run(made.once(0))
    assert dict(counted.levels) == {Value.PROBE: 32, Value.RECALL: 32}


def test_control_is_asked_once_for_a_while() -> None:
    control, candidate = best(), best()
    made, counted = prober(control, candidate)
    for _ in range(3):
        asyncio.run(made.once(0))
    assert (len(control.calls), len(candidate.calls), len(counted.levels)) == (1, 3, 6)


def test_control_is_asked_each_time_where_nothing_is_kept() -> None:
    control = best()
    made, _ = prober(control, best(), Probes(control_seconds=0))
    for _ in range(2):
        asyncio.run(made.once(0))
    assert len(control.calls) == 2


def test_a_spent_budget_asks_control_no_more_and_says_so() -> None:
    control = best()
    control.cost_dollars = 0.3
    made, counted = prober(control, best(), Probes(control_seconds=0, max_dollars_per_hour=0.5))
    for _ in range(5):
        asyncio.run(made.once(0))
    assert len(control.calls) == 2
    assert made.error == "the probes' budget of this hour is spent"
    assert len(counted.levels) == 10


@pytest.mark.parametrize("fails", ["control", "candidate"])
def test_without_both_answers_there_is_no_pair(fails: str) -> None:
    broken = best()
    broken.fault = BackendError("boom")
    arms = (broken, best()) if fails == "control" else (best(), broken)
    made, counted = prober(*arms)
    asyncio.run(made.once(0))
    assert counted.levels == []
    assert made.error is not None
    assert fails in made.error


def test_every_measure_of_a_probe_is_a_metric_by_role_but_not_one_that_cannot_vary() -> None:
    telemetry = OpenTelemetry({}, "1", "a")
    observer = OtelObserver(telemetry)
    observer.probed(Role.CANDIDATE, quality_of({2: 1}, [3.0, 2.0, 1.0]))

    def read(kind: str, metric: str) -> float | None:
        labels = {"rerank_role": "candidate", "rerank_quality_metric": metric}
        return telemetry.registry.get_sample_value(f"rerank_probe_quality_{kind}", labels)

    found = {metric: read("sum", metric) for metric in Quality.__struct_fields__}
    telemetry.close()
    assert found == {
        "ndcg_at_10": pytest.approx(0.5),
        "ndcg_at_25": pytest.approx(0.5),
        "recall_at_5": 1,
        "recall_at_25": None,
        "rr_at_10": pytest.approx(1 / 3),
    }


def test_probes_are_asked_in_an_order_that_says_nothing() -> None:
    documents = [f"document {place}" for place in range(20)]
    probe = Probe("a query", documents, {0: 3, 1: 2, 2: 1})
    found = probe.shuffled()
    assert found == probe.shuffled()
    assert found.documents != documents
    assert {found.documents[place]: grade for place, grade in found.judgements.items()} == {
        "document 0": 3,
        "document 1": 2,
        "document 2": 1,
    }
    assert quality_of(found.judgements, [0.5] * 20).ndcg_at_10 < 0.9  # a model that collapsed
