"""One watcher's place on its stream: the adapter behind `ports.EventSink`.

It finds the stream and reads its end. Batches are published by one of the modes in `publish/`; each look at the stream
chooses the mode again. Whether an unknown outcome is read back is decided by `pipeline/publisher.py`; when to try
again, by `control/watcher_task.py`.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import structlog

from app.domain.buckets import bucket_of
from app.domain.dead_letters import Following, name_of
from app.domain.errors import PositionUndecidable, SinkUnavailable, StreamRefused, StreamUnsuitable
from app.domain.events import Change
from app.domain.position import OwnMessage, Tail
from app.domain.subjects import covers
from app.domain.tokens import MessageId, parse_message_id
from app.domain.watcher import Watcher
from app.jetstream.advice import Slower, why_slower
from app.jetstream.connection import NatsConnection
from app.jetstream.errors import refusals
from app.jetstream.lookback import find, last_of_each, look_back
from app.jetstream.object_store import ObjectStore
from app.jetstream.provisioning import Refusals, provide
from app.jetstream.publish.modes import Pipelined, publish_modes
from app.jetstream.publish.sender import Sender, failed
from app.jetstream.sizes import Sizes
from app.jetstream.stream_api import StreamApi
from app.jetstream.streams import Message, Mode, Stream, assess, is_exclusive, makes_messages

log = structlog.get_logger(__name__)


class JetStreamSink:
    """One watcher's place on its stream."""

    def __init__(
        self, connection: NatsConnection, watcher: Watcher, switching: Refusals, header_bytes: int = 0
    ) -> None:
        """`header_bytes` are those of headers that each change gets just before it is published here."""
        self._api = StreamApi(connection)
        self._objects = ObjectStore(connection)
        self._watcher = watcher
        self._name = watcher.sink.stream
        self._filter = watcher.space
        self._sizes = Sizes(connection, watcher, header_bytes)
        self._asked: int | None = None
        """The limit in bytes by which changes may have been made messages already."""
        self._sender = Sender(connection, watcher, self._sizes)
        self._modes = publish_modes(self._sender)
        self._switching = switching
        self._mode: Mode = "single"
        self._slower: Slower | None = None
        self._alone = True
        """Whether no message of somebody else was seen since the stream was prepared."""
        self._keeps = False
        """Whether messages stay when they are consumed, so that the place of one can be looked at."""
        self._replicas = watcher.sink.replicas
        self._prepared: Stream | None = None
        """The stream as `prepare` has found it, for the first look at its end: nothing was asked in between."""

    @property
    def exclusive(self) -> bool:
        return self._sender.exclusive

    @property
    def mode(self) -> Mode:
        return self._mode

    @property
    def slower(self) -> str | None:
        return None if self._slower is None else str(self._slower)

    @property
    def pipelined(self) -> bool:
        return self._pipeline is not None

    @property
    def _pipeline(self) -> Pipelined | None:
        """The mode, where several sends may be under way."""
        if self._mode == "atomic" and not (self.exclusive and self._alone and self._keeps):
            return None
        return self._modes.pipelined.get(self._mode)

    # The stream.

    async def prepare(self, *, may_create: bool) -> None:
        self._sizes.check_subject()
        with refusals(self._name):
            stream = await provide(self._api, self._watcher, self._switching, may_create=may_create)
        self._alone = True
        self._adopt(stream, assess(stream, self._watcher, self._sizes.max_subject))
        self._asked = self._sizes.limit
        self._prepared = stream

    def _adopt(self, stream: Stream, mode: Mode) -> None:
        self._mode = mode
        self._slower = why_slower(stream, self._watcher, mode, refused=self._switching.reason(stream))
        self._sender.exclusive = is_exclusive(stream, self._filter)
        self._sizes.adopt(stream)
        self._keeps = stream.config.get("retention", "limits") == "limits"
        self._replicas = stream.replicas

    async def tail(self, since: int = 0) -> Tail:
        known, self._prepared = self._prepared, None
        with refusals(self._name):
            stream = known or await self._api.look(self._watcher)
            try:
                mode = assess(stream, self._watcher, self._sizes.max_subject)
            except StreamUnsuitable as error:
                raise StreamRefused(str(error)) from error  # it was suitable; the next opening says what is wrong
            # Of an empty stream there is nothing to ask. One that is filled meanwhile has left the fence behind.
            last = await self._api.last(self._name, self._filter) if stream.state["messages"] else None
            own, foreign, unsearched = (
                await look_back(self._api, self._watcher, stream, last, since) if last else (None, 0, False)
            )
        if mode == "window" and (foreign or self._mode == "single"):
            mode = "single"  # somebody else publishes here: a window is not safe any more
        self._alone = self._alone and not foreign
        self._adopt(stream, mode)
        return Tail(
            created=stream.created,
            last_sequence=int(stream.state["last_seq"]),
            space_sequence=last.sequence if last else 0,
            own=own,
            foreign=foreign,
            unsearched=unsearched,
            counts=self.exclusive and not makes_messages(stream),
            quiet=stream.quiet,
        )

    async def holds(self, message: OwnMessage) -> bool | None:
        with refusals(self._name):
            there = await self._api.at(self._name, message.sequence)
        if there is None:
            return None
        return there.id == str(message.id) and covers(self._filter, there.subject)

    async def following(self, sequence: int) -> Following:
        with refusals(self._name):
            stream = await self._api.look(self._watcher)
            message = await self._api.next(self._name, self._filter, sequence + 1)
        return what_follows(stream, message, sequence, exclusive=is_exclusive(stream, self._filter))

    async def last_of_each(self, namespaces: Collection[str], since: int = 0) -> Mapping[str, OwnMessage]:
        with refusals(self._name):
            stream = await self._api.look(self._watcher)
            return await last_of_each(self._api, self._watcher, stream, namespaces, since)

    async def published(self, id_: MessageId) -> bool:
        with refusals(self._name):
            return await find(self._api, self._watcher, await self._api.look(self._watcher), id_)

    # Publishing.

    async def publish(self, changes: Sequence[Change], fence: int) -> int:
        self._check_sizes(changes)
        return await self._modes.all[self._mode].publish(changes, fence) if changes else fence

    def send(self, changes: Sequence[Change], fence: int, *, more: bool) -> asyncio.Future[int]:
        pipeline = self._pipeline
        assert pipeline is not None, "only where `pipelined` says so"
        try:
            self._check_sizes(changes)
        except SinkUnavailable as error:
            return failed(error)
        return pipeline.send(changes, fence, more=more)

    async def ready(self, changes: Sequence[Change]) -> None:
        if self._pipeline is not None:
            await self._pipeline.ready(changes)

    def settle(self) -> None:
        if self._pipeline is not None:
            self._pipeline.settle()

    def _check_sizes(self, changes: Sequence[Change]) -> None:
        """Raise SinkUnavailable where the server takes less than it did when the changes were encoded."""
        self._sizes.refresh()
        if self._asked is not None and self._sizes.limit < self._asked and any(map(self.too_large, changes)):
            raise SinkUnavailable("the NATS server takes smaller messages than before; the changes are read again")

    async def publish_singly(self, change: Change, fence: int) -> int:
        ack = await self._sender.send_one(change, fence)
        if not ack.duplicate:
            return ack.sequence
        there = await self._api.at(self._name, ack.sequence)
        if there is not None and not covers(self._filter, there.subject):
            raise PositionUndecidable(
                f"the stream {self._name} has the change {name_of(change.token)} under another subject "
                f"({there.subject}), and drops it here as a duplicate; rewind the watcher, which gives the messages "
                "new ids, or use another stream"
            )
        return fence

    async def close(self) -> None:
        """Give up what is under way. The connection belongs to the account."""
        for mode in self._modes.pipelined.values():
            await mode.close()

    # Changes that are too large.

    @property
    def surely_fits(self) -> tuple[int, int]:
        return self._sizes.surely

    def too_large(self, change: Change) -> bool:
        return self._sizes.too_large(change)

    def unusable(self, change: Change) -> str | None:
        return self._sizes.unusable(change)

    def room(self, change: Change) -> int:
        bucket, name = self._object(change)
        return self._sizes.room(change, f"Changewire-Object: {bucket}/{name}\r\n")

    async def claim_check(self, change: Change, pointer: bytes) -> Change:
        bucket, name = self._object(change)
        await self._objects.store(bucket, name, change.body, replicas=self._replicas)
        headers = (*change.headers, ("Changewire-Object", f"{bucket}/{name}"))
        return replace(change, body=pointer, pointer=None, headers=headers)

    def _object(self, change: Change) -> tuple[str, str]:
        """The bucket and the name under which the object store has a change's body."""
        return bucket_of(self._name), name_of(change.token)


def what_follows(stream: Stream, message: Message | None, sequence: int, *, exclusive: bool) -> Following:
    """Return what comes after a sequence, `message` being the first of the watcher's subjects after it."""
    first, last = int(stream.state["first_seq"]), int(stream.state["last_seq"])
    whole, moved = first <= sequence + 1 or last <= sequence, message is not None
    if exclusive and last > sequence:  # so there was a message at the very next sequence
        whole, moved = message is not None and message.sequence == sequence + 1, True
    if message is None:
        return Following(stream.created, moved=moved, whole=whole)
    return Following(stream.created, message.sequence, parse_message_id(message.id), True, moved, whole)
