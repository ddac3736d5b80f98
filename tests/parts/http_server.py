"""An HTTP server in a thread, whose answers a test writes; real sockets, and real ways to fail."""

from __future__ import annotations

import contextlib
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

import msgspec

from tests.running import free_port

if TYPE_CHECKING:
    from collections.abc import Callable


class HttpRequest(msgspec.Struct, frozen=True):
    """What a client sent."""

    method: str
    path: str
    headers: dict[str, str]
    """By names in lower case."""
    body: bytes


class HttpAnswer(msgspec.Struct, frozen=True):
    """What it gets."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = {}
    sent_bytes: int | None = None
    """Close the connection after so many bytes of the body. None: send all of it."""


class HttpServer:
    """Answers each request by *answer*, each connection in a thread of its own; until started nobody listens."""

    def __init__(self, answer: Callable[[HttpRequest], HttpAnswer], host: str = "127.0.0.1") -> None:
        self.host = host
        self.port = free_port()
        self._answer = answer
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._server = _Server((self.host, self.port), _handler(self._answer))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listen no more and break off what is open."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
        self._server = None


class _Server(ThreadingHTTPServer):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: set[Any] = set()

    daemon_threads = True
    block_on_close = False
    request_queue_size = 512

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that left."""


def _handler(answer: Callable[[HttpRequest], HttpAnswer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *_: object) -> None:
            """Keep the tests' output clean."""

        def _handle(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            self._send(answer(HttpRequest(self.command, self.path, headers, body)))

        def _send(self, found: HttpAnswer) -> None:
            with contextlib.suppress(ConnectionError):
                self.send_response(found.status)
                for name, value in found.headers.items():
                    self.send_header(name, value)
                if found.status != 304:
                    self.send_header("content-length", str(len(found.body)))
                self.end_headers()
                self.wfile.write(found.body[: found.sent_bytes])
                if found.sent_bytes is not None:
                    self.close_connection = True

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _handle  # noqa: N815 - the names http.server calls

    return Handler
