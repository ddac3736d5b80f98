"""A reranking server that answers at once: ``python -m tests.perf.stub --port PORT``.

It speaks Cohere (v1 and v2) and Jina, whose answers are alike, on whatever path it is asked.
"""

from __future__ import annotations

import asyncio
import functools
import json
import signal
from typing import cast

import click
import msgspec
import uvloop

_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class _Asked(msgspec.Struct):
    documents: list[msgspec.Raw]


_decoder = msgspec.json.Decoder(_Asked)


@functools.cache
def _answer(count: int) -> bytes:
    """Return the whole HTTP answer about *count* documents: the last is the best."""
    body = json.dumps(
        {
            "id": "7d3f1b1e-0000-4000-8000-000000000000",
            "results": [{"index": i, "relevance_score": (i + 1) / (count + 1)} for i in reversed(range(count))],
            "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
            "usage": {"total_tokens": 0},
        }
    ).encode()
    return f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


_HELLO = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


class _Stub(asyncio.Protocol):
    """One connection. Requests bring their length; a GET, which is how others ask whether it is up, has none."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(_END)) >= 0:
            head = self._received[:end].lower()
            at = head.find(_LENGTH)
            length = int(head[at + len(_LENGTH) :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            whole = end + len(_END) + length
            if len(self._received) < whole:
                return
            body, self._received = self._received[end + len(_END) : whole], self._received[whole:]
            self._transport.write(_answer(len(_decoder.decode(body).documents)) if body else _HELLO)


async def _serve(port: int) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    server = await loop.create_server(_Stub, "127.0.0.1", port, backlog=1024)
    async with server:
        await stop.wait()


@click.command()
@click.option("--port", type=int, required=True)
def main(port: int) -> None:
    """Answer until SIGTERM."""
    uvloop.run(_serve(port))


if __name__ == "__main__":
    main()
