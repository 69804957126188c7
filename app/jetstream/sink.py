"""JetStream as the place where changes go: the adapter behind `Nats` and `EventSink`.

How a batch is published depends on what the stream and its server offer (`nats_streams.assess`):

- `atomic`: one batch, stored wholly or not at all, fenced on its first message. Needs `allow_atomic` (server 2.12). A
  few changes go one by one here too, as in `single`.
- `window`: single messages, each expecting the sequence that the one before leaves, on a stream of the watcher's own.
  The first goes alone, since under a stale fence the others would pass; the rest go at once, and one that is lost stops
  all behind it. One gap stays: a message of *somebody else* that lands among them takes the place of one of ours, and
  those behind it pass. The acknowledgements show where that may be so, and the error names the places
  (`pipeline/window_recovery.py` looks at them). Once a foreign message was seen on the stream, changes go out one by
  one.
- `single`: one by one, each fenced and awaited. Needs server 2.11 on a stream that others use too.

The message id always goes with the fence, on every server, since by it the stream's end is read back. A server of 2.11
with replicas may keep the id of a message that it refused, and answer 10158 until the duplicate window has passed: an
unknown outcome, tried again until then; it delays, and never doubles or loses. Nats-Expected-Last-Msg-Id is never sent:
a mismatch kills a stream with replicas.
"""

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import structlog

from app.domain.buckets import bucket_of
from app.domain.dead_letters import Following, name_of
from app.domain.errors import (
    Conflict,
    FieldProblem,
    Invalid,
    NotAuthorised,
    OutcomeUnknown,
    PositionUndecidable,
    SeenBefore,
    SinkUnavailable,
    StreamFull,
    StreamRefused,
    StreamUnsuitable,
    Unavailable,
)
from app.domain.events import Change
from app.domain.position import OwnMessage, Tail
from app.domain.subjects import covers, stream_name_problem
from app.domain.tokens import MessageId, parse_message_id
from app.domain.watcher import Watcher
from app.jetstream import frames
from app.jetstream.acks import Ack, BatchAnswer, WindowAnswers, overtaken, read_ack
from app.jetstream.connection import Answer, ConnectionLost, Exchange, Forbidden, NatsConnection
from app.jetstream.dead_letter_queue import JetStreamDeadLetterQueue
from app.jetstream.lookback import find, look_back
from app.jetstream.object_store import ObjectStore
from app.jetstream.sizes import Sizes
from app.jetstream.streams import (
    NAME_IN_USE,
    NOT_FOUND,
    SUBJECTS_OVERLAP,
    ApiError,
    Mode,
    Stream,
    StreamApi,
    as_switched,
    assess,
    is_exclusive,
    makes_messages,
    new_config,
    switches,
    translate,
)
from app.jetstream.trial import try_stream
from app.ports import StreamReader

ACK_SECONDS = 5.0
FEW = 16
"""So many changes go one by one also where there are atomic batches: nats-server makes and removes a file for each of
those, which takes 4 ms and more when the disk is busy, and a message of its own less than one."""
SLOWEST_BYTES_PER_SECOND = 50_000
"""An acknowledgement is waited for `ACK_SECONDS` and as long as the bytes take at this rate."""
_SEALED = "the stream {} is sealed: it takes no messages any more"

log = structlog.get_logger(__name__)


class JetStream:
    """The NATS account as a whole (`ports.Nats`). The connection is started and closed by whoever made it."""

    def __init__(self, connection: NatsConnection) -> None:
        self._connection = connection
        self._api = StreamApi(connection)
        self._may_ask = True
        self._trying = asyncio.Lock()
        """Two trials at once would count against each other's limits."""

    async def ping(self) -> None:
        await self._connection.ready()
        if not self._may_ask:
            return
        try:
            await self._api.call("INFO", seconds=1.0)
        except NotAuthorised:
            self._may_ask = False  # not every two seconds: it may publish all the same, and each watcher finds out
        except ApiError as error:
            raise SinkUnavailable(f"JetStream is not enabled for the NATS account ({error})") from error

    async def check_sink(self, watcher: Watcher) -> None:
        name, space = watcher.sink.stream, watcher.space
        problem = stream_name_problem(name)
        if problem is not None:
            raise Invalid(problems=(FieldProblem("sink.stream", problem),))
        try:
            await self._connection.ready()
            problem = Sizes(self._connection, watcher).subject_problem()
            if problem is not None:
                raise Invalid(problems=(FieldProblem("sink.subject", problem),))
            try:
                stream = await StreamApi(self._connection).look(watcher)
            except ApiError as error:
                if error.code != NOT_FOUND:
                    raise translate(error, name) from error
                others = await self._overlapping(name, space)
                if others:
                    raise Conflict(
                        f"the stream {name} does not exist and cannot be created: {others} already takes subjects of "
                        f"{space}; set sink.stream to that stream, or choose another sink.subject"
                    ) from error
                async with self._trying:
                    await self._try(watcher)
            else:
                if stream.config.get("sealed"):
                    raise StreamUnsuitable(_SEALED.format(name))
                # Whether the switch to atomic batches would work is not known without trying it.
                assess(as_switched(stream, watcher), watcher)
            if watcher.sink.oversize == "dead_letter":
                await self._check_letters(watcher)
        except StreamUnsuitable as error:
            raise Conflict(str(error)) from error
        except (SinkUnavailable, StreamRefused, NotAuthorised) as error:
            raise Unavailable(str(error)) from error

    async def _check_letters(self, watcher: Watcher) -> None:
        try:
            await self.letters(watcher).check()
        except ApiError as error:
            raise translate(error, watcher.sink.stream) from error

    async def _try(self, watcher: Watcher) -> None:
        try:
            await try_stream(self._api, watcher)
        except ApiError as error:
            raise translate(error, watcher.sink.stream) from error

    async def _overlapping(self, name: str, space: str) -> str:
        try:
            return ", ".join(other for other in await self._api.names(space) if other != name)
        except (ApiError, NotAuthorised):
            return ""  # may not list streams; creating this one will tell

    def sink(self, watcher: Watcher) -> "JetStreamSink":
        return JetStreamSink(self._connection, watcher)

    def letters(self, watcher: Watcher) -> JetStreamDeadLetterQueue:
        return JetStreamDeadLetterQueue(self._connection, watcher)

    def reader(self, watcher: Watcher) -> StreamReader:
        from app.jetstream.browser import JetStreamReader

        return JetStreamReader(self._connection, watcher)


class JetStreamSink:
    """One watcher's place on its stream (`ports.EventSink`)."""

    def __init__(self, connection: NatsConnection, watcher: Watcher) -> None:
        self._connection = connection
        self._api = StreamApi(connection)
        self._objects = ObjectStore(connection)
        self._watcher = watcher
        self._name = watcher.sink.stream
        self._space = watcher.space
        self._subjects = _Subjects(watcher)
        self._sizes = Sizes(connection, watcher)
        self._asked: int | None = None
        """The limit in bytes by which changes may have been made messages already."""
        self._exclusive = False
        self._mode: Mode = "single"
        self._replicas = watcher.sink.replicas
        self._batch_ids = (f"{secrets.token_hex(6)}-{number}" for number in count(1))

    @property
    def exclusive(self) -> bool:
        return self._exclusive

    @property
    def mode(self) -> Mode:
        return self._mode

    async def prepare(self, *, may_create: bool) -> None:
        self._sizes.check_subject()
        try:
            stream = await self._find() or await self._create(may_create=may_create)
            if stream.config.get("sealed"):
                raise StreamRefused(_SEALED.format(self._name))
            assess(as_switched(stream, self._watcher), self._watcher)
            if any(not stream.config.get(name) for name in switches(self._watcher)):
                stream = await self._switch_on(stream)
        except ApiError as error:
            raise translate(error, self._name) from error
        self._adopt(stream, assess(stream, self._watcher))
        self._asked = self._sizes.limit
        log.info(
            "stream_ready", watcher=self._watcher.name, stream=self._name, mode=self._mode, exclusive=self._exclusive
        )

    async def _find(self) -> Stream | None:
        try:
            return await self._api.look(self._watcher)
        except ApiError as error:
            if error.code == NOT_FOUND:
                return None
            raise

    async def _create(self, *, may_create: bool) -> Stream:
        if not may_create:
            raise StreamRefused(f"the stream {self._name} does not exist")
        try:
            stream = await self._api.create(new_config(self._watcher))
        except ApiError as error:
            if error.code == NAME_IN_USE:  # another instance was faster
                return await self._api.look(self._watcher)
            if error.code == SUBJECTS_OVERLAP:
                others = ", ".join(await self._api.names(self._space)) or "another stream"
                raise StreamUnsuitable(
                    f"the stream {self._name} cannot be created: {others} already takes subjects of {self._space}; "
                    "set sink.stream to that stream, or choose another sink.subject"
                ) from error
            raise
        log.info("stream_created", watcher=self._watcher.name, stream=self._name, subjects=stream.subjects)
        return stream

    async def _switch_on(self, stream: Stream) -> Stream:
        """Switch atomic batches and direct reads on, as far as account and server allow; nothing else changes."""
        for wanted in ({"allow_atomic": True, "allow_direct": True}, {"allow_atomic": True}):
            if all(stream.config.get(name) for name in wanted):
                break
            try:
                return await self._api.update({**stream.config, **wanted})
            except (ApiError, NotAuthorised, SinkUnavailable) as error:
                log.warning("stream_not_updated", stream=self._name, wanted=sorted(wanted), reason=str(error))
                if not isinstance(error, ApiError):
                    break
        return await self._api.look(self._watcher)

    def _adopt(self, stream: Stream, mode: Mode) -> None:
        self._exclusive = is_exclusive(stream, self._space)
        self._mode = mode
        self._sizes.adopt(stream)
        self._replicas = int(stream.config.get("num_replicas", 1))

    async def tail(self, since: int = 0) -> Tail:
        try:
            stream = await self._api.look(self._watcher)
            try:
                mode = assess(stream, self._watcher)
            except StreamUnsuitable as error:
                raise StreamRefused(str(error)) from error  # it was suitable; the next opening says what is wrong
            last = await self._api.last(self._name, self._space)
            own, foreign, unsearched = (
                await look_back(self._api, self._watcher, stream, last, since) if last else (None, 0, False)
            )
        except ApiError as error:
            raise translate(error, self._name) from error
        if mode == "window" and (foreign or self._mode == "single"):
            mode = "single"  # somebody else publishes here: a window is not safe any more
        self._adopt(stream, mode)
        return Tail(
            created=stream.created,
            last_sequence=int(stream.state["last_seq"]),
            space_sequence=last.sequence if last else 0,
            own=own,
            foreign=foreign,
            unsearched=unsearched,
            counts=self._exclusive and not makes_messages(stream),
            quiet=stream.quiet,
        )

    async def holds(self, message: OwnMessage) -> bool | None:
        try:
            there = await self._api.at(self._name, message.sequence)
        except ApiError as error:
            raise translate(error, self._name) from error
        if there is None:
            return None
        return there.id == str(message.id) and covers(self._space, there.subject)

    async def following(self, sequence: int) -> Following:
        try:
            stream = await self._api.look(self._watcher)
            message = await self._api.next(self._name, self._space, sequence + 1)
        except ApiError as error:
            raise translate(error, self._name) from error
        first, last = int(stream.state["first_seq"]), int(stream.state["last_seq"])
        whole, moved = first <= sequence + 1 or last <= sequence, message is not None
        if is_exclusive(stream, self._space) and last > sequence:  # so there was a message at the very next sequence
            whole, moved = message is not None and message.sequence == sequence + 1, True
        if message is None:
            return Following(stream.created, moved=moved, whole=whole)
        return Following(stream.created, message.sequence, parse_message_id(message.id), True, moved, whole)

    async def published(self, id_: MessageId) -> bool:
        try:
            return await find(self._api, self._watcher, await self._api.look(self._watcher), id_)
        except ApiError as error:
            raise translate(error, self._name) from error

    def room(self, change: Change) -> int:
        bucket, name = self._object(change)
        return self._sizes.room(change, f"Changewire-Object: {bucket}/{name}\r\n")

    def _object(self, change: Change) -> tuple[str, str]:
        """The bucket and the name under which the object store has a change's body."""
        return bucket_of(self._name), name_of(change.token)

    def too_large(self, change: Change) -> bool:
        return self._sizes.too_large(change)

    async def publish(self, changes: Sequence[Change], fence: int) -> int:
        self._sizes.refresh()
        if self._asked is not None and self._sizes.limit < self._asked and any(map(self.too_large, changes)):
            raise SinkUnavailable("the NATS server takes smaller messages than before; the changes are read again")
        if len(changes) == 1:
            return await self._publish_one(changes[0], fence)
        if not changes:
            return fence
        if self._mode == "atomic" and len(changes) > FEW:
            return await self._publish_batch(changes, fence)
        if self._mode == "window":
            return await self._publish_window(changes, fence)
        return await self._publish_each(changes, fence)

    async def publish_singly(self, change: Change, fence: int) -> int:
        ack = await self._send_one(change, fence)
        if not ack.duplicate:
            return ack.sequence
        there = await self._api.at(self._name, ack.sequence)
        if there is not None and not covers(self._space, there.subject):
            raise PositionUndecidable(
                f"the stream {self._name} has the change {name_of(change.token)} under another subject "
                f"({there.subject}), and drops it here as a duplicate; set the token, which gives the messages new "
                "ids, or use another stream"
            )
        return fence

    async def claim_check(self, change: Change, pointer: bytes) -> Change:
        bucket, name = self._object(change)
        await self._objects.store(bucket, name, change.body, replicas=self._replicas)
        headers = (*change.headers, ("Changewire-Object", f"{bucket}/{name}"))
        return replace(change, body=pointer, pointer=None, headers=headers)

    async def close(self) -> None:
        """Nothing is held: the connection belongs to the account."""

    def _fence(self, sequence: int) -> str:
        return frames.fence(self._name, sequence, None if self._exclusive else self._space)

    async def _publish_one(self, change: Change, fence: int) -> int:
        ack = await self._send_one(change, fence)
        if ack.duplicate:
            raise SeenBefore(f"the stream has seen the id before, at sequence {ack.sequence}")
        return ack.sequence

    async def _send_one(self, change: Change, fence: int) -> Ack:
        subject = self._subjects[change.operation]

        def build(reply: str) -> Iterable[bytes]:
            return (frames.single(change, subject, f"{reply}0", self._fence(fence)),)

        return read_ack(await self._converse(Answer((subject,)), build, [change]))

    async def _publish_each(self, changes: Sequence[Change], fence: int) -> int:
        for index, change in enumerate(changes):
            try:
                fence = await self._publish_one(change, fence)
            except (OutcomeUnknown, StreamFull) as error:
                error.stored, error.sequence = index, fence
                raise
            except (StreamRefused, SinkUnavailable) as error:
                if index == 0:
                    raise
                unknown = OutcomeUnknown(f"only the first {index} of {len(changes)} changes are stored: {error}")
                unknown.stored, unknown.sequence = index, fence
                raise unknown from error
        return fence

    async def _publish_batch(self, changes: Sequence[Change], fence: int) -> int:
        batch = next(self._batch_ids)

        def build(reply: str) -> Iterable[bytes]:
            return frames.atomic(changes, self._subjects, reply, batch, self._fence(fence))

        try:
            ack = read_ack(await self._converse(BatchAnswer(self._used(changes)), build, changes))
        except StreamFull as error:
            error.tried = len(changes)
            raise
        if ack.batch != batch or ack.count != len(changes):
            raise OutcomeUnknown("the server did not take the batch as one; is it older than 2.12?")
        return ack.sequence

    async def _publish_window(self, changes: Sequence[Change], fence: int) -> int:
        fence = await self._publish_one(changes[0], fence)
        rest = changes[1:]
        answers = WindowAnswers(self._used(rest), len(rest))

        def build(reply: str) -> Iterable[bytes]:
            return frames.window(rest, self._subjects, reply, self._name, fence)

        failure: Exception | None = None
        try:
            await self._converse(answers, build, rest)
        except (OutcomeUnknown, SinkUnavailable) as error:
            failure = error
        good = answers.good()
        if all(good):
            return fence + len(rest)
        unknown = self._unstored(answers.replies[good.index(False)], failure)
        unknown.doubts = tuple((fence + index + 1, rest[index].id) for index in overtaken(good))
        first_missing = good.index(False)
        unknown.stored, unknown.sequence = 1 + first_missing, fence + first_missing
        raise unknown

    def _unstored(self, reply: bytes | None, failure: Exception | None) -> OutcomeUnknown:
        """Return what the first reply of a window that is not good means, or that there is none."""
        try:
            if reply is not None:
                return SeenBefore(f"the stream has seen an id before, at sequence {read_ack(reply).sequence}")
        except OutcomeUnknown as error:
            return error
        except StreamRefused as error:
            failure = error
        unknown = OutcomeUnknown(f"only a part of the changes is stored: {failure or 'some are not acknowledged'}")
        unknown.__cause__ = failure
        return unknown

    def _used(self, changes: Sequence[Change]) -> set[str]:
        return {self._subjects[operation] for operation in {change.operation for change in changes}}

    async def _converse(self, exchange: Exchange[Any], build: Any, changes: Sequence[Change]) -> Any:
        """Publish and await the outcome. Raises SinkUnavailable, NotAuthorised, StreamUnsuitable, OutcomeUnknown."""
        self._sizes.check_subject()
        size = sum(len(change.body) + len(change.id) for change in changes)
        seconds = ACK_SECONDS + size / SLOWEST_BYTES_PER_SECOND
        try:
            return await self._connection.converse(exchange, build, seconds=seconds)
        except TimeoutError as error:
            raise OutcomeUnknown(f"the stream {self._name} did not acknowledge within {seconds:.1f} s") from error
        except ConnectionLost as error:
            raise OutcomeUnknown(str(error)) from error
        except Forbidden as error:
            raise NotAuthorised(str(error)) from error


class _Subjects(dict[str, str]):
    """The subject of each operation, made when it is first needed."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__()
        self._watcher = watcher

    def __missing__(self, operation: str) -> str:
        subject = self[operation] = self._watcher.subject(operation)
        return subject
