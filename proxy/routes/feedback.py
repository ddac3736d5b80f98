"""What users say of rankings, on the data plane."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec
from litestar import MediaType, Request, Response, post

from proxy.errors import InvalidRequest
from proxy.feedback.told import Answer, Batch, Counted, Failed, Taken, Told, read_told
from proxy.keys import presented_key
from proxy.routes.body import body_of
from proxy.wire.canonical import error_body
from proxy.wire.openapi import EXAMPLES, error_responses, operation

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler

    from proxy.errors import ProxyError
    from proxy.feedback.intake import Intake
    from proxy.parts import Parts


class _Speaker:
    """Answers failures under their own status: this is nobody's API but ours."""

    name = "feedback"

    def write_error(self, error: ProxyError, request_id: str) -> tuple[int, object]:
        """Return status and body."""
        return error.status, error_body(error, request_id)


FEEDBACK_PATH = "/v1/feedback"
_STATUSES = (400, 401, 413, 429)


@post(
    FEEDBACK_PATH,
    status_code=200,
    operation_class=operation([Told, Batch], [Counted, Answer], {"one": EXAMPLES["feedback"]}),
    responses=error_responses(_STATUSES, speaks_tei=False),
    summary="what a user clicked, cited or voted for",
    opt={"speaker": _Speaker()},
)
async def feedback(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Count what is said of one ranking, or of several: then each counts or fails by itself."""
    parts: Parts = request.app.state.parts
    parts.keys.check_data(presented_key(request.headers))
    assert parts.feedback is not None  # or there would be no route
    intake = parts.feedback.intake
    with parts.in_flight:
        told = read_told(await body_of(request))
        if isinstance(told, Told):
            return _json(await intake.take(told))
        taken = await asyncio.gather(*(_one(intake, each, place) for place, each in enumerate(told)))
        return _json(Answer(tuple(taken)))


async def _one(intake: Intake, told: Told | InvalidRequest, place: int) -> Taken:
    """Return what became of one of a batch."""
    if isinstance(told, InvalidRequest):
        return Taken(error=Failed(told.code, told.message, told.field))
    try:
        found = await intake.take(told)
    except InvalidRequest as exc:
        field = f"events[{place}].{exc.field}" if exc.field else f"events[{place}]"
        return Taken(error=Failed(exc.code, f"events[{place}].{exc.message}", field))
    return Taken(found.counted, found.double)


def _json(body: object) -> Response[bytes]:
    return Response(msgspec.json.encode(body), media_type=MediaType.JSON)


def feedback_routes() -> list[HTTPRouteHandler]:
    """Return the routes that take feedback."""
    return [feedback]
