"""What of a text gets into the event log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from proxy.events.records import Kind
from proxy.events.redaction import Redaction
from proxy.quality_settings import Events
from proxy.wire.canonical import RerankCall
from tests.events import SALT, feedback, ranking, read, write

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "xylophone"
CALL = RerankCall(
    query=f"where is the {SECRET}",
    documents=(f"the {SECRET} is here", "nothing"),
    echoes=({"text": f"the {SECRET} is here", "id": f"doc-{SECRET}", "title": SECRET}, {"text": "nothing", "id": 7}),
)


def stored(folder: Path, **fields: Any) -> dict[str, Any]:
    write(folder, ranking(CALL), feedback(document_ids=(f"doc-{SECRET}",)), **fields)
    (row,) = read(folder)
    return row


def files_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_by_default_no_text_and_no_id_gets_into_the_files(tmp_path: Path) -> None:
    row = stored(tmp_path)
    assert (row["query"], row["documents"]) == (None, None)
    assert all(len(each) == 16 for each in (row["query_hash"], *row["document_ids"]))
    for table in Kind:
        for found in read(tmp_path, table):
            assert SECRET not in repr(found)
    assert SECRET.encode() not in files_of(tmp_path)


def test_text_is_kept_where_the_settings_say_so(tmp_path: Path) -> None:
    row = stored(tmp_path, query="text", documents="text")
    assert row["query"] == CALL.query
    assert row["documents"] == list(CALL.documents)
    assert row["document_ids"] == [f"doc-{SECRET}", "7"]


def test_ids_are_the_callers_where_documents_have_them(tmp_path: Path) -> None:
    row = stored(tmp_path, documents="id")
    assert (row["documents"], row["document_ids"]) == (None, [f"doc-{SECRET}", "7"])
    (said,) = read(tmp_path, Kind.FEEDBACK)
    assert said["document_ids"] == [f"doc-{SECRET}"]


@pytest.mark.parametrize("found", [None, True, ["a"], {"a": 1}, ""])
def test_what_is_no_id_is_hashed_instead(found: object) -> None:
    call = RerankCall(query="q", documents=("a", "b"), echoes=({"text": "a", "id": found}, {"text": "b"}))
    redaction = Redaction(Events(documents="id"), SALT)
    assert redaction.of_call(call).document_ids == [redaction.hash("a"), redaction.hash("b")]


def test_the_field_of_the_id_is_a_setting() -> None:
    call = RerankCall(query="q", documents=("a",), echoes=({"text": "a", "uri": "s3://bucket/a"},))
    assert Redaction(Events(documents="id", document_id="uri"), SALT).of_call(call).document_ids == ["s3://bucket/a"]


def test_off_keeps_nothing(tmp_path: Path) -> None:
    row = stored(tmp_path, query="off", documents="off")
    assert {row[name] for name in ("query", "query_hash", "documents", "document_ids")} == {None}
    assert row["order"] == [1, 0]


def test_equal_texts_have_equal_hashes_under_one_salt_and_others_under_another() -> None:
    ours, theirs = Redaction(Events(), SALT), Redaction(Events(), b"another salt")
    assert ours.hash("a") == Redaction(Events(), SALT).hash("a")
    assert len({ours.hash("a"), ours.hash("b"), theirs.hash("a")}) == 3
