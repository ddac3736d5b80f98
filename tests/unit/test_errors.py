from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from proxy import errors
from proxy.errors import BackendError, InvalidRequest, MalformedBody, ProxyError
from proxy.wire.detect import COHERE_V1, DIALECTS, JINA, NIM, TEI, VOYAGE
from proxy.wire.score import ScoreDialect

if TYPE_CHECKING:
    from proxy.wire.canonical import Dialect


def tree(kind: type[ProxyError]) -> list[type[ProxyError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in tree(child))]


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in tree(ProxyError)]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("kind", tree(ProxyError), ids=lambda k: k.__name__)
def test_every_error_stands_in_the_drawn_tree(kind: type[ProxyError]) -> None:
    assert kind.__name__ in str(errors.__doc__)


@pytest.mark.parametrize("kind", tree(ProxyError), ids=lambda k: k.__name__)
@pytest.mark.parametrize("dialect", [*DIALECTS.values(), ScoreDialect()], ids=lambda d: d.name)
def test_every_dialect_answers_every_error_in_a_body_its_clients_read(
    kind: type[ProxyError], dialect: Dialect | ScoreDialect
) -> None:
    status, body = dialect.write_error(kind("what went wrong", field="query"), "id-1")
    read = msgspec.json.decode(msgspec.json.encode(body))
    assert 400 <= status < 600
    if dialect is TEI:
        assert read["error"] == "what went wrong"
        assert read["error_type"] in {"Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty"}
    else:
        assert read["message"] == read["detail"] == "what went wrong"
        if dialect is VOYAGE:  # voyageai up to 0.4 takes an object there for a class of its own
            assert "error" not in read
        else:
            assert read["error"]["message"] == "what went wrong"
            assert read["error"]["param"] == "query"
        assert read["id"] == "id-1"


@pytest.mark.parametrize(
    ("dialect", "error", "status"),
    [
        (COHERE_V1, InvalidRequest("x"), 400),
        (JINA, InvalidRequest("x"), 422),
        (JINA, MalformedBody("x"), 400),
        (NIM, InvalidRequest("x"), 422),
        (TEI, InvalidRequest("x"), 422),
        (TEI, MalformedBody("x"), 400),
        (TEI, BackendError("x"), 424),
    ],
    ids=lambda v: getattr(v, "name", getattr(type(v), "__name__", v)),
)
def test_statuses_are_those_of_the_dialect(dialect: Dialect | ScoreDialect, error: ProxyError, status: int) -> None:
    assert dialect.write_error(error, "id")[0] == status
