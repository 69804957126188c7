"""Looks at single messages on the stream, where its end alone does not say what became of ours.

Both are seldom needed: after a loss at the stream's end, and where a stream was restored or moved.
"""

from dataclasses import replace
from typing import TypeVar

import structlog

from app.domain.position import Checkpoint, Reached, Tail, recreated, unseen
from app.domain.watcher import Watcher
from app.ports import EventSink

log = structlog.get_logger(__name__)

Known = TypeVar("Known", Checkpoint | None, Reached | None)


async def is_displaced(sink: EventSink, tail: Tail, reached: Reached | None) -> bool:
    """Look whether another message has the place of our last one.

    Raises SinkUnavailable, StreamRefused, NotAuthorised."""
    own = unseen(tail, reached)
    return own is not None and await sink.holds(own) is False


async def recognised(known: Known, tail: Tail, sink: EventSink, watcher: Watcher) -> Known:
    """Return what is known of the stream, as of the stream that is there now where its messages are the same.

    A stream that was restored or moved has another creation time, but our last message is in its place. Raises
    SinkUnavailable, StreamRefused, NotAuthorised."""
    if known is None or not recreated(tail, known) or known.own is None or not await sink.holds(known.own):
        return known
    log.warning(
        "stream_moved", watcher=watcher.name, stream=watcher.sink.stream, created=tail.created,
        before=known.stream_created,
    )  # fmt: skip
    return replace(known, stream_created=tail.created)
