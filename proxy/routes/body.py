"""Bodies of requests to the data plane."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litestar.exceptions.http_exceptions import RequestEntityTooLarge

from proxy.errors import TooLarge

if TYPE_CHECKING:
    from litestar import Request

    from proxy.parts import Parts


async def body_of(request: Request[Any, Any, Any]) -> bytes:
    """Return the body.

    Raises:
        TooLarge: it is longer than allowed, and is not read to its end.

    """
    try:
        return await request.body()
    except RequestEntityTooLarge as exc:
        parts: Parts = request.app.state.parts
        limit = parts.settings.limits.max_body_bytes
        raise TooLarge(f"the body is longer than {limit} bytes", field="body") from exc
