"""A watcher's stream as somebody sees it who looks."""

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # needed when somebody looks at a stream, not at the start
    from app.domain.streams import StoredMessage, StreamFacts


class StreamReader(Protocol):
    """A watcher's stream, to look at: nothing is changed, and nothing is kept on the server.

    Messages are those of the watcher's subjects, in the stream's order; where there is no stream, there are none.
    Every method raises SinkUnavailable, NotAuthorised, StreamRefused.
    """

    async def facts(self) -> "StreamFacts | None":
        """Return what the stream is and holds; None where it does not exist."""

    async def newest(self) -> int:
        """Return the last message's sequence; 0 where there is none."""

    async def last(self, count: int) -> "list[StoredMessage]":
        """Return the newest messages; fewer than `count` too where others' messages lie far between them."""

    async def after(self, sequence: int, limit: int) -> "list[StoredMessage]":
        """Return the first messages after a sequence."""
