"""Builds the engine that a configuration asks for, and proves that it ranks."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING

import msgspec

from proxy.engine.base import Engine
from proxy.engine.calibration import Calibration, read_calibration
from proxy.engine.model_folder import IR_FILE, find_folder, read_facts, revision_of
from proxy.engine.openvino_engine import OpenVinoEngine
from proxy.engine.pairs import PairEncoder, PairLimits
from proxy.engine.stock import StockEngine
from proxy.errors import InvalidModel

if TYPE_CHECKING:
    from pathlib import Path

    from proxy.settings import CrossEncoderBackend

SANITY_QUERY = "how long should a soft boiled egg cook"
SANITY_DOCUMENTS = (
    "A soft boiled egg should cook for about six minutes in boiling water.",
    "Cook eggs for six minutes for a soft boiled egg with a runny yolk, ten minutes for a hard boiled one.",
    "The parliament adjourned after the budget vote on Tuesday evening.",
    "Steel cables are tested for fatigue before a suspension bridge opens.",
)
"""The first two answer the query, the last two cannot."""


class LoadedModel(msgspec.Struct):
    """An engine that has answered once, and what its scores mean."""

    engine: Engine
    label: str
    """Model, revision and how it runs: two of these are two products, never compared as one."""
    revision: str
    calibration: Calibration
    probes: list[float]
    """Raw logits of pairs that could hardly be more, or less, relevant."""


def load(settings: CrossEncoderBackend) -> LoadedModel:
    """Load a model, warm it up and check that it ranks what is plain.

    Raises:
        InvalidModel: it cannot be loaded, is no reranker, or fails the check.

    """
    folder = find_folder(settings.model)
    engine = _engine(settings, folder)
    revision = revision_of(folder) if folder else settings.model.replace("/", "--")
    name = folder.name if folder else settings.model
    probes = _sanity(engine, settings.model)
    return LoadedModel(
        engine=engine,
        label=f"{name}@{revision}/{engine.name}",
        revision=f"{revision}/{engine.name}",
        calibration=read_calibration(folder) if folder else Calibration(),
        probes=probes,
    )


def _engine(settings: CrossEncoderBackend, folder: Path | None) -> Engine:
    has_ir = folder is not None and (folder / IR_FILE).is_file()
    if settings.engine == "openvino" and not has_ir:
        raise InvalidModel(f'{settings.model}: has no {IR_FILE} for engine = "openvino"; "stock" needs none')
    wants_ir = settings.engine == "openvino" or (settings.engine == "auto" and settings.device != "cuda")
    if folder is not None and has_ir and wants_ir:
        return _openvino(settings, folder)
    if folder is not None and not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise InvalidModel(f"{folder}: has no weights")
    return StockEngine(
        str(folder) if folder else settings.model,
        device=settings.device,
        rows=settings.batch,
        max_tokens=settings.max_tokens,
        limits_query=settings.max_query_tokens,
        windows=settings.long_documents == "windows",
        trust_remote_code=settings.trust_remote_code,
    )


def _openvino(settings: CrossEncoderBackend, folder: Path) -> OpenVinoEngine:
    most = read_facts(folder).max_tokens
    limits = PairLimits(
        min(settings.max_tokens or most, most), settings.max_query_tokens, settings.long_documents == "windows"
    )
    threads = settings.threads or len(os.sched_getaffinity(0))
    encoder = PairEncoder.from_file(folder / "tokenizer.json")
    return OpenVinoEngine(folder, encoder, limits, threads=threads, batch_tokens=settings.batch_tokens)


def _sanity(engine: Engine, model: str) -> list[float]:
    """Score pairs whose order is beyond doubt; this warms the model up as well.

    Raises:
        InvalidModel: a score is not finite, or the order is wrong.

    """
    pairs = engine.encoder.encode(SANITY_QUERY, SANITY_DOCUMENTS, engine.limits)
    best: list[float] = [-math.inf] * len(SANITY_DOCUMENTS)
    for owner, logit in zip(pairs.document_of_row, engine.score([pairs.rows])[0], strict=True):
        best[owner] = max(best[owner], float(logit))
    if not all(math.isfinite(logit) for logit in best):
        raise InvalidModel(f"{model}: answers scores that are not finite")
    if min(best[:2]) <= max(best[2:]):
        raise InvalidModel(f"{model}: ranks an unrelated passage above the answer; is its head trained?")
    return best
