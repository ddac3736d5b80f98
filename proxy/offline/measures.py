"""How good an order is by its judgements, as trec_eval has the measures; and what a sample of queries says of it. Pure.

nDCG: gain = grade, discount 1 / log2(rank + 1) (Järvelin and Kekäläinen 2002), the ideal order being that of all
judged documents, retrieved or not. RR: 1 / rank of the first relevant document. Recall: share of the relevant ones.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

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
    ideal = sorted((max(0, grade) for grade in grades.values()), reverse=True)
    hits = [grades.get(name, 0) >= min_grade for name in ranked]
    relevant = sum(grade >= min_grade for grade in grades.values())
    return {
        "recall@25": sum(hits[:25]) / relevant,
        "nDCG@25": _dcg(gains, 25) / _dcg(ideal, 25),
        "nDCG@10": _dcg(gains, 10) / _dcg(ideal, 10),
        "RR@10": next((1 / rank for rank, is_hit in enumerate(hits[:10], 1) if is_hit), 0.0),
        "recall@5": sum(hits[:5]) / relevant,
    }


def _dcg(gains: Sequence[int], k: int) -> float:
    return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(gains[:k], 1))
