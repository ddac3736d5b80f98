"""What no single field can say: settings at odds with each other, and with the machine they are to run on."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from alerts.guardrails import check_guardrails, default_guardrails, with_overrides
from flags.ramp import check_plan
from proxy.backends import CrossEncoderBackend, LlmBackend, RemoteBackend
from proxy.errors import InvalidSettings
from proxy.secrets import is_hashed_key

if TYPE_CHECKING:
    from proxy.settings import Settings

_HTTP = ("http", "https")
_STORES = ("redis", "rediss", "unix")


def check(settings: Settings) -> None:
    """Pass settings that agree with each other.

    Raises:
        InvalidSettings: two of them do not; the message names both.

    """
    if wrong := check_plan(settings.ramp.stages):
        raise InvalidSettings(f"$.ramp.stages: {wrong}")
    defaults = default_guardrails(1.0, settings.shadow.expected_overlap)
    if wrong := check_guardrails(with_overrides(defaults, settings.guard.guardrails)):
        raise InvalidSettings(f"$.guard.guardrails: {wrong}")
    for role in ("control", "candidate", "fallback"):
        name = getattr(settings.arms, role)
        try:
            settings.backend(name)
        except KeyError:
            raise InvalidSettings(f"$.arms.{role}: there is no back end `{name}`") from None
    _check_deadline(settings)
    _check_keys(settings)
    _check_sources(settings)
    _check_planes(settings)
    _check_urls(settings)
    _check_dialects(settings)
    _check_threshold(settings)
    _check_shadow(settings)
    _check_search(settings)
    for model, calibration in settings.calibrations.items():
        if wrong := calibration.wrong():
            raise InvalidSettings(f'$.calibrations."{model}": {wrong}')


def _check_deadline(settings: Settings) -> None:
    deadline = settings.deadline
    total = deadline.total_seconds
    if deadline.candidate_seconds >= total:
        raise InvalidSettings(
            f"$.deadline.candidate_seconds: {deadline.candidate_seconds:g} s of a total of {total:g} s "
            "($.deadline.total_seconds) leave the fallback no time; set it lower"
        )
    is_reserved = settings.fallback.on_control_failure == "candidate" and settings.arms.use_candidate
    if is_reserved and deadline.reserve_seconds > total / 2:
        raise InvalidSettings(
            f"$.deadline.reserve_seconds: {deadline.reserve_seconds:g} s kept of a total of {total:g} s "
            f"($.deadline.total_seconds) leave control less than half; set it to {total / 2:g} or less"
        )


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


def _check_urls(settings: Settings) -> None:
    if settings.flag.url is not None:
        _check_url("$.flag.url (UNLEASH_URL)", settings.flag.url, _HTTP)
    if settings.store.url is not None:
        _check_url("$.store.url (REDIS_URL)", settings.store.url.reveal(), _STORES)
    for name, backend in settings.backends.items():
        if isinstance(backend, LlmBackend | RemoteBackend) and backend.base_url is not None:
            _check_url(f"$.backends.{name}.base_url", backend.base_url, _HTTP)


def _check_url(place: str, url: str, schemes: tuple[str, ...]) -> None:
    """Pass a URL that can be asked; the message never quotes it, for the password in it."""
    wanted = " or ".join(f"`{scheme}://`" for scheme in schemes)
    try:
        parts = urlsplit(url)
        scheme, host, _ = parts.scheme, parts.hostname, parts.port
    except ValueError as exc:
        raise InvalidSettings(f"{place}: has a host or port that is none") from exc
    if scheme not in schemes or not (parts.path if scheme == "unix" else host):
        raise InvalidSettings(f"{place}: is no URL: {wanted}, and then where")


def _check_dialects(settings: Settings) -> None:
    for key in settings.wire.dialects:
        if not key.startswith("/") and not is_hashed_key(key):
            raise InvalidSettings(f"$.wire.dialects: `{key}` is neither a path nor `sha256:` and 64 hex digits")


def _check_threshold(settings: Settings) -> None:
    threshold = settings.fallback.threshold
    if threshold is None:
        return
    if not isinstance(settings.backend(settings.arms.candidate), CrossEncoderBackend):
        raise InvalidSettings("$.fallback.threshold: only a cross-encoder in this process gives the raw scores for it")
    if settings.fallback.statistic == "top1" and not 0 <= threshold <= 1:
        what = "every request would fall back" if threshold > 1 else "no request would ever fall back"
        raise InvalidSettings(
            f"$.fallback.threshold (LLM_FALLBACK_THRESHOLD): {threshold:g} is out of reach of `top1`, "
            f"which is a probability: {what}"
        )


def _check_shadow(settings: Settings) -> None:
    shadow = settings.shadow
    if shadow.is_on and not (shadow.control_percent or shadow.candidate_percent):
        raise InvalidSettings("$.shadow.is_on: control_percent and candidate_percent are both 0: nothing is shadowed")


def _check_search(settings: Settings) -> None:
    search, most = settings.search, settings.limits.max_documents
    if search.index is not None and search.top_k > most:
        raise InvalidSettings(f"$.search.top_k: {search.top_k} is over $.limits.max_documents, {most}")


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach *host*."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
