"""A signed webhook, for everything else.

The body is the alert as JSON: ``status`` (``firing`` or ``resolved``), ``key`` (one incident a key), ``kind``,
``severity`` (``page``, ``warning``, ``info``), ``flag``, ``title``, ``starts_at`` and ``ends_at`` (Unix seconds;
null: it lasts), ``facts`` and ``links`` (pairs of label and text), ``details``, ``version`` (of what came under
one key the highest counts).

To verify it, take the header ``X-Rerank-Canary-Timestamp`` (whole Unix seconds), refuse it if it is minutes
old, and compare, in constant time, ``X-Rerank-Canary-Signature`` with ``v1=`` and the HMAC-SHA256 in hex, under
the shared secret, of the timestamp, a full stop and the body's bytes as they came::

    expected = "v1=" + hmac.new(secret, timestamp + b"." + body, hashlib.sha256).hexdigest()
    hmac.compare_digest(expected, signature)

Any status from 200 to 299 takes it. The same may come twice.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import TYPE_CHECKING

import msgspec

from alerts.alert import Severity
from alerts.notifiers.http import post

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import httpx

    from alerts.alert import Alert


class Webhook:
    """Posts each change of an alert, signed."""

    takes_updates = True
    repost_seconds = None

    def __init__(
        self,
        name: str,
        url: str,
        secret: str,
        client: httpx.AsyncClient,
        *,
        severities: Collection[Severity] = tuple(Severity),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.name = name
        self.severities = frozenset(severities)
        self._url = url
        self._secret = secret
        self._client = client
        self._clock = clock

    async def send(self, alert: Alert) -> None:
        """Post it."""
        body = webhook_body(alert)
        timestamp = str(int(self._clock()))
        signed = {
            "x-rerank-canary-timestamp": timestamp,
            "x-rerank-canary-signature": signature(self._secret, timestamp, body),
        }
        await post(self._client, self._url, body, signed)


def webhook_body(alert: Alert) -> bytes:
    """Return *alert* as JSON."""
    return msgspec.json.encode({"status": "resolved" if alert.is_over else "firing", **msgspec.to_builtins(alert)})


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """Return the value of the header that signs *body*."""
    digest = hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"v1={digest}"
