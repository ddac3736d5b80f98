"""Reads `Settings` from a TOML file and the environment, and checks what no single field can say."""

from __future__ import annotations

import ipaddress
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from flags.ramp import check_plan
from proxy.errors import InvalidSettings
from proxy.secrets import Secret, is_hashed_key
from proxy.settings import CrossEncoderBackend, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

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
    try:
        settings = msgspec.convert(raw, Settings, strict=False, dec_hook=_decode)
    except msgspec.ValidationError as exc:
        raise InvalidSettings(str(exc)) from exc
    _check(settings)
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


def _put(raw: dict[str, Any], path: tuple[str, ...], value: object) -> None:
    for name in path[:-1]:
        raw = raw.setdefault(name, {})
        if not isinstance(raw, dict):
            raise InvalidSettings(f"{'.'.join(path)}: {name} is no table")
    raw[path[-1]] = value


def _set_variables(raw: dict[str, Any], env: Mapping[str, str]) -> None:
    for name, value in env.items():
        if name.startswith(PREFIX):
            path = tuple(part.lower() for part in name.removeprefix(PREFIX).split("__"))
            _put(raw, path, _from_text(value))
    for name, path in _COMMON_VARIABLES.items():
        if env.get(name):
            _put(raw, path, env[name])


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
    candidate = raw.get("arms", {}).get("candidate", "cross-encoder")
    given = {field: env[name] for name, field in _CANDIDATE_TOGGLES.items() if env.get(name)}
    if given:
        _of_backend(raw, candidate).update(given)
    for name in {*raw.get("backends", {}), "gpt"}:
        backend = _of_backend(raw, name)
        if backend.get("kind") == "llm":
            for variable, field in (("OPENAI_API_KEY", "api_key"), ("OPENAI_BASE_URL", "base_url")):
                if env.get(variable):
                    backend.setdefault(field, env[variable])


def _of_backend(raw: dict[str, Any], name: str) -> dict[str, Any]:
    backends = raw.setdefault("backends", {})
    backend: dict[str, Any] = backends.setdefault(name, {})
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


def _check(settings: Settings) -> None:
    if wrong := check_plan(settings.ramp.stages):
        raise InvalidSettings(f"$.ramp.stages: {wrong}")
    for role in ("control", "candidate", "fallback"):
        name = getattr(settings.arms, role)
        try:
            settings.backend(name)
        except KeyError:
            raise InvalidSettings(f"$.arms.{role}: there is no back end `{name}`") from None
    if settings.deadline.candidate_seconds > settings.deadline.total_seconds:
        raise InvalidSettings("$.deadline.candidate_seconds: is longer than total_seconds")
    _check_keys(settings)
    _check_sources(settings)
    _check_planes(settings)


def _check_keys(settings: Settings) -> None:
    keys = {f"$.auth.data_keys[{i}]": key for i, key in enumerate(settings.auth.data_keys)}
    keys |= {f"$.auth.control_tokens[{i}].key": token.key for i, token in enumerate(settings.auth.control_tokens)}
    for place, key in keys.items():
        if not is_hashed_key(key):
            raise InvalidSettings(f"{place}: is not `sha256:` and 64 hex digits; `rerank-canary new-key` makes one")
    shared = set(settings.auth.data_keys) & {token.key for token in settings.auth.control_tokens}
    if shared:
        raise InvalidSettings("$.auth: a key serves both planes; the control plane needs one of its own")


def _check_sources(settings: Settings) -> None:
    identity = settings.identity
    for source in (*identity.user, *identity.session, *identity.properties.values()):
        kind, _, name = source.partition(":")
        if kind not in {"header", "body"} or not name:
            raise InvalidSettings(f"$.identity: `{source}` is neither `header:NAME` nor `body:NAME`")


def _check_planes(settings: Settings) -> None:
    open_data = not (settings.auth.data_keys or settings.auth.allow_anonymous)
    if open_data and not is_loopback(settings.server.host):
        raise InvalidSettings(
            f"$.auth.data_keys: is empty while $.server.host is {settings.server.host}; "
            "set keys, or $.auth.allow_anonymous where something in front checks them"
        )
    if not settings.auth.control_tokens and not is_loopback(settings.server.control_host):
        raise InvalidSettings(
            f"$.auth.control_tokens: is empty while $.server.control_host is {settings.server.control_host}"
        )
    if settings.fallback.threshold is not None and not isinstance(
        settings.backend(settings.arms.candidate), CrossEncoderBackend
    ):
        raise InvalidSettings("$.fallback.threshold: only a cross-encoder in this process gives the raw scores for it")


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach *host*."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
