"""Runs an OpenVINO IR on the CPU, without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import openvino
from openvino import properties
from openvino.properties import hint

from proxy.errors import BackendError, InvalidModel

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from proxy.engine.base import Logits
    from proxy.engine.pairs import PairEncoder, PairLimits, TokenPair

_LENGTH_STEP = 8
"""Rows are padded to a multiple of this: the plug-in keeps a compiled kernel for each shape it has seen."""
_DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}
"""What the CPU plug-in runs floating-point in, which depends on the CPU: the same file is another product elsewhere."""


class OpenVinoEngine:
    """One compiled model, one stream a core, the batches of a round in parallel."""

    def __init__(
        self,
        folder: Path,
        encoder: PairEncoder,
        limits: PairLimits,
        *,
        threads: int,
        batch_tokens: int,
        is_exact: bool = False,
    ) -> None:
        """Load it; *is_exact* for float32 where the plug-in would take less, as a measure for the others.

        Raises:
            InvalidModel: OpenVINO cannot load it, or it is no reranker.

        """
        self.encoder = encoder
        self.limits = limits
        self.batch_tokens = batch_tokens
        core = openvino.Core()
        core.set_property({properties.enable_mmap(): True})
        try:
            model = core.read_model(folder / "model.xml")
            self._inputs = [port.any_name for port in model.inputs]
            in_float32 = is_exact or _is_quantized(model)
            compiled = core.compile_model(model, "CPU", _properties(threads, in_float32=in_float32))
        except RuntimeError as exc:
            raise InvalidModel(f"{folder}: OpenVINO cannot load it: {str(exc).splitlines()[0]}") from exc
        _check_ports(folder, self._inputs, compiled)
        self._queue = openvino.AsyncInferQueue(compiled)
        self._queue.set_callback(_store)
        rest = _DTYPES[compiled.get_property(hint.inference_precision()).to_string()]
        self.precision = "int8" if _is_quantized(model) else rest
        self.name = f"openvino-{self.precision}" + (f"-{rest}" if rest != self.precision else "")

    def score(self, batches: Sequence[Sequence[TokenPair]]) -> list[Logits]:
        """Return the raw logits of each batch."""
        results: list[Logits] = [np.empty(0)] * len(batches)
        try:
            for i, rows in enumerate(batches):
                self._queue.start_async(self._tensors(rows), (results, i))
            self._queue.wait_all()
        except RuntimeError as exc:
            raise BackendError("the model failed on a batch") from exc
        return results

    def close(self) -> None:
        """Wait for what runs."""
        self._queue.wait_all()

    def _tensors(self, rows: Sequence[TokenPair]) -> dict[str, NDArray[np.int64]]:
        length = -(-max(len(row) for row in rows) // _LENGTH_STEP) * _LENGTH_STEP
        length = min(length, self.limits.pair)
        ids = np.full((len(rows), length), self.encoder.pad_id, dtype=np.int64)
        mask = np.zeros_like(ids)
        types = np.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row.ids
            mask[i, : len(row)] = 1
            types[i, row.document_start : len(row)] = self.encoder.second_type
        tensors = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
        return {name: tensors[name] for name in self._inputs}


def _store(request: openvino.InferRequest, where: tuple[list[Logits], int]) -> None:
    results, i = where
    results[i] = np.array(request.get_output_tensor(0).data, dtype=np.float64).reshape(-1)


def _properties(threads: int, *, in_float32: bool) -> dict[str, object]:
    """Return how the plug-in is to run the model.

    What int8 leaves in floating point runs in float32: in bfloat16 the plug-in (2026.4, a CPU with AMX) scores
    rows that are padded to 32 tokens wrong, by up to 3 logits, for a gain of a tenth of the time.
    """
    chosen: dict[str, object] = {
        hint.performance_mode(): hint.PerformanceMode.THROUGHPUT,
        properties.inference_num_threads(): threads,
        properties.num_streams(): threads,
    }
    if in_float32:
        chosen[hint.inference_precision()] = openvino.Type.f32
    return chosen


def _check_ports(folder: Path, inputs: list[str], compiled: openvino.CompiledModel) -> None:
    unknown = set(inputs) - {"input_ids", "attention_mask", "token_type_ids"}
    if unknown or "input_ids" not in inputs:
        raise InvalidModel(f"{folder}: no text pair model: its inputs are {', '.join(inputs)}")
    shape = compiled.output(0).get_partial_shape()
    if len(shape) != 2 or shape[1].is_dynamic or shape[1].get_length() != 1:
        raise InvalidModel(f"{folder}: no reranker: its output has shape {shape}, not one score a row")


def _is_quantized(model: openvino.Model) -> bool:
    return any(op.get_type_name() == "FakeQuantize" for op in model.get_ordered_ops())
