"""The calls that look at a watcher's stream, and at its messages as they arrive.

How many messages are shown to somebody who looks is decided in `control/stream_browser.py`.
"""

from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response, StreamingResponse

from app.api.answering import Answered, Call
from app.api.event_stream import EVENTS, MESSAGE, written
from app.api.head_requests import is_head
from app.api.parameters import NOT_CACHED, CurrentRegistry, Name
from app.api.problems import documented
from app.api.schemas.streams import Following, StreamAnswer

router = APIRouter(tags=["streams"], route_class=Call)


@router.get(
    "/watchers/{name}/stream",
    responses=documented(404, 409, 422, 503),
)
async def get_stream(registry: CurrentRegistry, name: Name) -> Answered[StreamAnswer]:
    """Get a watcher's stream: its settings, its content, and its consumers with their pending messages."""
    return Answered(StreamAnswer.of(await registry.streams.facts(name)), headers=NOT_CACHED)


@router.get(
    "/watchers/{name}/messages",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events, without an end. `message` has a MessageEvent. `skipped` has `after` "
            "and `before`: the messages between these sequences are left out, because there are too many. "
            "`trouble` has a `reason` while the stream cannot be read. A comment comes every 15 seconds when "
            "nothing else does.",
            "content": {EVENTS: {"schema": MESSAGE}},
        },
        **documented(404, 409, 422, 503),
    },
)
async def follow_messages(
    request: Request, registry: CurrentRegistry, name: Name, query: Annotated[Following, Query()]
) -> Response:
    """Follow a watcher's messages: the last ones, then each as it arrives. For people, not for consumers: messages are
    left out when there are too many, and of a body above 64 KiB only the beginning is sent."""
    seen = registry.streams.follow(name, query.last)
    first = await anext(seen)  # refusals come out of it, while there is still a status to answer
    headers = {**NOT_CACHED, "X-Accel-Buffering": "no"}
    if is_head(request.scope):
        return Response(headers=headers, media_type=EVENTS)
    return StreamingResponse(written(first, seen), headers=headers, media_type=EVENTS)
