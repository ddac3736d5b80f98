"""From a trained cross-encoder to what is served: static int8, calibrated, and refused where that loses too much."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from proxy.backends import CrossEncoderBackend
from proxy.engine.calibration import FILE as CALIBRATION_FILE
from proxy.engine.calibration import Calibration, Statistic, StatisticRange, statistic_of
from proxy.engine.loading import load
from proxy.engine.pairs import PairEncoder
from proxy.errors import InvalidModel
from proxy.offline.drift import Measured, Run, Version, limits_of, measured
from proxy.offline.export_ir import BESIDE, check, export
from proxy.offline.judged import Judged
from proxy.offline.platt import fit_platt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

PAIRS = 300
"""How many pairs the activation ranges are taken from."""
REPORT_FILE = "quantization.json"
_FALLBACK_SHARE = 0.05
"""The recommended thresholds doubt this share of the judged queries."""
_RANGES_SHARE = 4
"""Where nothing else is given, one query in so many lends its pairs to the activation ranges and is not measured."""


class Quantized(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it."""

    model: str
    folder: str
    is_written: bool
    """False: it loses more than was allowed."""
    max_loss: float
    collection: str
    queries: int
    """Measured and calibrated on."""
    pairs: int
    """That the activation ranges are taken from, none of them of a query that is measured."""
    threads: int
    versions: list[Measured]
    """float32 first, the one that is written last; between them what an IR that is not quantised runs in here."""
    calibration: Calibration
    notes: list[str] = []

    @property
    def loss(self) -> float:
        """The share of nDCG@10 that is lost against float32."""
        drift = self.versions[-1].drift
        assert drift is not None
        return drift.ndcg_loss


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to quantise, and what it may lose."""

    model: Path
    out: Path
    judged: Judged
    ranges: Judged | None = None
    """Whose pairs the activation ranges are taken from. None: a part of *judged*, which is not measured then."""
    max_loss: float
    threads: int


class Progress(msgspec.Struct, frozen=True):
    """Who is told how far it is."""

    on_stage: Callable[[str, int | None], None]
    """What begins, and of how many steps it is."""
    on_step: Callable[[], object]


def quantize_model(plan: Plan, progress: Progress) -> Quantized:
    """Export, quantise, calibrate and measure a model; its folder appears whole, and only if it loses little enough.

    Raises:
        InvalidModel: the model, or the folder to write, cannot be used; or what came of it would not be served.

    """
    check(plan.model)
    if plan.out.exists():
        raise InvalidModel(f"{plan.out}: exists already")
    plan.out.parent.mkdir(parents=True, exist_ok=True)
    judged, pairs = _parts(plan)
    with tempfile.TemporaryDirectory(prefix=f".{plan.out.name}.", dir=plan.out.parent) as name:
        exact, smaller = Path(name) / "exact", Path(name) / plan.out.name
        progress.on_stage("exporting", None)
        export(plan.model, exact)
        progress.on_stage(f"quantising on {len(pairs)} pairs", None)
        quantize(exact, smaller, pairs)
        found, calibration = _measure(plan, judged, (exact, smaller), progress)
        report = Quantized(
            model=str(plan.model),
            folder=str(plan.out),
            is_written=(found[-1].drift is not None and found[-1].drift.ndcg_loss <= plan.max_loss),
            max_loss=plan.max_loss,
            collection=judged.name,
            queries=len(judged.candidates),
            pairs=len(pairs),
            threads=plan.threads,
            versions=found,
            calibration=calibration,
            notes=list(judged.notes),
        )
        if report.is_written:
            write_calibration(calibration, smaller)
            (smaller / REPORT_FILE).write_bytes(_pretty(report))
            load(CrossEncoderBackend(model=str(smaller), threads=plan.threads)).engine.close()
            smaller.rename(plan.out)
    return report


def _parts(plan: Plan) -> tuple[Judged, list[tuple[str, str]]]:
    """Return what is measured, and the pairs for the activation ranges, never of the same queries."""
    queries = list(plan.judged.candidates)
    if plan.ranges is not None:
        return plan.judged, _pairs(plan.ranges)
    if len(queries) < _RANGES_SHARE:
        raise InvalidModel(f"{plan.judged.name} has {len(queries)} queries: it takes {_RANGES_SHARE} at the least")
    lent = queries[::_RANGES_SHARE]
    return plan.judged.only([q for q in queries if q not in set(lent)]), _pairs(plan.judged.only(lent))


def _pairs(judged: Judged) -> list[tuple[str, str]]:
    every = [(judged.queries[query], text) for query in judged.candidates for text in judged.texts(query)]
    return random.Random(1).sample(every, min(PAIRS, len(every)))  # noqa: S311 - a sample, no secret


def _measure(
    plan: Plan, judged: Judged, folders: tuple[Path, Path], progress: Progress
) -> tuple[list[Measured], Calibration]:
    exact, smaller = folders
    versions = [Version(exact, threads=plan.threads, is_exact=True)]
    served = Version(exact, threads=plan.threads)
    versions += [served] if served.engine.precision != versions[0].engine.precision else []
    versions.append(Version(smaller, threads=plan.threads))
    runs = []
    for version in versions:
        progress.on_stage(f"ranking by {version.engine.name}", len(judged.candidates))
        runs.append(version.run(judged, progress.on_step))
    progress.on_stage("timing", None)
    found = measured(judged, versions, runs)
    for version in (*versions, served):
        version.close()
    return found, fit_calibration(judged, runs[-1])


def quantize(ir: Path, out: Path, pairs: Sequence[tuple[str, str]]) -> None:
    """Write a static int8 version of an IR, its activation ranges taken from *pairs* of query and passage."""
    import nncf  # noqa: PLC0415 - from the train extra
    import openvino  # noqa: PLC0415

    encoder = PairEncoder.from_file(ir / "tokenizer.json")
    limits = limits_of(ir)
    graph = openvino.Core().read_model(ir / "model.xml")
    names = [port.any_name for port in graph.inputs]

    def tensors(pair: tuple[str, str]) -> dict[str, NDArray[np.int64]]:
        [row] = encoder.encode(pair[0], [pair[1]], limits).rows
        ids = np.array([row.ids], dtype=np.int64)
        types = np.zeros_like(ids)
        types[0, row.document_start :] = encoder.second_type
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": types}
        return {name: feed[name] for name in names}

    smaller = nncf.quantize(
        graph,
        nncf.Dataset(list(pairs), tensors),
        subset_size=len(pairs),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        fast_bias_correction=True,
    )
    out.mkdir(parents=True, exist_ok=True)
    openvino.save_model(smaller, out / "model.xml", compress_to_fp16=True)
    for name in BESIDE:
        shutil.copy(ir / name, out / name)


def fit_calibration(judged: Judged, run: Run) -> Calibration:
    """Fit Platt's map and the ranges of the statistics to the logits of a model on a judged collection.

    Slope and intercept are fitted to "is judged relevant", the classes weighted as they occur among candidates.
    """
    logits, labels = [], []
    for query, found in run.items():
        grades = judged.grades[query]
        logits += found
        labels += [grades.get(document, 0) > 0 for document in judged.candidates[query]]
    slope, intercept = fit_platt(np.array(logits), np.array(labels))
    plain = Calibration(slope, intercept)
    ranges: dict[Statistic, StatisticRange] = {}
    kinds: tuple[Statistic, ...] = ("top1", "mean", "margin")
    for kind in kinds:
        values = sorted(statistic_of(kind, found, plain, 2) for found in run.values() if len(found) > 1)
        if values:
            threshold = values[int(len(values) * _FALLBACK_SHARE)]
            ranges[kind] = StatisticRange(round(values[0], 4), round(values[-1], 4), round(threshold, 4))
    return Calibration(round(slope, 5), round(intercept, 5), ranges)


def write_calibration(calibration: Calibration, folder: Path) -> None:
    """Write what `proxy.engine.calibration.read_calibration` reads."""
    (folder / CALIBRATION_FILE).write_bytes(_pretty(calibration))


def _pretty(value: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"
