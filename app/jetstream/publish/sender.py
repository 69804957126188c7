"""The way of one watcher's messages to its stream: subjects, fence, deadline, and a single message.

Every mode publishes through a `Sender`; how many messages go out together, and what their replies mean, is the mode's.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from app.domain.errors import SeenBefore
from app.domain.events import Change
from app.domain.packed import operations_of, size_of
from app.domain.watcher import Watcher
from app.jetstream import frames
from app.jetstream.connection import Conversation, NatsConnection
from app.jetstream.exchange import Answer, Exchange
from app.jetstream.publish.acks import Ack, read_ack
from app.jetstream.sizes import Sizes

ACK_SECONDS = 5.0
SLOWEST_BYTES_PER_SECOND = 50_000
"""An acknowledgement is awaited for `ACK_SECONDS` and as long as the bytes take at this rate."""

T = TypeVar("T")


class Sender:
    """Sends one watcher's changes. `exclusive` is set by the sink, each time it has looked at the stream."""

    def __init__(self, connection: NatsConnection, watcher: Watcher, sizes: Sizes) -> None:
        self._connection = connection
        self._filter = watcher.space
        self._sizes = sizes
        self.stream = watcher.sink.stream
        self.subjects = _Subjects(watcher)
        """The subject of each operation, or a filter over its changes' own ones."""
        self.exclusive = False
        """Whether the stream carries this watcher's subjects alone, so that its last sequence is the fence."""

    def fence(self, sequence: int) -> str:
        """Return the header lines that refuse a message unless `sequence` is the last one."""
        return frames.fence(self.stream, sequence, None if self.exclusive else self._filter)

    def subjects_of(self, changes: Sequence[Change]) -> set[str]:
        return {self.subjects[operation] for operation in operations_of(changes)}

    def subject_of(self, change: Change) -> str:
        return frames.subject_of(change, self.subjects)

    def some_subject(self, operation: str) -> str:
        """Return a subject that the stream takes, for a message that is not stored."""
        return self.subjects.watcher.subjects.subject("", "", operation)

    def begin(self, exchange: Exchange[Any]) -> Conversation:
        """Begin to speak to the stream. Raises SinkUnavailable (nothing was sent), StreamUnsuitable."""
        self._sizes.check_subject()
        return self._connection.begin(exchange)

    async def send(
        self, exchange: Exchange[T], build: Callable[[str], Iterable[bytes]], changes: Sequence[Change]
    ) -> T:
        """Publish the frames that `build` makes for a reply subject, and await the outcome.

        Raises SinkUnavailable (nothing was sent), NotAuthorised, StreamUnsuitable, OutcomeUnknown."""
        self._sizes.check_subject()
        seconds = ACK_SECONDS + size_of(changes) / SLOWEST_BYTES_PER_SECOND
        return await self._connection.publish(exchange, build, stream=self.stream, seconds=seconds)

    async def send_one(self, change: Change, fence: int) -> Ack:
        """Publish one change and return its acknowledgement. Raises what `send` and `read_ack` raise."""
        subject = self.subject_of(change)

        def build(reply: str) -> Iterable[bytes]:
            return (frames.single(change, subject, f"{reply}0", self.fence(fence)),)

        return read_ack(await self.send(Answer((subject,)), build, [change]))

    async def store_one(self, change: Change, fence: int) -> int:
        """Store one change after `fence` and return its sequence. Raises as `send_one`, and SeenBefore."""
        ack = await self.send_one(change, fence)
        if ack.duplicate:
            raise SeenBefore(f"the stream has seen the id before, at sequence {ack.sequence}")
        return ack.sequence


def failed(error: Exception) -> asyncio.Future[int]:
    """Return a future that has failed, and does not complain where nobody looks."""
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    future.exception()
    return future


class _Subjects(dict[str, str]):
    """The subject of each operation, made when it is first needed."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__()
        self.watcher = watcher

    def __missing__(self, operation: str) -> str:
        subject = self[operation] = self.watcher.subject(operation)
        return subject
