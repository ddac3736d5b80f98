"""Floating-point weights back out of a quantised IR, so that what is served can be trained on.

An int8 IR holds each matrix as int8 with a scale a row; what its input is multiplied by before it is rounded (smooth
quantisation, Xiao et al. 2023, eq. 3) is divided out of the matrix. Both are undone here. What rounding took stays
away, at most half a step a weight; training goes on from there.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np

from proxy.engine.model_folder import IR_FILE, read_facts
from proxy.errors import InvalidModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_PREFIX = "__module.model."
_FAMILIES = {"bert"}
"""Whose checkpoints name their parts as the graph does."""


def restore(ir: Path, out: Path) -> Path:
    """Write *ir* as a folder that transformers loads, in float32, and return it.

    Raises:
        InvalidModel: it is no IR of a family that is known here, or holds other weights than its configuration says.

    """
    import torch  # noqa: PLC0415 - from the extra
    from transformers import AutoConfig, AutoModelForSequenceClassification  # noqa: PLC0415

    family = read_facts(ir).model_type
    if family not in _FAMILIES:
        raise InvalidModel(f"{ir}: its weights cannot be restored from the IR: {family or 'its family'} is not known")
    model = AutoModelForSequenceClassification.from_config(AutoConfig.from_pretrained(str(ir)))
    wanted = {name for name, _ in model.named_parameters()}
    found = {name: torch.from_numpy(np.array(values)) for name, values in _weights(ir)}
    if wanted != found.keys():
        raise InvalidModel(f"{ir}: the graph does not hold {min(wanted ^ found.keys())} as its configuration says")
    try:
        model.load_state_dict(found, strict=False)
    except RuntimeError as exc:
        raise InvalidModel(f"{ir}: {str(exc).splitlines()[-1].strip()}") from exc
    model.save_pretrained(str(out))
    shutil.copy(ir / "tokenizer.json", out / "tokenizer.json")
    return out


def _weights(ir: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield each parameter by the name that it has in a checkpoint."""
    import openvino  # noqa: PLC0415

    try:
        graph = openvino.Core().read_model(ir / IR_FILE)
    except RuntimeError as exc:
        raise InvalidModel(f"{ir}: OpenVINO cannot read it: {str(exc).splitlines()[0]}") from exc
    for op in graph.get_ordered_ops():
        path, _, part = op.get_friendly_name().removeprefix(_PREFIX).partition("/")
        match part:
            case "aten::embedding/Gather":
                yield f"{path}.weight", _constant(_input(op, 0))
            case "aten::linear/MatMul":
                matrix = _constant(_input(op, 1))
                yield f"{path}.weight", matrix * _smoothing(_input(op, 0), matrix.shape[1])
            case "aten::linear/Add":
                yield f"{path}.bias", _added(op)
            case "aten::layer_norm/Multiply_1":
                yield f"{path}.weight", _added(op)
            case "aten::layer_norm/Add":
                yield f"{path}.bias", _added(op)


def _input(op: Any, place: int) -> Any:
    return op.input_value(place).get_node()


def _added(op: Any) -> NDArray[np.float32]:
    """Return the constant of a sum or product of something and a constant, as a vector."""
    return _constant(_input(op, 1)).reshape(-1)


def _constant(op: Any) -> NDArray[np.float32]:
    """Return what a part of the graph that has no input comes to.

    Raises:
        InvalidModel: it is not made of constants, conversions and products.

    """
    match op.get_type_name():
        case "Constant":
            return np.asarray(op.get_data(), dtype=np.float32)
        case "Convert":
            return _constant(_input(op, 0))
        case "Multiply":
            return np.asarray(_constant(_input(op, 0)) * _constant(_input(op, 1)), dtype=np.float32)
        case "Subtract":
            return np.asarray(_constant(_input(op, 0)) - _constant(_input(op, 1)), dtype=np.float32)
        case "Reshape" | "FakeQuantize" as kind:
            data = _constant(_input(op, 0))
            return data.reshape(tuple(int(size) for size in op.output(0).shape)) if kind == "Reshape" else data
        case other:
            raise InvalidModel(f"{op.get_friendly_name()}: a weight made by {other} is not known")


def _smoothing(op: Any, width: int) -> NDArray[np.float32]:
    """Return what an input of a product was multiplied by for the sake of rounding; 1 where it was not."""
    while op.get_type_name() in {"FakeQuantize", "Convert"}:
        op = _input(op, 0)
    if op.get_friendly_name().endswith("nncf_smooth_quant"):
        return _constant(_input(op, 1)).reshape(-1)
    return np.ones(width, dtype=np.float32)
