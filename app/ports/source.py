"""Where changes come from: one watcher's change stream."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from app.domain.status import Reads
from app.domain.watcher import Start


@dataclass(slots=True)
class SourceBatch:
    """What one read brought, possibly nothing but a newer position.

    `events` are raw BSON change events in stream order, `position` the token that covers all of them (MongoDB's
    postBatchResumeToken), `operation_time` the server's own in seconds since 1970, `size` the events' bytes. Events
    that came in one piece stay in it (`domain/raw_events.py`).
    """

    events: Sequence[bytes]
    position: str
    operation_time: int
    size: int
    reduced: tuple[str, ...] = ()
    """The fields that had to be left out of the only event, since with them MongoDB could not send it."""
    caught_up: bool = False
    """Whether MongoDB had nothing more when it was read, though events came."""


class ChangeSource(Protocol):
    """One watcher's change stream. One reader at a time."""

    @property
    def scope(self) -> str:
        """Deployment and collection a token of this source is good for, for example `rs0/shop.orders`.

        Known after `prepare`."""

    @property
    def reads(self) -> Reads:
        """Which change stream the last batch came from."""

    async def prepare(self, *, may_create: bool = True) -> int:
        """Reach the server and return its operationTime (seconds since 1970). Where the watcher asks for images and
        `may_create` is true, create the collection with them or switch them on.

        Raises SourceUnavailable, NotAuthorised, SourceRefused (standalone server, view, bad pipeline)."""

    async def locate(self, start: Start) -> str:
        """Return the token of a start position. Reading after it delivers everything from that position on.

        Raises HistoryLost where the oplog does not reach back to it, TokenRefused for a token that is not one."""

    def pass_over(self, ahead: Collection[tuple[str, str]]) -> None:
        """Leave out, when next opened, the changes of each of these collections up to its token: they are published.

        `ahead` has collections, such as `shop.orders`, and tokens."""

    async def open(self, after: str) -> None:
        """Begin to read after a token (an event's, an invalidate's or a high-water mark).

        A token that the server refuses though its moment is still in the oplog (280: the options changed) is replaced
        by its cluster time, and what is not later than it is skipped.
        Raises SourceUnavailable, HistoryLost, TokenRefused, NotAuthorised, SourceRefused."""

    async def has_event(self, token: str) -> bool | None:
        """Look whether MongoDB's history has the event with this token; None where it has not come to its time yet.

        Reads without the watcher's pipeline, beside the open stream, and changes nothing. Errors as `open`."""

    async def read(self) -> SourceBatch:
        """Wait for events, for half a second at most, and return them, or an empty batch.

        Survives drop, rename and invalidate (reads on with `startAfter`). An event of more than MongoDB can send comes
        alone: put together from its parts where the server can split it, else without its large fields (`reduced`).
        Errors as `open`, and EventTooLarge where not even that helps; after one, open again.
        Being cancelled leaves the source usable for `close` only."""

    def hurry(self) -> None:
        """Have the next read wait only a moment for events, and bring a newer position where none came. One that is
        under way ends now, where that can be done."""

    async def close(self) -> None:
        """End the cursor on the server. Never raises; may be called twice."""
