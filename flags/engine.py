"""Unleash's own engine over a state that it is known to have taken: by itself it keeps silent where it refuses one."""

from __future__ import annotations

from typing import Any

import msgspec
from yggdrasil_engine.engine import StatusCode, UnleashEngine

from flags.rollout import InvalidFlags


class _Document(msgspec.Struct):
    features: list[dict[str, Any]]
    segments: list[dict[str, Any]] | None = None
    version: int = 2


def engine_of(state: str, flag: str) -> UnleashEngine:
    """Return an engine that decides *flag*, if the state has it, exactly as *state* says.

    Raises:
        InvalidFlags: the engine takes nothing of the state, or would switch *flag* off for all because of an error.

    """
    try:
        document = msgspec.json.decode(state, type=_Document)
    except (msgspec.MsgspecError, UnicodeError) as exc:
        raise InvalidFlags(str(exc)) from exc
    own = [feature for feature in document.features if feature.get("name") == flag]
    if len(own) > 1:
        raise InvalidFlags(f"`{flag}` stands there {len(own)} times")
    if refusal := _refusal(msgspec.json.encode(msgspec.structs.replace(document, features=own))):
        raise InvalidFlags(f"Unleash's engine refuses `{flag}`: {refusal}")
    engine = UnleashEngine()
    try:
        engine.take_state(state)
        taken = {toggle.name for toggle in engine.list_known_toggles()}
    except (KeyError, TypeError, ValueError) as exc:
        raise InvalidFlags(f"Unleash's engine refuses the state: {exc!r}") from exc
    if missing := {str(feature.get("name")) for feature in document.features} - taken:
        raise InvalidFlags(f"Unleash's engine refuses the state, for one of {', '.join(sorted(missing)[:5])}")
    return engine


def _refusal(state: bytes) -> str | None:
    """Return why the engine refuses *state*, or takes it with a reservation; None: neither."""
    engine = UnleashEngine()
    # `take_state` of the binding drops the answer that has the reason
    answer = engine.lib.take_state(engine.state, state)
    with engine.materialize_pointer(answer, object) as result:
        return str(result.error_message) if result.status_code is StatusCode.ERROR else None
