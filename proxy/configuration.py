"""Reads `Settings` from a TOML file and the environment."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from proxy.backends import Backend
from proxy.checks import check
from proxy.errors import InvalidSettings
from proxy.secrets import Secret
from proxy.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_T = TypeVar("_T")

PREFIX = "RERANK_CANARY__"
FILE_VARIABLE = "RERANK_CANARY_CONFIG"
DEFAULT_FILE = Path("rerank-canary.toml")

# The swap-out plan's toggles; the last part of a candidate path is a field of its back end.
_PLAN_TOGGLES = {
    "USE_CROSS_ENCODER": ("arms", "use_candidate"),
    "TOP_N": ("arms", "top_n"),
    "LLM_FALLBACK_THRESHOLD": ("fallback", "threshold"),
}
_CANDIDATE_TOGGLES = {"RERANK_MODEL": "model", "DEVICE": "device", "RERANK_BATCH": "batch"}
_COMMON_VARIABLES = {
    "REDIS_URL": ("store", "url"),
    "UNLEASH_URL": ("flag", "url"),
    "UNLEASH_API_TOKEN": ("flag", "token"),
    "UNLEASH_ADMIN_TOKEN": ("flag", "admin_token"),
}
_DEFAULT_KINDS = {"gpt": "llm", "cross-encoder": "cross-encoder"}


def load(env: Mapping[str, str], file: Path | None = None) -> Settings:
    """Return the settings that *file* (or the one *env* names) and *env* make.

    Raises:
        InvalidSettings: the file cannot be read, or a setting is unknown, out of bounds or at odds with another.

    """
    raw = _read_file(file or _file_of(env))
    _set_variables(raw, env)
    _set_toggles(raw, env)
    raw["backends"] = {name: _backend(name, fields) for name, fields in _table(raw, "backends").items()}
    settings = _convert(raw, Settings)
    check(settings)
    return settings


def _file_of(env: Mapping[str, str]) -> Path | None:
    if name := env.get(FILE_VARIABLE):
        return Path(name)
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def _read_file(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as exc:
        raise InvalidSettings(f"{file}: {exc}") from exc


def _convert(raw: object, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(raw, kind, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as exc:
        raise InvalidSettings(str(exc)) from exc


def _backend(name: str, fields: object) -> Backend:
    """Return a back end; converted alone, because a message about the whole does not name it."""
    try:
        backend: Backend = _convert(fields, Backend)  # type: ignore[arg-type]  # mypy knows no union as a type
    except InvalidSettings as exc:
        reason, _, place = str(exc).partition(" - at `$")
        raise InvalidSettings(f"{reason} - at `$.backends.{name}{place or '`'}") from exc
    return backend


def _table(raw: dict[str, Any], name: str, parent: str = "$.") -> dict[str, Any]:
    """Return a table of *raw*, made where there is none."""
    found = raw.setdefault(name, {})
    if not isinstance(found, dict):
        raise InvalidSettings(f"{parent}{name}: is no table")
    return found


def _put(raw: dict[str, Any], path: Sequence[str], value: object) -> None:
    for i, name in enumerate(path[:-1]):
        raw = _table(raw, name, ".".join(["$", *path[:i], ""]))
    raw[path[-1]] = value


def _set_variables(raw: dict[str, Any], env: Mapping[str, str]) -> None:
    for name, value in env.items():
        if name.startswith(PREFIX):
            path = name.removeprefix(PREFIX).lower().split("__")
            if path[0] == "backends" and len(path) > 1:
                path[1] = _backend_name(path[1], [*_table(raw, "backends"), *_DEFAULT_KINDS])
            _put(raw, path, _from_text(value))
    for name, common in _COMMON_VARIABLES.items():
        if env.get(name):
            _put(raw, common, env[name])


def _backend_name(name: str, known: list[str]) -> str:
    """Return the back end that a variable means by *name*: shells take no hyphen and no small letters there."""
    if name in known:
        return name
    return next((each for each in known if each.lower().replace("-", "_") == name), name)


def _from_text(value: str) -> object:
    """Return a variable's value; lists and tables are written as JSON."""
    if value[:1] in {"[", "{"}:
        try:
            parsed: object = msgspec.json.decode(value)
        except msgspec.DecodeError:
            return value
        return parsed
    return value


def _set_toggles(raw: dict[str, Any], env: Mapping[str, str]) -> None:
    for name, path in _PLAN_TOGGLES.items():
        if env.get(name):
            _put(raw, path, env[name].lower() if name == "USE_CROSS_ENCODER" else env[name])
    candidate = _table(raw, "arms").get("candidate", "cross-encoder")
    given = {field: env[name] for name, field in _CANDIDATE_TOGGLES.items() if env.get(name)}
    if given and isinstance(candidate, str):
        _of_backend(raw, candidate).update(given)
    for name in {*_table(raw, "backends"), "gpt"}:
        backend = _of_backend(raw, name)
        if backend.get("kind") == "llm":
            for variable, field in (("OPENAI_API_KEY", "api_key"), ("OPENAI_BASE_URL", "base_url")):
                if env.get(variable):
                    backend.setdefault(field, env[variable])


def _of_backend(raw: dict[str, Any], name: str) -> dict[str, Any]:
    backend = _table(_table(raw, "backends"), name, "$.backends.")
    if name in _DEFAULT_KINDS:
        backend.setdefault("kind", _DEFAULT_KINDS[name])
    return backend


def _decode(kind: type, value: object) -> object:
    if kind is Secret:
        if not isinstance(value, str):
            raise TypeError("Expected `str`")
        return Secret(value)
    if kind is Path:
        return Path(str(value))
    raise NotImplementedError(kind)  # pragma: no cover - no other type of ours is in Settings
