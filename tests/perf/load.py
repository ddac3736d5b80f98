"""Sends calls at a constant rate and times the answers: ``python -m tests.perf.load --port PORT --path PATH``.

An open loop: a call is sent when it is due, whether or not earlier ones are answered, and its time counts
from when it was due. A server that stalls is therefore charged for every call that it kept waiting.

One thread over `select`, whose timeout is exact to some 50 microseconds where those of event loops are
whole milliseconds; connections are kept alive, and more are made when all are busy.
"""

from __future__ import annotations

import gc
import json
import math
import select
import socket
import sys
import time
from collections import deque

import click
import msgspec

from tests.perf.workload import DOCUMENTS, requests

_END = b"\r\n\r\n"
_LENGTH = b"content-length:"
_DIFFERENT = 50
_CONNECTIONS = 16
_MOST_CONNECTIONS = 256


class Timed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one window. Milliseconds are from the moment that a call was due."""

    sent: int
    seconds: float
    """From the first call until the last answer."""
    answered: int
    failed: int
    """Of those answered: not 200."""
    p50_ms: float
    p95_ms: float
    p99_ms: float
    late_p50_ms: float
    """How late calls were sent: the generator's own part in the times."""
    per_second: float
    """Answers a second until the last one came: under the rate where the server does not keep up."""


class Connection:
    """One socket with at most one call under way."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.due = 0.0
        self._received = b""
        self._whole: int | None = None

    def fileno(self) -> int:
        return self.socket.fileno()

    def send(self, request: bytes, due: float) -> None:
        self.due = due
        self._received, self._whole = b"", None
        self.socket.sendall(request)

    def receive(self) -> int | None:
        """Return the status of an answer that is complete now, None of one that is not."""
        data = self.socket.recv(1 << 18)
        if not data:
            raise ConnectionError("the server closed a connection with a call under way")
        self._received += data
        if self._whole is None and (end := self._received.find(_END)) >= 0:
            head = self._received[:end].lower()
            length = head[head.index(_LENGTH) + len(_LENGTH) :].split(b"\r\n", 1)[0]
            self._whole = end + len(_END) + int(length)
        return int(self._received[9:12]) if self._whole == len(self._received) else None


def window(port: int, calls: list[bytes], *, rate: float, seconds: float, patience_seconds: float = 3.0) -> Timed:
    """Send calls for *seconds*, wait for what is still under way, and return the times."""
    total = int(rate * seconds)
    idle = deque(Connection(port) for _ in range(_CONNECTIONS))
    busy: set[Connection] = set()
    waiting: deque[float] = deque()
    taken: list[float] = []
    late: list[float] = []
    failed = scheduled = sent = 0
    start = time.perf_counter() + 0.05
    end = start + total / rate + patience_seconds
    while len(taken) < total and (now := time.perf_counter()) < end:
        while scheduled < total and start + scheduled / rate <= now:
            waiting.append(start + scheduled / rate)
            scheduled += 1
        while waiting and (idle or len(busy) < _MOST_CONNECTIONS):
            connection = idle.popleft() if idle else Connection(port)
            late.append(time.perf_counter() - waiting[0])
            connection.send(calls[sent % len(calls)], waiting.popleft())
            busy.add(connection)
            sent += 1
        until = start + scheduled / rate if scheduled < total else end
        ready, _, _ = select.select(busy, (), (), max(0.0, until - time.perf_counter()))
        for connection in ready:
            status = connection.receive()
            if status is not None:
                taken.append(time.perf_counter() - connection.due)
                failed += status != 200
                busy.remove(connection)
                idle.append(connection)
    elapsed = time.perf_counter() - start
    for connection in (*idle, *busy):
        connection.socket.close()
    # a call without an answer took at least this long, and must not make the rest look fast
    unanswered = [end - start] * (total - len(taken))
    times = sorted(taken) + unanswered
    return Timed(
        sent=total,
        seconds=elapsed,
        answered=len(taken),
        failed=failed,
        p50_ms=quantile(times, 0.5) * 1000,
        p95_ms=quantile(times, 0.95) * 1000,
        p99_ms=quantile(times, 0.99) * 1000,
        late_p50_ms=quantile(sorted(late), 0.5) * 1000,
        per_second=len(taken) / elapsed,
    )


def quantile(ordered: list[float], share: float) -> float:
    """Return the smallest of *ordered* that *share* of them do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


@click.command()
@click.option("--port", type=int, required=True)
@click.option("--path", required=True)
@click.option("--rate", type=float, default=200.0, show_default=True, help="Calls a second.")
@click.option("--seconds", type=float, default=5.0, show_default=True)
@click.option("--documents", type=int, default=DOCUMENTS, show_default=True)
def main(port: int, path: str, rate: float, seconds: float, documents: int) -> None:
    """Print the times of one window as JSON."""
    calls = requests(path, _DIFFERENT, documents=documents)
    gc.disable()
    json.dump(msgspec.to_builtins(window(port, calls, rate=rate, seconds=seconds)), sys.stdout)


if __name__ == "__main__":
    main()
