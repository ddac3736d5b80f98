"""What the same weights in less precision lose: the order, the quality, and what time and room they save for it."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from proxy.engine.batcher import batches_of
from proxy.engine.model_folder import read_facts
from proxy.engine.openvino_engine import OpenVinoEngine
from proxy.engine.pairs import PairEncoder, PairLimits
from proxy.errors import InvalidModel
from proxy.offline.measures import values_of
from proxy.offline.significance import intervals

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from proxy.engine.pairs import TokenPair
    from proxy.offline.judged import Judged

DOCUMENTS, TOKENS = 25, 128
"""What is timed: so many documents, each with the query so many tokens."""
_PAIR_TOKENS, _QUERY_TOKENS = 512, 128
_BATCH_TOKENS = 256
_ROUNDS = 15

Run = dict[str, list[float]]
"""Of each query the logits of its candidates."""


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """How far a version is from the exact one, on the same candidates."""

    spearman: float
    """Mean over queries of the rank correlation."""
    top5_overlap: float
    """Mean over queries: which share of the best five is among the other's best five."""
    ndcg_loss: float
    """Of the mean nDCG@10, the share that is lost; negative: it is better."""
    ndcg_loss_low: float
    """With the next: its 95 % interval, by resampling queries."""
    ndcg_loss_high: float


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One version of a model: its weights in one precision, run by one engine."""

    engine: str
    megabytes: float
    """Graph and weights; MB of 10^6 bytes."""
    milliseconds: float
    """Median for 25 documents of 128 tokens, tokenising included."""
    ndcg10: float
    """Mean over queries."""
    drift: Drift | None = None
    """None: this is what the others are measured against."""


class Version:
    """A model folder as the proxy would serve it."""

    def __init__(self, folder: Path, *, threads: int, is_exact: bool = False) -> None:
        self.folder = folder
        self.encoder = PairEncoder.from_file(folder / "tokenizer.json")
        self.engine = OpenVinoEngine(
            folder,
            self.encoder,
            limits_of(folder),
            threads=threads,
            batch_tokens=_BATCH_TOKENS,
            is_exact=is_exact,
        )

    @property
    def megabytes(self) -> float:
        """Size of graph and weights."""
        return sum((self.folder / name).stat().st_size for name in ("model.xml", "model.bin")) / 1e6

    def logits(self, query: str, documents: Sequence[str]) -> list[float]:
        """Return the raw logit of each document."""
        return self._score(self.encoder.encode(query, documents, self.engine.limits).rows)

    def _score(self, rows: Sequence[TokenPair]) -> list[float]:
        batches = batches_of(rows, self.engine.batch_tokens)
        found = [0.0] * len(rows)
        scored = self.engine.score([[rows[i] for i in batch] for batch in batches])
        for batch, logits in zip(batches, scored, strict=True):
            for i, logit in zip(batch, logits, strict=True):
                found[i] = float(logit)
        return found

    def seconds(self) -> float:
        """Return the time for 25 documents of 128 tokens, tokenising included."""
        limits = PairLimits(min(TOKENS, self.engine.limits.pair), 16)
        documents = [f"{i} " + "word " * TOKENS for i in range(DOCUMENTS)]
        began = time.perf_counter()
        self._score(self.encoder.encode("which of these words is it", documents, limits).rows)
        return time.perf_counter() - began

    def run(self, judged: Judged, on_query: Callable[[], object]) -> Run:
        """Return the logits of every candidate of every query."""
        found = {}
        for query in judged.candidates:
            found[query] = self.logits(judged.queries[query], judged.texts(query))
            on_query()
        return found

    def close(self) -> None:
        """Give back what is held."""
        self.engine.close()


def limits_of(folder: Path) -> PairLimits:
    """Return what a pair may take here: what the model was made for, at most what the figures are of.

    Raises:
        InvalidModel: the folder holds no reranker.

    """
    return PairLimits(min(_PAIR_TOKENS, read_facts(folder).max_tokens), _QUERY_TOKENS)


def milliseconds_of(versions: Sequence[Version]) -> list[float]:
    """Return the median of each, all of them asked in every round."""
    times: list[list[float]] = [[] for _ in versions]
    for _ in range(_ROUNDS):
        for version, taken in zip(versions, times, strict=True):
            taken.append(version.seconds() * 1000)
    return [statistics.median(taken[1:]) for taken in times]


def measured(judged: Judged, versions: Sequence[Version], runs: Sequence[Run]) -> list[Measured]:
    """Return what each version is worth; the first is what the others are measured against.

    Raises:
        InvalidModel: a score is not finite, or the first puts nothing relevant among its best ten.

    """
    for version, run in zip(versions, runs, strict=True):
        if not all(np.isfinite(logits).all() for logits in run.values()):
            raise InvalidModel(f"{version.engine.name}: answers scores that are not finite")
    quality = [_ndcg(judged, run) for run in runs]
    if not quality[0].mean():
        raise InvalidModel(f"on {judged.name} the model puts nothing relevant among its best ten")
    milliseconds = milliseconds_of(versions)
    return [
        Measured(
            engine=version.engine.name,
            megabytes=version.megabytes,
            milliseconds=taken,
            ndcg10=float(values.mean()),
            drift=_drift(runs[0], run, quality[0], values) if number else None,
        )
        for number, (version, run, values, taken) in enumerate(zip(versions, runs, quality, milliseconds, strict=True))
    ]


def _ndcg(judged: Judged, run: Run) -> NDArray[np.float64]:
    return np.array(
        [
            values_of([judged.candidates[query][place] for place in _best(logits)], judged.grades[query])["nDCG@10"]
            for query, logits in run.items()
        ]
    )


def _drift(
    exact: Run,
    run: Run,
    before: NDArray[np.float64],
    after: NDArray[np.float64],
) -> Drift:
    [(low, high)] = intervals((before - after)[:, None] / before.mean(), seed=1)
    return Drift(
        spearman=statistics.mean(spearman(exact[query], logits) for query, logits in run.items()),
        top5_overlap=statistics.mean(
            len(set(_best(exact[query], 5)) & set(_best(logits, 5))) / min(5, len(logits))
            for query, logits in run.items()
        ),
        ndcg_loss=float((before - after).mean() / before.mean()),
        ndcg_loss_low=low,
        ndcg_loss_high=high,
    )


def _best(scores: Sequence[float], k: int | None = None) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: -scores[i])[:k]


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Spearman's rank correlation: Pearson's of the ranks, ties at their mean; 1 where neither has an order."""
    ranks = [_ranks(np.asarray(values)) for values in (a, b)]
    spreads = [float(each.std()) for each in ranks]
    if not all(spreads):
        return 0.0 if any(spreads) else 1.0
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    return np.asarray((ends - (count - 1) / 2)[place], dtype=np.float64)
