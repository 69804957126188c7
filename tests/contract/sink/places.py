"""Where a sink can publish to in the contract suite: the real adapter in each of its modes, and the fake.

To plug another implementation in, write a `Place` and add it to `PLACES` of `conftest.py`.
"""

from base64 import b64decode
from typing import Protocol

from app.devservers.servers import NatsServer
from app.domain.events import Change
from app.domain.tokens import MessageId
from app.domain.watcher import Watcher
from app.jetstream.account import JetStream
from app.jetstream.client import NatsOptions
from app.jetstream.connection import NatsConnection
from app.jetstream.stream_api import StreamApi, headers_of
from app.ports import EventSink
from tests.fakes import FakeSink, FakeStream, PipelinedMode, event_token
from tests.fakes.nats_server import MemoryNats

Stored = tuple[str, str, bytes]
"""Subject, message id and body."""

USERS = """
authorization { users: [
  {user: admin, password: secret},
  {user: limited, password: secret, permissions: {publish: {deny: ["$JS.API.STREAM.UPDATE.>"]}}}
] }
"""


class Place(Protocol):
    """A stream under test. `begin` makes it as the mode needs it; what is foreign does not come from a sink."""

    async def begin(self, stream: str) -> None: ...
    def sink(self, watcher: Watcher) -> EventSink: ...
    async def messages(self) -> list[Stored]: ...
    async def foreign(self, subject: str) -> None: ...
    async def purge(self) -> None: ...
    async def delete(self) -> None: ...
    async def limit(self, messages: int) -> None: ...
    async def objects(self) -> int: ...
    async def close(self) -> None: ...


class RealPlace:
    """A stream on a real server.

    A window and single messages are what is left where the account may not switch atomic batches on; the latter where
    the stream has other subjects too.
    """

    def __init__(self, server: NatsServer, mode: str) -> None:
        url = server.url
        self._admin = NatsConnection(NatsOptions((url,), user="admin", password="secret"))
        self._service = NatsConnection(NatsOptions((url,), user="limited", password="secret"))
        self._api = StreamApi(self._admin)
        self._mode = mode
        self._name = ""

    async def begin(self, stream: str) -> None:
        self._name = stream
        for connection in (self._admin, self._service):
            connection.start()
            await connection.ready(5)
        if self._mode != "created":
            subjects = [f"{stream}.*"] + (
                [f"other.{stream}"] if self._mode.startswith("shared") or self._mode == "single" else []
            )
            config = {"name": stream, "subjects": subjects, "storage": "file", "num_replicas": 1}
            atomic, batched = self._mode in ("atomic", "shared-atomic"), self._mode == "fast_ingest"
            await self._api.create({**config, "allow_atomic": atomic, "allow_batched": batched})

    def sink(self, watcher: Watcher) -> EventSink:
        return JetStream(self._service).sink(watcher)

    async def messages(self) -> list[Stored]:
        found = []
        last = (await self._api.info(self._name)).state["last_seq"]
        for sequence in range(1, last + 1):
            message = await self._api.message(self._name, {"seq": sequence})
            if message is not None:
                id_ = headers_of(message).get("Nats-Msg-Id", "")
                found.append((message["subject"], id_, b64decode(message.get("data", ""))))
        return found

    async def foreign(self, subject: str) -> None:
        assert await self._admin.request(subject, b"foreign")

    async def purge(self) -> None:
        await self._api.call(f"STREAM.PURGE.{self._name}")

    async def delete(self) -> None:
        await self._api.call(f"STREAM.DELETE.{self._name}")

    async def limit(self, messages: int) -> None:
        config = (await self._api.info(self._name)).config
        await self._api.update({**config, "discard": "new", "max_msgs": messages})

    async def objects(self) -> int:
        names = (await self._api.call("STREAM.NAMES"))["streams"]
        counts = [(await self._api.info(n)).state["num_subjects"] for n in names if n.startswith("OBJ_S__")]
        return sum(count - 1 for count in counts)  # a chunk's subject and a meta subject for each

    async def close(self) -> None:
        for name in (await self._api.call("STREAM.NAMES")).get("streams") or ():
            await self._api.call(f"STREAM.DELETE.{name}")
        await self._service.close()
        await self._admin.close()


class ScriptedPlace:
    """The real adapter, on a server in memory."""

    def __init__(self) -> None:
        self.server = MemoryNats()
        self._name = ""

    async def begin(self, stream: str) -> None:
        self._name = stream
        self.server.connect()

    def sink(self, watcher: Watcher) -> EventSink:
        return JetStream(self.server.connection).sink(watcher)

    async def messages(self) -> list[Stored]:
        return [(one.subject, one.id, one.body) for one in self.server.streams[self._name].messages]

    async def foreign(self, subject: str) -> None:
        self.server.streams[self._name].store(subject, b"", b"foreign")

    async def purge(self) -> None:
        self.server.streams[self._name].messages.clear()

    async def delete(self) -> None:
        del self.server.streams[self._name]

    async def limit(self, messages: int) -> None:
        self.server.streams[self._name].config |= {"discard": "new", "max_msgs": messages}

    async def objects(self) -> int:
        return 0

    async def close(self) -> None:
        return


class FakePlace:
    """The fake of `tests/fakes/`."""

    def __init__(self, mode: PipelinedMode) -> None:
        self._mode: PipelinedMode = mode
        self._stream = FakeStream()

    async def begin(self, stream: str) -> None:
        self._stream = FakeStream(name=stream, subjects=[f"{stream}.*"], exists=False, mode=self._mode)

    def sink(self, watcher: Watcher) -> EventSink:
        return FakeSink(self._stream, watcher)

    async def messages(self) -> list[Stored]:
        return [(m.subject, m.change.id, m.change.body) for m in self._stream.messages]

    async def foreign(self, subject: str) -> None:
        change = Change("", "insert", b"foreign", 0.0, "")
        self._stream.store([(subject, change)], self._stream.last_sequence, subject)
        self._stream.ids.discard("")

    async def purge(self) -> None:
        self._stream.purge()

    async def delete(self) -> None:
        self._stream.exists, self._stream.last_sequence = False, 0
        self._stream.messages.clear()
        self._stream.ids.clear()

    async def limit(self, messages: int) -> None:
        self._stream.max_messages = messages

    async def objects(self) -> int:
        return len(self._stream.objects)

    async def close(self) -> None:
        return


def change(moment: int, operation: str = "insert", epoch: int = 0, *, collection: str = "orders") -> Change:
    token = event_token(moment)
    body = b'{"n":%d,"ns":{"db":"shop","coll":"%s"}}' % (moment, collection.encode())
    return Change(token, operation, body, 0.0, str(MessageId(token, epoch)))


def stored(*changes: Change, stream: str) -> list[Stored]:
    return [(f"{stream}.{one.operation}", one.id, one.body) for one in changes]


async def fence(sink: EventSink) -> int:
    return (await sink.tail()).fence(exclusive=sink.exclusive)
