"""Packages of an extra: looked for before they are needed, and named where they are missing."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from proxy.errors import InvalidSettings

if TYPE_CHECKING:
    from collections.abc import Sequence

TRAIN = ("torch", "transformers", "sentence_transformers", "accelerate", "datasets", "nncf")


def require_extra(what: str, extra: str, packages: Sequence[str]) -> None:
    """Pass where *packages* are installed; none is imported.

    Raises:
        InvalidSettings: some are not; *what* needs them, and *extra* has them.

    """
    if missing := [name for name in packages if find_spec(name) is None]:
        raise InvalidSettings(f"{what}: needs {', '.join(missing)}: pip install 'rerank-canary[{extra}]'")
