"""uvicorn's HTTP protocol, with what it says of bytes that are no HTTP as JSON, like every other answer."""

from __future__ import annotations

from uuid import uuid4

import msgspec
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from proxy.errors import InvalidRequest
from proxy.wire.canonical import error_body


class JsonProtocol(HttpToolsProtocol):
    """Answers an unknown method or a broken head in the body that rerank clients read."""

    def send_400_response(self, msg: str) -> None:
        """Answer 400 and hang up."""
        request_id = uuid4().hex
        body = msgspec.json.encode(error_body(InvalidRequest(msg), request_id))
        head = (
            "HTTP/1.1 400 Bad Request\r\n"
            "content-type: application/json\r\n"
            f"content-length: {len(body)}\r\n"
            f"x-request-id: {request_id}\r\n"
            "connection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
