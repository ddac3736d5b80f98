"""One POST to a receiver, and what its answer means."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING

import httpx

from alerts.notifiers.base import NotDelivered

if TYPE_CHECKING:
    from collections.abc import Mapping

_TRY_AGAIN = {408, 425, 429}
_LONGEST_HEAD = 200
_CODE = re.compile(r"[a-z][a-z_ ]{2,40}")
"""The one word by which Slack says what is wrong; anything else could hold a secret."""


def new_client(timeout_seconds: float = 5.0) -> httpx.AsyncClient:
    """Return the client that all notifiers share; whoever made it closes it. It follows no redirects."""
    return httpx.AsyncClient(timeout=timeout_seconds, headers={"user-agent": "rerank-canary"})


async def post(
    client: httpx.AsyncClient, url: str, body: bytes, headers: Mapping[str, str] | None = None, *, ok: int | None = None
) -> None:
    """Post JSON; *ok* is the one status that the receiver takes an alert with (None: any from 200 to 299).

    Raises:
        NotDelivered: it was not taken. 4xx but for 408, 425 and 429 is final, and so are redirects.

    """
    sent = {"content-type": "application/json", **(headers or {})}
    try:
        async with client.stream("POST", url, content=body, headers=sent) as response:
            if response.status_code == ok or (ok is None and response.is_success):
                return
            raise _refusal(response, await _head(response))
    except httpx.TimeoutException as exc:
        raise NotDelivered("no answer in time") from exc
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as exc:
        raise NotDelivered("not a URL", is_final=True) from exc
    except httpx.HTTPError as exc:
        raise NotDelivered(f"no connection ({type(exc).__name__})") from exc


def _refusal(response: httpx.Response, head: bytes) -> NotDelivered:
    status = response.status_code
    code = head.decode(errors="replace").strip()
    return NotDelivered(
        f"HTTP {status} ({code})" if _CODE.fullmatch(code) else f"HTTP {status}",
        retry_after_seconds=retry_after_seconds(response.headers.get("retry-after", ""), time.time()),
        is_final=300 <= status < 500 and status not in _TRY_AGAIN,
    )


async def _head(response: httpx.Response) -> bytes:
    """Return the first bytes: a receiver that answers without end must not fill the memory."""
    async for chunk in response.aiter_raw(_LONGEST_HEAD):
        return chunk
    return b""


def retry_after_seconds(header: str, now: float) -> float | None:
    """Return the wait that a ``Retry-After`` asks for (RFC 9110, section 10.2.3); None: it says none."""
    if re.fullmatch(r"[0-9]{1,9}", header.strip()):
        return float(header)
    try:
        return max(parsedate_to_datetime(header).timestamp() - now, 0.0)
    except (ValueError, OverflowError):
        return None
