from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from proxy.logs import Lines, configure_logs
from proxy.settings import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator


class Pipe:
    """A pipe, and the stream that writes into it."""

    def __init__(self) -> None:
        self.read_end, write_end = os.pipe()
        self.out = os.fdopen(write_end, "w", closefd=False)
        self._write_end = write_end

    def read(self) -> bytes:
        return os.read(self.read_end, 1 << 20)

    def close(self) -> None:
        self.out.close()
        for file in (self.read_end, self._write_end):
            with contextlib.suppress(OSError):  # the test closed it
                os.close(file)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


@pytest.fixture
def _own_logs() -> Iterator[None]:
    """Let a test configure logging, and put back what was."""
    root = logging.getLogger()
    before = (list(root.handlers), root.level, structlog.get_config())
    yield
    root.handlers[:], root.level = before[0], before[1]
    structlog.configure(**before[2])


def test_lines_arrive_in_order_and_none_is_lost(pipe: Pipe) -> None:
    lines = Lines(pipe.out)
    for number in range(100):
        lines.write(f"{number}\n")
    assert pipe.read().split() == [str(number).encode() for number in range(100)]
    assert lines.lost == 0


def test_a_reader_that_is_gone_costs_lines_and_nothing_else(pipe: Pipe) -> None:
    lines = Lines(pipe.out)
    os.close(pipe.read_end)
    assert [lines.write("a\n"), lines.write("b\n"), lines.lost] == [2, 2, 2]


def test_a_full_disk_costs_lines_and_nothing_else() -> None:
    with Path("/dev/full").open("w") as out:
        lines = Lines(out)
        lines.write("a\n")
        assert lines.lost == 1


@pytest.mark.parametrize("out", [None, "closed"])
def test_a_standard_output_that_is_closed_costs_lines_and_nothing_else(out: str | None) -> None:
    stream = None if out is None else io.StringIO()
    if stream is not None:
        stream.close()
    lines = Lines(stream)
    lines.write("a\n")
    assert (lines.lost, lines.isatty()) == (1, False)


def test_a_reader_that_stands_still_is_waited_for_once_and_not_at_each_line(pipe: Pipe) -> None:
    lines = Lines(pipe.out)
    began = time.monotonic()
    for _ in range(1000):
        lines.write("x" * 999 + "\n")
    assert time.monotonic() - began < 1
    assert 900 < lines.lost < 1000


def test_a_reader_that_goes_on_gets_whole_lines_again(pipe: Pipe) -> None:
    lines = Lines(pipe.out)
    while not lines.lost:
        lines.write(json.dumps("x" * 9000) + "\n")
    found = pipe.read()
    lines.write('"y"\n')
    found += pipe.read()
    *whole, torn, last, end = found.split(b"\n")
    assert [len(json.loads(line)) for line in whole] == [9000] * len(whole)
    assert torn != last
    assert (json.loads(last), end, lines.lost) == ("y", b"", 1)


def test_a_stream_without_a_descriptor_is_written_as_it_is() -> None:
    out = io.StringIO()
    Lines(out).write("a\n")
    assert out.getvalue() == "a\n"


def test_half_a_surrogate_is_written_somehow(pipe: Pipe) -> None:
    lines = Lines(pipe.out)
    lines.write("a\ud800\n")
    assert (pipe.read(), lines.lost) == (b"a?\n", 0)


@pytest.mark.usefixtures("_own_logs")
def test_both_kinds_of_loggers_survive_an_output_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with Path("/dev/full").open("w") as out:
        monkeypatch.setattr(sys, "stdout", out)
        lines = configure_logs(Telemetry(log_format="json"))
        structlog.get_logger("a").info("one")
        logging.getLogger("b").warning("two")
    assert lines.lost == 2


@pytest.mark.usefixtures("_own_logs")
def test_servers_say_nothing_anonymous(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    configure_logs(Telemetry(log_format="json"))
    logging.getLogger("uvicorn.error").info("Started server process [7]")
    logging.getLogger("uvicorn.error").warning("something is wrong")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["something is wrong"]
