"""structlog, and everything that still uses the standard library, as one stream of lines."""

from __future__ import annotations

import io
import logging
import os
import select
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any, TextIO, cast

import msgspec
import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from proxy.settings import Telemetry

_QUIET = ("httpx", "httpx2", "httpcore", "httpcore2", "openai", "urllib3", "apscheduler", "uvicorn", "asyncio")
"""At their debug level some of these print request bodies, documents among them; uvicorn greets for each listener."""

_PATIENCE_SECONDS = 0.05
_CHUNK_BYTES = 4096
"""What a pipe that is ready takes without blocking (PIPE_BUF of Linux)."""


class Lines(io.TextIOBase):
    """Standard output for log lines. One that is closed, full or not read costs lines, never the work that logs.

    A reader that stands still is waited for once; until it reads again, lines are dropped at once.
    """

    def __init__(self, out: TextIO | None) -> None:
        self._out = out
        self._file = _descriptor(out)
        self._lock = threading.Lock()
        self._is_stuck = False
        self._is_torn = False
        self.lost = 0
        """Lines that could not be written, or not to their end."""

    def write(self, text: str) -> int:
        """Write one line; never raises, never blocks for long."""
        with self._lock:
            try:
                self._write(text)
            except (OSError, ValueError):  # ValueError: the stream was closed
                self.lost += 1
        return len(text)

    def isatty(self) -> bool:
        """Tell whether people read along."""
        return self._out is not None and not self._out.closed and self._out.isatty()

    def _write(self, text: str) -> None:
        if self._out is None:
            raise OSError("standard output is closed")
        if self._file is None:
            self._out.write(text)
            return
        left = memoryview(("\n" * self._is_torn + text).encode("utf-8", "replace"))
        self._is_torn, was_torn = False, self._is_torn
        total = len(left)
        try:
            while left:
                self._wait(self._file)
                left = left[os.write(self._file, left[:_CHUNK_BYTES]) :]
        finally:
            self._is_torn = 0 < len(left) < total or (was_torn and len(left) == total)

    def _wait(self, file: int) -> None:
        ready = select.poll()
        ready.register(file, select.POLLOUT)
        self._is_stuck = not ready.poll(0 if self._is_stuck else _PATIENCE_SECONDS * 1000)
        if self._is_stuck:
            raise TimeoutError


def _descriptor(out: TextIO | None) -> int | None:
    """Return the file descriptor behind *out*; None for a stream that has none, as under a test."""
    try:
        return None if out is None else out.fileno()
    except (OSError, ValueError):
        return None


def configure_logs(settings: Telemetry, out: TextIO | None = None) -> Lines:
    """Send every log line to *out*, by default standard output: JSON, or coloured text on a terminal."""
    lines = Lines(out or sys.stdout)
    as_json = settings.log_format == "json" or (settings.log_format == "auto" and not lines.isatty())
    level = getattr(logging, settings.log_level.upper())
    shared: list[structlog.typing.Processor] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        frames_only,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(serializer=_to_json) if as_json else structlog.dev.ConsoleRenderer()
    )
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", lines)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(lines)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.INFO), force=True)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    return lines


def frames_only(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Replace an exception by its type and where it came from: its message may quote a document."""
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    error = info[1] if isinstance(info, tuple) else info
    if isinstance(error, BaseException):
        event["error"] = type(error).__name__
        event["frames"] = [f"{f.filename}:{f.lineno} {f.name}" for f in traceback.extract_tb(error.__traceback__)]
    return event


def _to_json(event: object, **_: object) -> str:
    return msgspec.json.encode(event, enc_hook=str).decode()
