"""The control plane as a command sees it: over HTTP, with retries, and an exit code for each way to fail."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any, NoReturn
from uuid import uuid4

import httpx
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from pathlib import Path

REFUSED, UNREACHABLE, UNAUTHORIZED, NOT_EVERYWHERE = 1, 3, 4, 5
"""Exit codes. 2 is wrong usage."""
_TRIES = 3
_errors = Console(stderr=True)


class ControlPlane:
    """Asks and orders; a failure ends the command."""

    def __init__(self, url: str, token: str) -> None:
        if not (token.isascii() and token.isprintable() and token):
            _fail("the token is none: it has to be one line of plain characters", UNAUTHORIZED)
        self._client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def get(self, path: str, **params: int) -> Any:
        """Return the answer to a question."""
        return self._send("GET", path, params=params)

    def order(self, path: str, **fields: Any) -> Any:
        """Return the outcome of a command; sent again it does nothing twice."""
        request_id = fields.pop("request_id", None) or uuid4().hex
        return self._send("POST", path, json={"through": "cli", "request_id": request_id, **fields})

    def _send(self, method: str, path: str, **fields: Any) -> Any:
        for left in reversed(range(_TRIES)):
            try:
                response = self._client.request(method, path, **fields)
            except (httpx.HTTPError, httpx.InvalidURL) as exc:
                if not left:
                    _fail(f"the control plane at {self._client.base_url} cannot be reached: {exc}", UNREACHABLE)
            else:
                if response.is_success:
                    return self._content(response)
                if response.status_code != 503 or not left:
                    code = UNAUTHORIZED if response.status_code in {401, 403} else REFUSED
                    _fail(_message(response), code)
            time.sleep(0.5)
        raise AssertionError  # pragma: no cover - the last try returns or ends the command

    def _content(self, response: httpx.Response) -> Any:
        try:
            return response.json()
        except ValueError:
            _fail(f"what answers at {self._client.base_url} is no control plane of rerank-canary", UNREACHABLE)


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"the control plane answered {response.status_code}"


def _fail(reason: str, code: int) -> NoReturn:
    _errors.print(f"[bold red]rerank-canary:[/] {escape(reason)}", highlight=False, soft_wrap=True)
    sys.exit(code)


def token_of(data_dir: Path) -> str:
    """Return the token of the environment, or the one that a proxy on this machine made."""
    if found := os.environ.get("RERANK_CANARY_TOKEN", "").strip():
        return found
    file = data_dir / "control.token"
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError):
        _fail(f"no token: set RERANK_CANARY_TOKEN (there is no {file} here)", UNAUTHORIZED)
