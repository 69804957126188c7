"""What arrives on a stream, as server-sent events (the HTML standard's `text/event-stream`).

A browser, curl and `changewire watchers tail` can follow them alike. An event's data is made by its model, as every
answer is; only the stream as a whole has no end and therefore no model.
"""

from collections.abc import AsyncIterator
from typing import Any

import orjson
from pydantic.json_schema import models_json_schema

from app.api.schemas.base import shown, to_json
from app.api.schemas.streams import MessageEvent
from app.domain.streams import Quiet, Seen, Skipped, StoredMessage, Trouble

EVENTS = "text/event-stream"
MESSAGE = {"$ref": "#/components/schemas/MessageEvent"}


def schemas() -> dict[str, Any]:
    """The OpenAPI components of events, which no call has as its answer."""
    _, document = models_json_schema([(MessageEvent, "validation")], ref_template="#/components/schemas/{model}")
    found: dict[str, Any] = document["$defs"]
    return found


async def written(first: Seen, seen: AsyncIterator[Seen]) -> AsyncIterator[bytes]:
    """Each thing that is seen as the text of its event."""
    yield event(first)
    async for each in seen:
        yield event(each)


def event(seen: Seen) -> bytes:
    """One event's text."""
    match seen:
        case Quiet():
            return b": still here\n\n"
        case Skipped():
            return _lines("skipped", orjson.dumps({"after": seen.after, "before": seen.before}))
        case Trouble():
            return _lines("trouble", orjson.dumps({"reason": shown(seen.reason)}))
        case StoredMessage():
            return _lines("message", to_json(MessageEvent.of(seen)), f"id: {seen.sequence}\n")


def _lines(name: str, data: bytes, more: str = "") -> bytes:
    # A body is sent as it is: line breaks can only be between its tokens, and would end the field.
    text = data.replace(b"\r", b" ").replace(b"\n", b" ")
    return b"event: %s\n%sdata: %s\n\n" % (name.encode(), more.encode(), text)
