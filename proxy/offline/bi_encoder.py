"""Makes vectors of texts with a sentence-transformers bi-encoder. Needs the extra `torch`."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from proxy.errors import InvalidModel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.offline.dense_index import Vectors

Precision = Literal["float32", "bfloat16"]

_BATCH = 32
_SUFFIXES = {".bin", ".json", ".model", ".safetensors", ".txt"}


class BiEncoder:
    """One model, loaded. Queries and passages are encoded as the model's own prompts say; vectors have length 1."""

    def __init__(self, model: str, device: str = "cpu", precision: Precision = "float32") -> None:
        """Load a folder, or a model that sentence-transformers knows by that name. Takes seconds.

        Args:
            model: folder or name.
            device: as torch names it, such as ``cpu`` or ``cuda``.
            precision: of passages; bfloat16 is faster where the processor has it (three times on one core with AMX).
                Queries are encoded in float32.

        Raises:
            InvalidModel: it cannot be loaded, or the extra is not installed.

        """
        self.name = str(Path(model).absolute()) if Path(model).is_dir() else model
        self.precision: str = precision
        self._device = device.partition(":")[0]
        self._model, self._pools = _load(model, device)
        self.revision = _revision(self._model, model)

    def queries(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of queries, shape (texts, dimensions).

        Raises:
            ValueError: some value is not finite.

        """
        with self._one_thread() if len(texts) == 1 else contextlib.nullcontext():
            return self._checked(self._model.encode_query(list(texts), **_HOW))

    def passages(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of passages, shape (texts, dimensions).

        Raises:
            ValueError: some value is not finite.

        """
        if self.precision == "float32":
            return self._checked(self._model.encode_document(list(texts), **_HOW))
        import torch  # noqa: PLC0415 - an extra

        with torch.autocast(self._device, torch.bfloat16):
            return self._checked(self._model.encode_document(list(texts), **_HOW))

    def _one_thread(self) -> contextlib.AbstractContextManager[object]:
        """Let this thread work alone: where the cores are busy, two that wait for each other are far slower than one.

        On 2 cores a query took 7 ms by two threads and 10 by one; on busy ones 60 to 150, and 12.
        """
        limit: contextlib.AbstractContextManager[object] = self._pools.limit(limits=1, user_api="openmp")
        return limit

    def _checked(self, vectors: Any) -> Vectors:
        found: Vectors = np.asarray(vectors, np.float32)
        if not np.isfinite(found).all():
            raise ValueError(f"{self.name}: gave a vector that is not finite")
        return found


_HOW = {"batch_size": _BATCH, "normalize_embeddings": True, "show_progress_bar": False}


def _load(model: str, device: str) -> tuple[Any, Any]:
    try:
        from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - an extra, and seconds to import
        from threadpoolctl import ThreadpoolController  # noqa: PLC0415
    except ImportError as exc:
        raise InvalidModel(
            f"{model}: a bi-encoder needs torch and sentence-transformers: pip install 'rerank-canary[torch]'"
        ) from exc
    if _is_path(model) and not Path(model).is_dir():
        raise InvalidModel(f"{model}: there is no such folder")
    try:
        loaded = SentenceTransformer(model, device=device, model_kwargs={"dtype": "float32"})
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as exc:
        raise InvalidModel(f"{model}: cannot be loaded: {(str(exc).splitlines() or [repr(exc)])[0]}") from exc
    return loaded, ThreadpoolController()


def _is_path(model: str) -> bool:
    return model.startswith((".", "/", "~"))


def _revision(loaded: Any, model: str) -> str:
    """Return 12 digits: of a folder what its files make, pooling and prompts too; else the hub's commit."""
    folder = Path(model)
    if not folder.is_dir():
        config = getattr(getattr(loaded[0], "auto_model", None), "config", None)
        return str(getattr(config, "_commit_hash", None) or "unknown")[:12]
    digest = hashlib.blake2b(digest_size=6)
    for file in sorted(each for each in folder.rglob("*") if each.suffix in _SUFFIXES and each.is_file()):
        digest.update(f"{file.relative_to(folder)}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
