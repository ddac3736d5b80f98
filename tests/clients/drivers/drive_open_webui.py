"""Open WebUI's external reranker, as released: the module itself, from the wheel that 20-clients.sh took apart.

It imports from two others that would bring all of Open WebUI along. Of those only the statements that it
needs are run, unchanged: the settings from env.py and one function from headers.py.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, Optional
from urllib.parse import quote

from asking import Asked, ranked

if TYPE_CHECKING:
    from collections.abc import Callable

_SOURCE = Path(sys.prefix) / "source" / "open_webui"
_USER_INFO = "include_user_info_headers"
_SETTINGS = ("FORWARD_", "ENABLE_FORWARD_", "REQUESTS_VERIFY")

os.environ["ENABLE_FORWARD_USER_INFO_HEADERS"] = "true"


def _run(file: str, is_wanted: Callable[[str], bool], given: dict[str, Any]) -> dict[str, Any]:
    """Run those statements at the top of a file that set a wanted name, with *given* in reach."""
    tree = ast.parse((_SOURCE / file).read_text(encoding="utf-8"))
    tree.body = [one for one in tree.body if any(map(is_wanted, _names_set(one)))]
    scope = dict(given)
    exec(compile(tree, file, "exec"), scope)  # noqa: S102 - the client's own code is what is tested
    return scope


def _names_set(statement: ast.stmt) -> list[str]:
    if isinstance(statement, ast.FunctionDef):
        return [statement.name]
    if not isinstance(statement, ast.Assign | ast.Try):
        return []
    return [node.id for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def _module(name: str, members: dict[str, Any], folder: Path) -> None:
    module = sys.modules[name] = ModuleType(name)
    module.__dict__.update(members)
    module.__path__ = [str(folder)]


def _load() -> type[Any]:
    """Import the module with nothing but what it needs around it."""
    env = _run("env.py", lambda name: name.startswith(_SETTINGS), {"os": os})
    given = {**env, "quote": quote, "Any": Any, "Optional": Optional}
    headers = _run("utils/headers.py", _USER_INFO.__eq__, given)
    _module("open_webui", {}, _SOURCE)
    _module("open_webui.env", env, _SOURCE)
    _module("open_webui.utils", {}, _SOURCE / "utils")
    _module("open_webui.utils.headers", {_USER_INFO: headers[_USER_INFO]}, _SOURCE / "utils")
    kind: type[Any] = importlib.import_module("open_webui.retrieval.models.external").ExternalReranker
    return kind


_ExternalReranker = _load()


def _predict(asked: Asked) -> list[dict[str, Any]]:
    """Score, then sort and cut as its RerankCompressor does."""
    if not asked.documents:
        return []
    user = SimpleNamespace(id=asked.user, name="Ann", email="ann@example.com", role="user") if asked.user else None
    reranker = _ExternalReranker(asked.key, url=f"{asked.url}/v1/rerank")
    scores = reranker.predict([(asked.query, text) for text in asked.documents], user=user)
    if scores is None:  # it logs the failure; Open WebUI goes on with the order it had
        raise LookupError("no scores")
    found = sorted(enumerate(scores), key=lambda pair: pair[1], reverse=True)
    return [ranked(index, score) for index, score in found[: asked.top_n]]


CALLS = {"predict": _predict}
