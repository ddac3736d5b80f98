"""The dashboard as a browser without scripts sees it."""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING, Self

import httpx

if TYPE_CHECKING:
    from tests.running import Proxy

_HIDDEN = re.compile(r'<input type="hidden" name="([^"]+)" value="([^"]*)"')


class Visitor:
    """Somebody at the pages of one proxy."""

    def __init__(self, proxy: Proxy) -> None:
        self.client = httpx.Client(base_url=proxy.control_url, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def sign_in(self, key: str, following: str = "/ui") -> httpx.Response:
        """Hand in a token."""
        return self.client.post("/ui/login", data={"token": key, "next": following})

    def page(self, path: str, status: int = 200) -> str:
        """Return a page's text as people read it."""
        answer = self.client.get(path)
        assert answer.status_code == status, (answer.status_code, answer.text[-2000:])
        return unescape(answer.text)

    def fields(self, path: str) -> dict[str, str]:
        """Return what the form of a page brings along unseen; the sign-out form's is the same session's."""
        return dict(_HIDDEN.findall(self.page(path)))

    def act(self, action: str, *, share_percent: int | None = None, **fields: str) -> httpx.Response:
        """Ask for an action, and confirm it."""
        query = "" if share_percent is None else f"?share_percent={share_percent}"
        return self.client.post(f"/ui/actions/{action}", data=self.fields(f"/ui/confirm/{action}{query}") | fields)
