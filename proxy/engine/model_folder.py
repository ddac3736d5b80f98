"""Finds a model's folder, tells its revision, and refuses what cannot be served."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path

import msgspec

from proxy.errors import InvalidModel

SHIPPED = "shipped"
IR_FILE = "model.xml"
_WEIGHTS = ("model.bin", "model.safetensors", "pytorch_model.bin")


def shipped_folder() -> Path:
    """Return the folder of the model that comes with the project."""
    return Path(str(resources.files("proxy") / "models" / "minilm-l6"))


def find_folder(model: str) -> Path | None:
    """Return the local folder of *model*; None where the name is none, so a hub may know it."""
    if model == SHIPPED:
        return shipped_folder()
    folder = Path(model)
    return folder if folder.is_dir() else None


def revision_of(folder: Path) -> str:
    """Return 12 hex digits of the weights and what goes with them; equal files give equal revisions.

    Raises:
        InvalidModel: there are no weights.

    """
    files = [folder / name for name in (*_WEIGHTS, IR_FILE, "tokenizer.json", "config.json")]
    found = [file for file in files if file.is_file()]
    if not any(file.name in _WEIGHTS for file in found):
        raise InvalidModel(f"{folder}: has no weights ({', '.join(_WEIGHTS)})")
    digest = hashlib.blake2b(digest_size=6)
    for file in found:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


class ModelFacts(msgspec.Struct):
    """What of ``config.json`` matters to serving."""

    max_position_embeddings: int = 512
    model_type: str = ""
    num_labels: int | None = None
    id2label: dict[str, str] | None = None
    pad_token_id: int | None = None

    @property
    def max_tokens(self) -> int:
        """The longest pair. RoBERTa's family counts positions from the padding id on, so 514 mean 512."""
        is_roberta = "roberta" in self.model_type
        return self.max_position_embeddings - ((self.pad_token_id or 0) + 1 if is_roberta else 0)


def read_facts(folder: Path) -> ModelFacts:
    """Return what ``config.json`` says.

    Raises:
        InvalidModel: there is none, or the model is none that gives one score a pair.

    """
    file = folder / "config.json"
    try:
        facts = msgspec.json.decode(file.read_bytes(), type=ModelFacts)
    except (OSError, msgspec.MsgspecError) as exc:
        raise InvalidModel(f"{file}: {exc}") from exc
    labels = facts.num_labels or len(facts.id2label or {"0": ""})
    if labels != 1:
        raise InvalidModel(f"{folder}: no reranker: it has {labels} labels, not one")
    return facts
