"""Records for the event log, and places to write it to that fail when told to."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any, ClassVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from flags.vocabulary import Arm, Assignment, Reason
from proxy.events.event_log import EventLog
from proxy.events.reading import EventReader, Period
from proxy.events.records import FeedbackEvent, Kind, ServedRanking
from proxy.events.redaction import Redaction
from proxy.events.storage import Storage
from proxy.exposure import Attempt, Exposure, Outcome, Role
from proxy.quality_settings import Events
from proxy.wire.canonical import Ranked, RerankCall

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SALT = b"a salt for tests"
ALWAYS = Period(0.0, 4e9)
NOON = 1_795_435_200.0
"""2026-11-23T12:00:00Z."""


def exposure(**fields: Any) -> Exposure:
    """Return one of control, a tenth of a second and a tenth of a cent long."""
    arm = fields.pop("arm", Arm.CONTROL)
    attempt = Attempt(
        role=Role(arm.value),
        model="gpt-test",
        outcome=Outcome.OK,
        started_at=NOON,
        seconds=0.09,
        kind="llm",
        tokens=900,
        output_tokens=50,
        cost_dollars=fields.pop("cost_dollars", 0.001),
    )
    usual: dict[str, Any] = {
        "request_id": "request-1",
        "traceparent": None,
        "route": "/v1/rerank",
        "dialect": "jina",
        "flag": "rerank-canary",
        "assignment": Assignment(arm, Reason.SPLIT, 42, 5),
        "outcome": Outcome.OK,
        "served_by": Role(arm.value),
        "model": "gpt-test",
        "status": 200,
        "user_hash": "0123456789abcdef",
        "user_group": 7,
        "user_source": "header:X-User-Id",
        "is_forced": False,
        "documents": 3,
        "started_at": NOON,
        "seconds": 0.1,
        "attempts": (attempt,),
    }
    return Exposure(**(usual | fields))


def ranking(call: RerankCall | None = None, **fields: Any) -> ServedRanking:
    """Return a ranking that puts the documents received in the reverse order."""
    call = call or RerankCall(query="a query", documents=("first", "second", "third"))
    count = len(call.documents)
    results = [Ranked(count - 1 - i, 0.9 - i / 10, 2.0 - i) for i in range(count)]
    return ServedRanking(exposure(**({"documents": count} | fields)), call, results, count)


def feedback(**fields: Any) -> FeedbackEvent:
    """Return a click on the second document of a request of noon."""
    usual: dict[str, Any] = {
        "request_id": "request-1",
        "received_at": NOON + 5,
        "served_at": NOON,
        "arm": "control",
        "action": "clicked",
        "indices": (1,),
        "ranks": (2,),
    }
    return FeedbackEvent(**(usual | fields))


def event_log(url: Path | str, **fields: Any) -> EventLog:
    """Return a log that writes at its end only, unless *fields* of the settings say otherwise."""
    settings = Events(**({"is_on": True, "flush_seconds": 3600.0} | fields))
    return EventLog(settings, Storage(url), Redaction(settings, SALT), "replica")


def write(url: Path | str, *records: ServedRanking | FeedbackEvent, **fields: Any) -> EventLog:
    """Write *records*, and return the log, closed."""
    log = event_log(url, **fields)
    log.start()
    for record in records:
        if isinstance(record, FeedbackEvent):
            log.record_feedback(record)
        else:
            log.observe_ranking(record)
    log.close()
    return log


def read(url: Path | str, kind: Kind = Kind.EXPOSURES, columns: list[str] | None = None) -> list[dict[str, Any]]:
    """Return all rows."""
    reader = EventReader(url)
    return list(reader.rows(kind, ALWAYS, columns or reader.columns(kind)))


class FullDisk(LocalFileSystem):  # type: ignore[misc]  # fsspec has no types
    """A local disk that writes a file in two halves, and is full after the first while `is_full`."""

    protocol = ("full",)
    is_full = False
    in_the_middle: ClassVar[Callable[[], None] | None] = None
    """Called when half of a file is written."""

    def open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        """Open a file that takes a few bytes and no more."""
        file = super().open(path, mode, **options)
        if mode == "wb":
            file.write = self._taking(file, file.write)
        return file

    def _taking(self, file: Any, write: Callable[[bytes], int]) -> Callable[[bytes], int]:
        def take(data: bytes) -> int:
            write(data[: len(data) // 2])
            file.flush()
            if type(self).is_full:
                raise OSError(errno.ENOSPC, "No space left on device")
            if (look := type(self).in_the_middle) is not None:
                look()
            return write(data[len(data) // 2 :])

        return take


fsspec.register_implementation("full", FullDisk, clobber=True)
