"""Runs any sentence-transformers CrossEncoder as torch does: every model, no tricks. Needs the torch extra."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from proxy.engine.model_folder import ModelFacts, read_facts
from proxy.engine.pairs import PairEncoder, PairLimits
from proxy.errors import BackendError, InvalidModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.engine.base import Logits
    from proxy.engine.pairs import TokenPair


class StockEngine:
    """`CrossEncoder.predict` on rows that were cut to fit.

    Rows arrive as token ids and are handed to the model as such, padded batch by batch of `rows`: the
    text would be tokenised a second time otherwise, and cut differently.
    """

    def __init__(
        self,
        model: str,
        *,
        device: str,
        rows: int,
        max_tokens: int | None,
        limits_query: int,
        windows: bool,
        trust_remote_code: bool,
    ) -> None:
        torch, cross_encoder = _import()
        self._torch = torch
        self._rows = rows
        self._model = _load(cross_encoder, torch, model, device, trust_remote_code=trust_remote_code)
        folder = _folder_of(self._model)
        facts = read_facts(folder) if folder else ModelFacts(self._model.max_length or 512)
        self.limits = PairLimits(min(max_tokens or facts.max_tokens, facts.max_tokens), limits_query, windows)
        self.encoder = PairEncoder(self._model.tokenizer.backend_tokenizer)
        self.batch_tokens = rows * self.limits.pair
        self.precision = str(next(self._model.model.parameters()).dtype).removeprefix("torch.")
        self.name = f"stock-{self.precision}-{self._model.device.type}"

    def score(self, batches: Sequence[Sequence[TokenPair]]) -> list[Logits]:
        """Return the raw logits of each batch."""
        return [self._batch(rows) for rows in batches]

    def close(self) -> None:
        """Give back nothing that Python would not."""

    def _batch(self, rows: Sequence[TokenPair]) -> Logits:
        parts = [self._forward(rows[i : i + self._rows]) for i in range(0, len(rows), self._rows)]
        return np.concatenate(parts)

    def _forward(self, rows: Sequence[TokenPair]) -> Logits:
        torch = self._torch
        length = max(len(row) for row in rows)
        ids = torch.full((len(rows), length), self.encoder.pad_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        types = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row.ids)
            mask[i, : len(row)] = 1
            types[i, row.document_start : len(row)] = self.encoder.second_type
        features: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._model.tokenizer.model_input_names:
            features["token_type_ids"] = types
        features = {name: tensor.to(self._model.device) for name, tensor in features.items()}
        try:
            with torch.inference_mode():
                logits = self._model.model(**features).logits
        except RuntimeError as exc:
            raise BackendError("the model failed on a batch") from exc
        found: Logits = logits.float().reshape(-1).cpu().numpy().astype(np.float64)
        return found


def _import() -> tuple[Any, Any]:
    try:
        import torch  # noqa: PLC0415 - an extra, and seconds to import
        from sentence_transformers import CrossEncoder  # noqa: PLC0415
    except ImportError as exc:
        raise InvalidModel(
            "this model needs torch and sentence-transformers: in a clone: .venv/bin/pip install -e '.[torch]'"
        ) from exc
    return torch, CrossEncoder


def _load(cross_encoder: Any, torch: Any, model: str, device: str, *, trust_remote_code: bool) -> Any:
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    if chosen == "cuda" and not torch.cuda.is_available():
        raise InvalidModel("DEVICE is cuda, and torch finds no CUDA device here")
    try:
        loaded = cross_encoder(
            model,
            device=chosen,
            activation_fn=torch.nn.Identity(),
            trust_remote_code=trust_remote_code,
            # transformers 5 runs a half-precision checkpoint in half precision on a CPU too, several times slower
            model_kwargs={"dtype": torch.bfloat16 if chosen == "cuda" else torch.float32},
        )
    except (OSError, ValueError, RuntimeError, KeyError) as exc:
        raise InvalidModel(f"{model}: cannot be loaded: {str(exc).splitlines()[0]}") from exc
    _refuse_fresh_head(loaded, model)
    loaded.model.eval()
    return loaded


def _folder_of(model: Any) -> Path | None:
    path = Path(str(model.model.config.name_or_path))
    return path if path.is_dir() else None


def _refuse_fresh_head(model: Any, name: str) -> None:
    """Refuse a model whose head is not in its checkpoint: it would rank at random, and differently at each start.

    Raises:
        InvalidModel: it is one.

    """
    if model.model.config.num_labels != 1:
        raise InvalidModel(f"{name}: no reranker: it has {model.model.config.num_labels} labels, not one")
    folder = _folder_of(model)
    if folder is None or not (file := folder / "model.safetensors").is_file():
        return
    from safetensors import safe_open  # noqa: PLC0415 - comes with torch's extra

    with safe_open(str(file), framework="np") as weights:
        stored = set(weights.keys())
    base = model.model.base_model_prefix + "."
    head = {key for key in model.model.state_dict() if not key.startswith(base)}
    missing = sorted(head - stored)
    if missing:
        raise InvalidModel(f"{name}: its checkpoint has no {', '.join(missing)}: the head would be random")
