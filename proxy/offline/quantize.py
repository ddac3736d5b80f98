"""From a trained cross-encoder to what is served: OpenVINO IR, static int8, calibrated, and its loss measured."""

from __future__ import annotations

import shutil
import statistics
import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from proxy.engine.batcher import batches_of
from proxy.engine.calibration import FILE as CALIBRATION_FILE
from proxy.engine.calibration import Calibration, Statistic, StatisticRange, statistic_of
from proxy.engine.openvino_engine import OpenVinoEngine
from proxy.engine.pairs import PairEncoder, PairLimits
from proxy.errors import InvalidModel
from proxy.offline.judged import Judged, measure
from proxy.offline.platt import fit_platt

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from proxy.engine.pairs import TokenPair

LIMITS = PairLimits(512, 128)
_CALIBRATION_PAIRS = 300
_FALLBACK_SHARE = 0.05
"""The recommended thresholds doubt this share of the judged queries."""


class Loss(msgspec.Struct, frozen=True):
    """What a smaller model costs, against the one it was made from."""

    megabytes: float
    megabytes_before: float
    milliseconds: float
    """Median for 25 documents of 128 tokens."""
    milliseconds_before: float
    spearman: float
    top5_overlap: float
    ndcg10: dict[str, float]
    """By collection."""
    ndcg10_before: dict[str, float]

    @property
    def ndcg_loss(self) -> float:
        """Mean relative loss of nDCG@10 over the collections."""
        before = statistics.mean(self.ndcg10_before.values())
        return (before - statistics.mean(self.ndcg10.values())) / before


def export(model: Path, out: Path) -> None:
    """Write the OpenVINO IR of a sentence-transformers cross-encoder, with fp16 weights.

    Raises:
        InvalidModel: it is no sequence classifier that torch can load.

    """
    import openvino  # noqa: PLC0415 - with torch, from the train extra
    import torch  # noqa: PLC0415
    from transformers import AutoModelForSequenceClassification  # noqa: PLC0415

    try:
        loaded = AutoModelForSequenceClassification.from_pretrained(
            str(model), dtype=torch.float32, attn_implementation="eager", local_files_only=True
        ).eval()
    except (OSError, ValueError) as exc:
        raise InvalidModel(f"{model}: cannot be loaded: {str(exc).splitlines()[0]}") from exc
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if loaded.config.type_vocab_size > 1 else [])]

    class Logits(torch.nn.Module):  # type: ignore[misc]  # torch is not there where this is checked
        """The model as a function of tensors alone."""

        def __init__(self) -> None:
            super().__init__()
            self.model = loaded

        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any = None) -> Any:
            more = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
            return self.model(input_ids=input_ids, attention_mask=attention_mask, **more).logits

    example = torch.ones(2, 16, dtype=torch.int64)
    shape = openvino.PartialShape([-1, -1])
    with torch.no_grad():
        graph = openvino.convert_model(
            Logits(),
            example_input=dict.fromkeys(names, example),
            input=[(name, shape, openvino.Type.i64) for name in names],
        )
    for port, name in zip(graph.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    out.mkdir(parents=True, exist_ok=True)
    openvino.save_model(graph, out / "model.xml", compress_to_fp16=True)
    for name in ("tokenizer.json", "config.json"):
        shutil.copy(model / name, out / name)


def quantize(ir: Path, out: Path, pairs: Sequence[tuple[str, str]]) -> None:
    """Write a static int8 version of an IR, its activation ranges taken from *pairs* of query and passage."""
    import nncf  # noqa: PLC0415 - from the train extra
    import openvino  # noqa: PLC0415

    encoder = PairEncoder.from_file(ir / "tokenizer.json")
    graph = openvino.Core().read_model(ir / "model.xml")
    names = [port.any_name for port in graph.inputs]

    def tensors(pair: tuple[str, str]) -> dict[str, NDArray[np.int64]]:
        [row] = encoder.encode(pair[0], [pair[1]], LIMITS).rows
        ids = np.array([row.ids], dtype=np.int64)
        types = np.zeros_like(ids)
        types[0, row.document_start :] = encoder.second_type
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": types}
        return {name: feed[name] for name in names}

    smaller = nncf.quantize(
        graph,
        nncf.Dataset(list(pairs)[:_CALIBRATION_PAIRS], tensors),
        subset_size=_CALIBRATION_PAIRS,
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        fast_bias_correction=True,
    )
    out.mkdir(parents=True, exist_ok=True)
    openvino.save_model(smaller, out / "model.xml", compress_to_fp16=True)
    for name in ("tokenizer.json", "config.json"):
        shutil.copy(ir / name, out / name)


class Folder:
    """A model folder as the proxy would serve it, for measuring."""

    def __init__(self, folder: Path, *, threads: int = 2) -> None:
        self.folder = folder
        self.encoder = PairEncoder.from_file(folder / "tokenizer.json")
        self.engine = OpenVinoEngine(folder, self.encoder, LIMITS, threads=threads, batch_tokens=256)

    @property
    def megabytes(self) -> float:
        """Size of graph and weights."""
        return sum((self.folder / name).stat().st_size for name in ("model.xml", "model.bin")) / 1e6

    def logits(self, query: str, documents: Sequence[str]) -> list[float]:
        """Return the raw logit of each document."""
        return self._score(self.encoder.encode(query, documents, LIMITS).rows)

    def _score(self, rows: Sequence[TokenPair]) -> list[float]:
        batches = batches_of(rows, self.engine.batch_tokens)
        found = [0.0] * len(rows)
        scored = self.engine.score([[rows[i] for i in batch] for batch in batches])
        for batch, logits in zip(batches, scored, strict=True):
            for i, logit in zip(batch, logits, strict=True):
                found[i] = float(logit)
        return found

    def milliseconds(self, rounds: int = 15) -> float:
        """Return the median time for 25 documents of 128 tokens each, tokenising included."""
        documents = [f"{i} " + "word " * 116 for i in range(25)]
        times = []
        for i in range(rounds):
            began = time.perf_counter()
            self.logits(f"which of these words is number {i}", documents)
            times.append((time.perf_counter() - began) * 1000)
        return statistics.median(times)

    def run(self, judged: Judged) -> dict[str, list[float]]:
        """Return the logits of every candidate of every query."""
        return {
            query: self.logits(judged.queries[query], [judged.documents[d] for d in ids])
            for query, ids in judged.candidates.items()
        }


def compare(before: Folder, after: Folder, collections: Sequence[Judged]) -> tuple[Loss, list[dict[str, list[float]]]]:
    """Return what *after* loses against *before* on judged collections, and *after*'s logits on each."""
    spearman, overlap, ndcg, ndcg_before, runs = [], [], {}, {}, []
    for judged in collections:
        run_before, run = before.run(judged), after.run(judged)
        runs.append(run)
        for query, found in run.items():
            spearman.append(_spearman(run_before[query], found))
            overlap.append(len(set(_top(run_before[query])) & set(_top(found))) / len(_top(found)))
        ndcg_before[judged.name] = measure(judged, run_before, ["nDCG@10"])["nDCG@10"]
        ndcg[judged.name] = measure(judged, run, ["nDCG@10"])["nDCG@10"]
    loss = Loss(
        megabytes=after.megabytes,
        megabytes_before=before.megabytes,
        milliseconds=after.milliseconds(),
        milliseconds_before=before.milliseconds(),
        spearman=statistics.mean(spearman),
        top5_overlap=statistics.mean(overlap),
        ndcg10=ndcg,
        ndcg10_before=ndcg_before,
    )
    return loss, runs


def _top(scores: Sequence[float], k: int = 5) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: -scores[i])[:k]


def _spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Spearman's rank correlation: Pearson's of the ranks."""
    ranks = [np.argsort(np.argsort(x)) for x in (a, b)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1]) if len(a) > 1 else 1.0


def fit_calibration(collections: Sequence[Judged], runs: Sequence[dict[str, list[float]]]) -> Calibration:
    """Fit Platt's map and the ranges of the statistics to the logits of a model on judged collections.

    Slope and intercept are fitted to "is judged relevant", the classes weighted as they occur among candidates.
    """
    logits, labels = [], []
    for judged, run in zip(collections, runs, strict=True):
        for query, found in run.items():
            grades = judged.grades[query]
            logits += found
            labels += [grades.get(document, 0) > 0 for document in judged.candidates[query]]
    slope, intercept = fit_platt(np.array(logits), np.array(labels))
    plain = Calibration(slope, intercept)
    ranges: dict[Statistic, StatisticRange] = {}
    kinds: tuple[Statistic, ...] = ("top1", "mean", "margin")
    for kind in kinds:
        values = sorted(statistic_of(kind, found, plain, 2) for run in runs for found in run.values() if len(found) > 1)
        ranges[kind] = StatisticRange(
            round(values[0], 4), round(values[-1], 4), round(values[int(len(values) * _FALLBACK_SHARE)], 4)
        )
    return Calibration(round(slope, 5), round(intercept, 5), ranges)


def write_calibration(calibration: Calibration, folder: Path) -> None:
    """Write what `proxy.engine.calibration.read_calibration` reads."""
    text = msgspec.json.format(msgspec.json.encode(calibration), indent=2)
    (folder / CALIBRATION_FILE).write_bytes(text + b"\n")
