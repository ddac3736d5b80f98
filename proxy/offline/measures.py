"""How good an order is by its judgements, as trec_eval has the measures; and what a sample of queries says of it. Pure.

The formulas are those of `alerts.quality`, which measures the probes; here a grade from which on a document is relevant
can be said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from alerts.quality import ndcg, recall, reciprocal_rank

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MEASURES = ("recall@25", "nDCG@25", "nDCG@10", "RR@10", "recall@5")
"""What is reported. A reranker of 25 candidates cannot change recall@25: it is the retriever's."""


def values_of(ranked: Sequence[str], grades: Mapping[str, int], min_grade: int = 1) -> dict[str, float]:
    """Return each of `MEASURES` for the ids *ranked* best first.

    Args:
        ranked: ids, each once.
        grades: of the judged documents, at least one of them relevant; all others are 0.
        min_grade: from which grade on recall and RR take a document for relevant.

    """
    gains = [max(0, grades.get(name, 0)) for name in ranked]
    judged = [max(0, grade) for grade in grades.values()]
    hits = [int(grades.get(name, 0) >= min_grade) for name in ranked]
    relevant = [int(grade >= min_grade) for grade in grades.values()]
    return {
        "recall@25": recall(hits, relevant, 25),
        "nDCG@25": ndcg(gains, judged, 25),
        "nDCG@10": ndcg(gains, judged, 10),
        "RR@10": reciprocal_rank(hits, 10),
        "recall@5": recall(hits, relevant, 5),
    }
