from __future__ import annotations

import pytest

from proxy.identity import BodyFields, BodyReader, hash_user, identify
from proxy.settings import Identity


def who(headers: dict[str, str] | None = None, body: dict[str, str] | None = None, **fields: str) -> tuple[str, str]:
    found = identify(
        Identity(),
        headers or {},
        body or {},
        query=fields.get("query", "q"),
        api_key=fields.get("api_key", "k"),
        remote_address=None,
    )
    return found.context.user_id, found.source


def test_the_first_source_that_names_somebody_wins() -> None:
    headers = {"x-openwebui-user-id": "webui", "x-user-id": "header"}
    assert who(headers, {"user": "body"}) == ("header", "header:X-User-Id")
    assert who({"x-openwebui-user-id": "webui"}, {"user": "body"}) == ("webui", "header:X-OpenWebUI-User-Id")
    assert who({"x-user-id": ""}, {"user": "body"}) == ("body", "body:user")


def test_without_a_user_the_key_is_api_key_and_query_and_is_marked() -> None:
    first, source = who(query="a")
    assert source == "query"
    assert who(query="a")[0] == first
    assert who(query="b")[0] != first
    assert who(query="a", api_key="other")[0] != first


def test_session_and_properties_come_from_their_own_sources() -> None:
    settings = Identity(session=("header:X-S",), properties={"tenant": "header:X-T", "none": "header:X-N"})
    found = identify(settings, {"x-s": "s1", "x-t": "t1"}, {}, query="q", api_key="", remote_address="10.0.0.1")
    assert found.context.session_id == "s1"
    assert found.context.properties == {"tenant": "t1"}
    assert found.context.as_unleash()["remoteAddress"] == "10.0.0.1"


def test_a_hash_is_stable_under_one_salt_and_another_under_the_next() -> None:
    assert hash_user("u", b"salt") == hash_user("u", b"salt")
    assert len({hash_user("u", b"salt"), hash_user("u", b"pepper"), hash_user("v", b"salt")}) == 3
    assert "u" not in hash_user("uuuuuu", b"salt")


NAMED = Identity(
    user=("header:X-User-Id", "body:user_id", "body:kunde_ä"),
    session=("body:session",),
    properties={"tenant": "body:tenant", "tier": "header:X-Tier"},
)


def test_every_configured_field_of_the_body_is_found_and_no_other() -> None:
    body = b'{"query": "q", "user_id": "u1", "user": "no", "session": "s", "tenant": "t", "deep": {"user_id": "no"}}'
    found = identify(NAMED, {}, BodyFields(BodyReader(NAMED), body), query="q", api_key="", remote_address=None)
    assert (found.context.user_id, found.source) == ("u1", "body:user_id")
    assert found.context.session_id == "s"
    assert found.context.properties == {"tenant": "t"}


@pytest.mark.parametrize(
    ("value", "read_as"),
    [
        ('"a"', "a"),
        ('"h\\u00e9\\ud83d"', "hé\ufffd"),
        ("123", "123"),
        (" -1.50 ", "-1.50"),
        ("true", "true"),
        ("null", None),
        ('""', None),
        ('{"a": 1}', None),
        ('["a"]', None),
    ],
)
def test_a_field_is_read_as_written_if_it_is_no_list_or_object(value: str, read_as: str | None) -> None:
    fields = BodyFields(BodyReader(NAMED), f'{{"documents": ["x"], "user_id": {value}}}'.encode())
    assert fields.get("user_id") == read_as


def test_a_field_may_have_any_name_escaped_or_not() -> None:
    reader = BodyReader(NAMED)
    assert BodyFields(reader, '{"kunde_ä": "a"}'.encode()).get("kunde_ä") == "a"
    assert BodyFields(reader, b'{"kunde_\\u00e4": "a"}').get("kunde_ä") == "a"


def test_a_body_is_not_read_where_a_header_names_the_user() -> None:
    fields = BodyFields(BodyReader(Identity()), b"no JSON")
    found = identify(Identity(), {"x-user-id": "h"}, fields, query="q", api_key="", remote_address=None)
    assert found.context.user_id == "h"
