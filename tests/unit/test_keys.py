"""Who may call the control plane, and until when."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from proxy.configuration import load
from proxy.errors import Forbidden, InvalidSettings, Unauthorized
from proxy.keys import Keys
from proxy.secrets import hash_key
from proxy.settings import Auth, ControlToken

EXPIRY = datetime(2027, 1, 31, tzinfo=UTC)


def keys(now: float) -> Keys:
    token = ControlToken(name="olga", key=hash_key("olga-key"), role="operator", expires_at=EXPIRY)
    return Keys(Auth(), [token], clock=lambda: now)


def test_a_token_is_taken_until_it_expires() -> None:
    assert keys(EXPIRY.timestamp() - 1).check_control("olga-key", "operator").name == "olga"
    assert keys(EXPIRY.timestamp() - 1).actor("olga-key") is not None


def test_an_expired_token_is_refused_and_says_since_when() -> None:
    with pytest.raises(Unauthorized, match="olga expired at 2027-01-31"):
        keys(EXPIRY.timestamp()).check_control("olga-key")
    assert keys(EXPIRY.timestamp()).actor("olga-key") is None


def test_an_unknown_token_and_a_role_that_may_not_are_told_apart() -> None:
    with pytest.raises(Unauthorized, match="no valid control token"):
        keys(0).check_control("other")
    with pytest.raises(Forbidden, match="takes the role admin"):
        keys(0).check_control("olga-key", "admin")


def test_an_expiry_without_a_time_zone_stops_the_start() -> None:
    tokens = f'[{{"name": "a", "key": "{hash_key("x")}", "expires_at": "2027-01-31T00:00:00"}}]'
    with pytest.raises(InvalidSettings, match="expires_at"):
        load({"RERANK_CANARY__AUTH__CONTROL_TOKENS": tokens})
    zoned = tokens.replace('00:00:00"', '00:00:00Z"')
    assert load({"RERANK_CANARY__AUTH__CONTROL_TOKENS": zoned}).auth.control_tokens[0].expires_at == EXPIRY
