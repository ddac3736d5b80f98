"""From a sentence-transformers cross-encoder to an OpenVINO IR. Needs the extra `train`."""

from __future__ import annotations

import shutil
import warnings
from typing import TYPE_CHECKING, Any

from proxy.engine.model_folder import read_facts
from proxy.engine.pairs import PairEncoder
from proxy.errors import InvalidModel

if TYPE_CHECKING:
    from pathlib import Path

BESIDE = ("tokenizer.json", "config.json")
"""What the engine reads beside graph and weights."""


def export(model: Path, out: Path) -> None:
    """Write the OpenVINO IR of a cross-encoder, weights in float32.

    Raises:
        InvalidModel: it is none that torch can load, or its head is not in its checkpoint.

    """
    import openvino  # noqa: PLC0415 - with torch, from the extra
    import torch  # noqa: PLC0415

    check(model)
    loaded = _load(model)
    has_types = getattr(loaded.config, "type_vocab_size", 0) > 1
    names = ["input_ids", "attention_mask", *(["token_type_ids"] if has_types else [])]

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
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the converter traces as torch no longer advises
        graph = openvino.convert_model(
            Logits(),
            example_input=dict.fromkeys(names, example),
            input=[(name, shape, openvino.Type.i64) for name in names],
        )
    for port, name in zip(graph.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    out.mkdir(parents=True, exist_ok=True)
    openvino.save_model(graph, out / "model.xml", compress_to_fp16=False)
    for name in BESIDE:
        shutil.copy(model / name, out / name)


def check(model: Path) -> None:
    """Pass for a folder that holds a reranker with a tokenizer, as far as that shows without loading its weights.

    Raises:
        InvalidModel: it does not.

    """
    if not model.is_dir():
        raise InvalidModel(f"{model}: no folder; a model of a hub has to be downloaded first")
    if not any(model.glob("*.safetensors")) and not any(model.glob("pytorch_model*.bin")):
        raise InvalidModel(f"{model}: has no weights that torch reads (model.safetensors)")
    read_facts(model)
    PairEncoder.from_file(model / "tokenizer.json")


def _load(model: Path) -> Any:
    import torch  # noqa: PLC0415
    from transformers import AutoModelForSequenceClassification  # noqa: PLC0415

    try:
        loaded, seen = AutoModelForSequenceClassification.from_pretrained(
            str(model),
            dtype=torch.float32,
            attn_implementation="eager",
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as exc:  # a broken checkpoint fails in whatever reads it: safetensors, pickle, torch, transformers
        raise InvalidModel(f"{model}: cannot be loaded: {(str(exc) or type(exc).__name__).splitlines()[0]}") from exc
    if missing := sorted(seen["missing_keys"]):
        raise InvalidModel(f"{model}: its checkpoint has no {', '.join(missing)}: the head would be random")
    return loaded.eval()
