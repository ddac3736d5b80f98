"""What can be told of a start before anything is started: files, addresses and packages that it will need."""

from __future__ import annotations

import os
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING

from flags.engine import engine_of
from flags.rollout import InvalidFlags
from flags.store import connect
from flags.unleash_cache import read_state
from proxy.backends import CrossEncoderBackend
from proxy.engine.model_folder import IR_FILE, find_folder
from proxy.errors import InvalidFile, InvalidModel, InvalidSettings
from proxy.eventing import check_events
from proxy.otel import protocols_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from proxy.settings import Settings


def check_machine(settings: Settings, env: Mapping[str, str]) -> None:
    """Pass settings that this machine can serve, as far as that shows without loading a model or asking a server.

    Raises:
        InvalidSettings, InvalidModel: it cannot.

    """
    _check_data_dir(settings.data_dir)
    protocols_of(env)
    check_events(settings)
    if settings.search.index is not None:
        _check_index(settings.search.index)
    if settings.store.url is not None:
        try:
            connect(settings.store.url.reveal(), settings.store.timeout_seconds)
        except ValueError as exc:
            raise InvalidSettings("$.store.url (REDIS_URL): its options cannot be read") from exc
    if settings.flag.url is not None and settings.flag.bootstrap is not None:
        try:
            read_state(settings.flag.bootstrap, partial(engine_of, flag=settings.flag.key))
        except InvalidFlags as exc:
            raise InvalidSettings(f"$.flag.bootstrap: {exc}") from exc
    arms = settings.arms
    for name in {arms.control, arms.fallback} | ({arms.candidate} if arms.use_candidate else set()):
        backend = settings.backend(name)
        if isinstance(backend, CrossEncoderBackend):
            _check_model(name, backend)


def _check_data_dir(folder: Path) -> None:
    found = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not found.is_dir() or not os.access(found, os.W_OK | os.X_OK):
        raise InvalidSettings(f"$.data_dir: {folder} cannot be used: {found} is no folder that may be written")


def _check_index(folder: Path) -> None:
    from proxy.offline.index_folder import read_manifest  # noqa: PLC0415 - numpy, only where an index is configured

    try:
        dense = read_manifest(folder).dense
    except InvalidFile as exc:
        raise InvalidSettings(f"$.search.index: {exc}") from exc
    if dense is not None and find_spec("sentence_transformers") is None:
        raise InvalidSettings(
            f"$.search.index: the vectors in {folder} need torch and sentence-transformers: "
            "pip install 'rerank-canary[torch]', or make the index without --model"
        )


def _check_model(name: str, backend: CrossEncoderBackend) -> None:
    folder = find_folder(backend.model)
    is_path = backend.model.startswith((".", "/", "~"))
    if (folder is None and is_path) or (folder is not None and not folder.is_dir()):
        raise InvalidModel(f"$.backends.{name}.model: there is no folder {folder or backend.model}")
    has_ir = folder is not None and (folder / IR_FILE).is_file()
    needs_torch = not has_ir or backend.engine == "stock" or (backend.engine == "auto" and backend.device == "cuda")
    if needs_torch and backend.engine != "openvino" and find_spec("sentence_transformers") is None:
        raise InvalidModel(
            f"$.backends.{name}: {backend.model} needs torch and sentence-transformers; "
            "in a clone: .venv/bin/pip install -e '.[torch]'"
        )
