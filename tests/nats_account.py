"""A NATS account to look behind: what a stream holds, how it is set, and the protocol in small to write to it."""

import asyncio
from collections.abc import Sequence
from typing import Any

from app.domain.errors import OutcomeUnknown, SinkUnavailable
from app.domain.events import Change
from app.domain.watcher import Watcher, from_document
from app.jetstream.account import JetStream
from app.jetstream.client import NatsOptions
from app.jetstream.connection import NatsConnection
from app.jetstream.sink import JetStreamSink
from app.jetstream.stream_api import StreamApi
from tests.fakes import event_token


class Account:
    """A connection, its account and the API, for one user."""

    def __init__(self, url: str, **options: Any) -> None:
        self.connection = NatsConnection(NatsOptions((url,), **options))
        self.account = JetStream(self.connection)
        self.api = StreamApi(self.connection)
        self.connection.start()

    async def create(self, name: str, **config: Any) -> dict[str, Any]:
        config = {"name": name, "subjects": [f"{name}.*"], "storage": "file", "num_replicas": 1, **config}
        return (await self.api.create(config)).config

    async def close(self) -> None:
        await self.connection.close()

    async def ids(self, name: str) -> list[str | None]:
        """The ids of all messages, in order; None for one without."""
        state = (await self.api.info(name)).state
        sequences = range(max(1, state["first_seq"]), state["last_seq"] + 1)
        found = [await self.api.at(name, sequence) for sequence in sequences]
        return [message.id for message in found if message is not None]


def make_watcher(stream: str, **sink: Any) -> Watcher:
    source = {"database": "shop", "collection": "orders"}
    return from_document({"name": "orders", "source": source, "sink": {"stream": stream, **sink}})


def changes(begin: int, end: int, operation: str = "insert", size: int = 10) -> list[Change]:
    tokens = [event_token(moment) for moment in range(begin, end)]
    return [Change(token, operation, b"x" * size, 0.0, token) for token in tokens]


def ids(begin: int, end: int) -> list[str]:
    """The ids of `changes(begin, end)`."""
    return [event_token(moment) for moment in range(begin, end)]


async def opened(account: Account, watcher: Watcher) -> tuple[JetStreamSink, int]:
    sink = account.account.sink(watcher)
    assert isinstance(sink, JetStreamSink)
    await sink.prepare(may_create=True)
    return sink, (await sink.tail()).fence(exclusive=sink.exclusive)


async def relay(sink: JetStreamSink, waiting: Sequence[Change], size: int = 50, left: list[int] | None = None) -> None:
    """The protocol in small, with a server that comes and goes; `left` gets how many changes are left."""
    sequence = -1
    while waiting:
        if left is not None:
            left[:] = [len(waiting)]
        try:
            if sequence < 0:
                tail = await sink.tail()
                position = tail.own.id.position if tail.own else ""
                waiting = [one for one in waiting if one.token > position]
                sequence = tail.fence(exclusive=sink.exclusive)
                continue
            sequence = await sink.publish(waiting[:size], sequence)
            waiting = waiting[size:]
        except OutcomeUnknown:
            sequence = -1
        except SinkUnavailable:
            sequence = -1
            await asyncio.sleep(0.05)
    if left is not None:
        left[:] = [0]


async def until_left(mark: int, left: list[int], *writers: asyncio.Task[None]) -> None:
    """Wait until no more than `mark` changes are left, or fail with the writer that failed."""
    while left[0] > mark:
        for writer in writers:
            if writer.done():
                writer.result()
        await asyncio.sleep(0.001)


async def up(account: Account) -> None:
    """Wait until the account's server answers."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await account.account.ping()
            except SinkUnavailable:
                await asyncio.sleep(0.05)
