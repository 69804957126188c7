"""The NATS account as a whole (`ports.Nats`): who gets which sink, the probe, and the checks of a new watcher.

The checks change nothing. A stream that is there is looked at (`streams.assess`); one that is missing is tried under
another name (`trial.py`), since the server alone knows what it would refuse.
"""

import asyncio

from app.domain.errors import (
    Conflict,
    FieldProblem,
    Invalid,
    NotAuthorised,
    SinkUnavailable,
    StreamRefused,
    StreamUnsuitable,
    Unavailable,
)
from app.domain.subjects import stream_name_problem
from app.domain.watcher import Watcher
from app.jetstream.connection import NatsConnection
from app.jetstream.dead_letter_queue import JetStreamDeadLetterQueue
from app.jetstream.errors import ApiError, no_jetstream, refusals
from app.jetstream.provisioning import SEALED, SUBJECTS_TAKEN, Refusals
from app.jetstream.sink import JetStreamSink
from app.jetstream.sizes import Sizes
from app.jetstream.stream_api import StreamApi, unless_missing
from app.jetstream.streams import Stream, as_switched, assess
from app.jetstream.trial import try_stream
from app.ports import StreamReader

MOST_PAGES = 4
"""Pages of streams' names, of a thousand each, that are read to suggest some."""


class JetStream:
    """One account. The connection is started and closed by its owner."""

    def __init__(self, connection: NatsConnection, header_bytes: int = 0) -> None:
        """`header_bytes` are those of headers that each change gets just before it is published by a sink."""
        self._connection = connection
        self._header_bytes = header_bytes
        self._may_ask = True
        self._switching = Refusals()
        self._trying = asyncio.Lock()
        """Two trials at once would count against each other's limits."""

    async def ping(self) -> None:
        await self._connection.ready()
        if not self._may_ask:
            return
        try:
            await StreamApi(self._connection).call("INFO", seconds=1.0)
        except NotAuthorised:
            self._may_ask = False  # not every two seconds: it may publish all the same, and each watcher finds out
        except ApiError as error:
            raise no_jetstream(error) from error

    async def check_sink(self, watcher: Watcher) -> None:
        name = watcher.sink.stream
        problem = stream_name_problem(name)
        if problem is not None:
            raise Invalid(problems=(FieldProblem("sink.stream", problem),))
        try:
            await self._connection.ready()
            problem = Sizes(self._connection, watcher).subject_problem()
            if problem is not None:
                raise Invalid(problems=(FieldProblem("sink.subject", problem),))
            with refusals(name):
                await self._check_stream(watcher)
                if watcher.sink.oversize == "dead_letter":
                    await self.letters(watcher).check()
        except StreamUnsuitable as error:
            raise _conflict(str(error)) from error
        except (SinkUnavailable, StreamRefused, NotAuthorised) as error:
            raise Unavailable(str(error)) from error

    async def _check_stream(self, watcher: Watcher) -> None:
        """Raises Conflict, Invalid, StreamUnsuitable, SinkUnavailable, NotAuthorised, ApiError."""
        api = StreamApi(self._connection)
        stream = await unless_missing(api.look(watcher))
        if stream is not None:
            _check_existing(stream, watcher)
            return
        name, others = watcher.sink.stream, await _overlapping(api, watcher)
        if others:
            raise _conflict(f"the stream {name} does not exist and {SUBJECTS_TAKEN.format(others, watcher.space)}")
        async with self._trying:
            await try_stream(api, watcher)

    async def stream_names(self) -> tuple[list[str], bool]:
        await self._connection.ready()
        try:
            return await StreamApi(self._connection).all_names(MOST_PAGES)
        except ApiError as error:
            raise no_jetstream(error) from error

    def sink(self, watcher: Watcher) -> JetStreamSink:
        return JetStreamSink(self._connection, watcher, self._switching, self._header_bytes)

    def letters(self, watcher: Watcher) -> JetStreamDeadLetterQueue:
        return JetStreamDeadLetterQueue(self._connection, watcher)

    def reader(self, watcher: Watcher) -> StreamReader:
        from app.jetstream.browser import JetStreamReader

        return JetStreamReader(self._connection, watcher)


def _conflict(message: str) -> Conflict:
    return Conflict(message, (FieldProblem("sink.stream", f"cannot be used: {message}"),))


def _check_existing(stream: Stream, watcher: Watcher) -> None:
    """Raise StreamUnsuitable where the stream cannot carry the watcher.

    Whether what makes it faster can be switched on is not known without trying it."""
    if stream.config.get("sealed"):
        raise StreamUnsuitable(SEALED.format(stream.name))
    assess(as_switched(stream, watcher), watcher)


async def _overlapping(api: StreamApi, watcher: Watcher) -> str:
    """Return which other streams take subjects of the watcher; none where the account may not list streams."""
    try:
        return ", ".join(other for other in await api.names(watcher.space) if other != watcher.sink.stream)
    except (ApiError, NotAuthorised):
        return ""  # creating the stream will tell
