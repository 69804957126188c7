"""The calls that look at a watcher's stream, its messages as they arrive, and what happened to the watcher.

Messages come as server-sent events (the HTML standard's `text/event-stream`), so that a browser, curl and our own
command line can follow them alike. Not its business: how fast that goes (`control/stream_browser.py`).
"""

from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from app.api.head_requests import is_head
from app.api.problems import documented
from app.api.routes.status import NOT_CACHED
from app.api.routes.watchers import Name, Watchers
from app.api.schemas.answers import moment, said
from app.domain.status import Happening

if TYPE_CHECKING:  # imported by the first call that needs it
    from app.domain.streams import ConsumerFacts, Seen, StoredMessage, StreamFacts

SHOWN_BYTES = 64 * 1024
"""Of a larger message only the beginning is sent."""
_EVENTS = "text/event-stream"

_HAPPENING = {"$ref": "#/components/schemas/HappeningAnswer"}
_STREAM = {"$ref": "#/components/schemas/StreamAnswer"}
_MESSAGE = {"$ref": "#/components/schemas/MessageEvent"}

router = APIRouter()


def schemas() -> dict[str, Any]:
    """The OpenAPI components that are referred to here, made when the document is asked for."""
    from app.api.schemas import stream_answers

    return stream_answers.schemas()


def _answers(schema: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    return {200: {"description": "Successful Response", "content": {"application/json": {"schema": schema}}}}


class Following(BaseModel):
    """The query of `GET /watchers/{name}/messages`."""

    model_config = ConfigDict(extra="forbid")

    last: int = Field(
        default=20, ge=0, le=100, description="How many of the messages already on the stream come first."
    )


@router.get(
    "/watchers/{name}/history",
    tags=["status"],
    response_class=Response,
    responses={**_answers({"type": "array", "items": _HAPPENING}), **documented(404, 422, 503)},
)
async def get_watcher_history(registry: Watchers, name: Name) -> Response:
    """Get the last 50 states and errors of a watcher in this instance since it started, oldest first."""
    return JSONResponse([_happening(each) for each in await registry.history(name)], headers=NOT_CACHED)


@router.get(
    "/watchers/{name}/stream",
    tags=["streams"],
    response_class=Response,
    responses={**_answers(_STREAM), **documented(404, 409, 422, 503)},
)
async def get_stream(registry: Watchers, name: Name) -> Response:
    """Get a watcher's stream: its settings, its content, and its consumers with their pending messages."""
    return JSONResponse(_stream(await registry.streams.facts(name)), headers=NOT_CACHED)


@router.get(
    "/watchers/{name}/messages",
    tags=["streams"],
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events, without an end. `message` has a MessageEvent. `skipped` has `after` "
            "and `before`: the messages between these sequences are left out, because there are too many. "
            "`trouble` has a `reason` while the stream cannot be read. A comment comes every 15 seconds when "
            "nothing else does.",
            "content": {_EVENTS: {"schema": _MESSAGE}},
        },
        **documented(404, 409, 422, 503),
    },
)
async def follow_messages(
    request: Request, registry: Watchers, name: Name, query: Annotated[Following, Query()]
) -> Response:
    """Follow a watcher's messages: the last ones, then each as it arrives. For people, not for consumers: messages are
    left out when there are too many, and of a body above 64 KiB only the beginning is sent."""
    seen = registry.streams.follow(name, query.last)
    first = await anext(seen)  # refusals come out of it, while there is still a status to answer
    headers = {**NOT_CACHED, "X-Accel-Buffering": "no"}
    if is_head(request.scope):
        return Response(headers=headers, media_type=_EVENTS)
    return StreamingResponse(_events(first, seen), headers=headers, media_type=_EVENTS)


async def _events(first: "Seen", seen: AsyncIterator["Seen"]) -> AsyncIterator[bytes]:
    yield _event(first)
    async for each in seen:
        yield _event(each)


def _event(seen: "Seen") -> bytes:
    from app.domain.streams import Quiet, Skipped, StoredMessage, Trouble

    match seen:
        case Quiet():
            return b": still here\n\n"
        case Skipped():
            return _lines("skipped", {"after": seen.after, "before": seen.before})
        case Trouble():
            return _lines("trouble", {"reason": said(seen.reason)})
        case StoredMessage():
            return _lines("message", message(seen), f"id: {seen.sequence}\n")


def _lines(event: str, data: dict[str, Any], more: str = "") -> bytes:
    # A body is sent as it is: line breaks can only be between its tokens, and would end the field.
    text = orjson.dumps(data).replace(b"\r", b" ").replace(b"\n", b" ")
    return b"event: %s\n%sdata: %s\n\n" % (event.encode(), more.encode(), text)


def message(value: "StoredMessage") -> dict[str, Any]:
    """The data of a message's event, for orjson."""
    body, note = _body(value.body)
    return {
        "sequence": value.sequence,
        "time": moment(value.time),
        "subject": value.subject,
        "id": value.headers.get("Nats-Msg-Id"),
        "headers": dict(value.headers),
        "body": body,
        "bytes": len(value.body),
        "note": note,
    }


def _body(body: bytes) -> tuple[Any, str | None]:
    if len(body) > SHOWN_BYTES:
        cut = body[:SHOWN_BYTES].decode("utf-8", "replace")
        return cut, f"cut: the first {SHOWN_BYTES} of {len(body)} bytes"
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode("utf-8", "replace"), "not JSON"
    return orjson.Fragment(body), None


def _happening(value: Happening) -> dict[str, Any]:
    return {
        "state": value.state,
        "time": moment(value.time),
        "reason": said(value.reason),
        "count": value.count,
        "last_time": moment(value.last),
    }


def _stream(value: "StreamFacts") -> dict[str, Any]:
    listed = value.consumers
    return asdict(value) | {
        "subjects": list(value.subjects),
        "consumers": None if listed is None else [_consumer(each) for each in listed],
        "consumers_why": said(value.consumers_why),
    }


def _consumer(value: "ConsumerFacts") -> dict[str, Any]:
    return asdict(value) | {"filter_subjects": list(value.filter_subjects)}
