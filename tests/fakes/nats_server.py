"""A nats-server in memory that takes the bytes a `NatsConnection` writes, keeps streams, and misbehaves on request.

It answers as ADR-50 of NATS and nats-server 2.15 do: single messages, fast-ingest batches, and the requests on streams
that a sink makes. Everything above the socket is the project's own. What goes wrong is scripted: `deeds` is a queue,
one taken for each published message; `flows` one for each acknowledgement of a flow window.
"""

import asyncio
import re
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import orjson

from app.domain.subjects import covers
from app.jetstream.client import NatsOptions, OneConnection
from app.jetstream.connection import NatsConnection
from app.jetstream.errors import ConnectionLost
from app.jetstream.exchange import NO_RESPONDERS
from app.jetstream.frames import read_headers

IngestDeed = Literal[
    "ok", "lose", "twice", "mute", "hold", "foreign", "rival", "purge", "forget", "forget_ids", "cut", "late", "full"
]  # fmt: skip
"""What befalls a published message. `lose`: it never arrives. `twice`: it arrives twice. `mute`: what it makes the
server say is lost. `hold`: the same, but it comes after what is said next. `foreign`, `rival`: another message, or
another writer's with this very change, comes first. `purge`, `forget`, `forget_ids`: the stream is purged first, the
server forgets its batches, or its duplicate window. `cut`, `late`: the connection is lost, and this and all that is
written after it is, too; or it arrives with a later request. `full`: there is no room for it."""

WRONG_SEQUENCE = (400, 10071, "wrong last sequence: {}")
UNKNOWN_BATCH = (400, 10208, "batch publish ID unknown")
DISABLED = (400, 10205, "batch publish is disabled")
FULL = (503, 10077, "maximum messages exceeded")
_COMMANDS = re.compile(rb"(HPUB|PUB) (\S+) (?:(\S+) )?(?:(\d+) )?(\d+)\r\n")


@dataclass
class Batch:
    """A fast-ingest batch: the last number taken, the last sequence stored, and the acknowledgement of flow windows."""

    most: int
    flow: int
    number: int = 0
    sequence: int = 0
    told: int = 0


@dataclass
class Kept:
    sequence: int
    subject: str
    headers: bytes
    body: bytes
    id: str
    rival: bool = False
    """Whether another writer stored it."""


@dataclass
class MemoryStream:
    config: dict[str, Any]
    created: str
    messages: list[Kept] = field(default_factory=list)
    history: list[Kept] = field(default_factory=list)
    """All that was ever stored."""
    last: int = 0
    ids: dict[str, int] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)

    def store(self, subject: str, headers: bytes, body: bytes, *, rival: bool = False) -> int:
        self.last += 1
        id_ = read_headers(headers).get("Nats-Msg-Id", "") if headers else ""
        kept = Kept(self.last, subject, headers, body, id_, rival)
        self.messages.append(kept)
        self.history.append(kept)
        if kept.id:
            self.ids[kept.id] = self.last
        return self.last

    def first(self) -> int:
        return self.messages[0].sequence if self.messages else self.last + 1

    def info(self) -> dict[str, Any]:
        state = {"first_seq": self.first(), "last_seq": self.last, "messages": len(self.messages)}
        return {"config": self.config, "state": state, "created": self.created}


class MemoryNats:
    """The server, and the one connection to it (`connection`)."""

    def __init__(self) -> None:
        self.streams: dict[str, MemoryStream] = {}
        self.deeds: deque[IngestDeed] = deque()
        self.flows: deque[int] = deque()
        self.lateness: Callable[[], bool] = lambda: True
        """Whether what is late arrives with a request."""
        self.connection = NatsConnection(NatsOptions(("nats://memory",)))
        self._client: _Client | None = None
        self._held: list[tuple[str, bytes, bytes | None]] = []
        self._late: list[tuple[bytes, bytes, bytes, bytes]] = []
        self._count = 0
        self._muted = self._holding = False

    def connect(self) -> None:
        """Make the connection, the first time or after it was cut."""
        self._count += 1
        self._client = _Client(self, f"_INBOX.{self._count}.")
        self.connection._client = cast("OneConnection", self._client)

    def _cut(self, client: "_Client") -> None:
        client.lost.set_result("cut")
        self.connection._fail_all(ConnectionLost("the connection was lost"))
        self.connect()

    # What is written.

    def take(self, client: "_Client", data: bytes) -> None:
        for subject, reply, headers, body in _read(data):
            if client is not self._client:
                if client.arrives_late:
                    self._late.append((subject, reply, headers, body))
            elif subject.startswith(b"$JS.API."):
                self._arrive_late()
                self._answer(reply.decode(), self._request(subject.decode()[8:], body))
            else:
                self._befall(client, subject, reply, headers, body)

    def _befall(self, client: "_Client", subject: bytes, reply: bytes, headers: bytes, body: bytes) -> None:
        deed = self.deeds.popleft() if self.deeds else "ok"
        stream = self._taker(subject.decode())
        if deed == "lose":
            return
        if deed in ("cut", "late"):
            client.arrives_late = deed == "late"
            if client.arrives_late:
                self._late.append((subject, reply, headers, body))
            self._client = None
            asyncio.get_running_loop().call_soon(self._cut, client)
            return
        if stream is not None:
            if deed == "foreign":
                stream.store(subject.decode(), b"", b"foreign")
            elif deed == "rival":
                told = read_headers(headers) if body else {}
                id_, turn = told.get("Nats-Msg-Id"), told.get("Nats-Expected-Last-Sequence") == str(stream.last)
                behind = not stream.history or stream.history[-1].id  # a rival publishes in order, too
                if turn and behind and id_ not in stream.ids:
                    stream.store(subject.decode(), f"NATS/1.0\r\nNats-Msg-Id: {id_}\r\n\r\n".encode(), body, rival=True)
            elif deed == "purge":
                stream.messages.clear()
            elif deed == "forget":
                stream.batches.clear()
            elif deed == "forget_ids":
                stream.ids.clear()
        self._muted, self._holding = deed == "mute", deed == "hold"
        for _ in range(2 if deed == "twice" else 1):
            self._publish(subject.decode(), reply.decode(), headers, body, full=deed == "full")
        self._muted = self._holding = False

    def _arrive_late(self) -> None:
        if not self.lateness():
            return
        late, self._late = self._late, []
        self._muted = True
        for subject, reply, headers, body in late:
            self._publish(subject.decode(), reply.decode(), headers, body)
        self._muted = False

    def _answer(self, reply: str, document: dict[str, Any] | None) -> None:
        said = (reply, orjson.dumps(document) if document is not None else b"", None if document else NO_RESPONDERS)
        if self._muted:
            return
        if self._holding:
            self._held.append(said)
            return
        held, self._held = self._held, []
        for one in (said, *held):
            asyncio.get_running_loop().call_soon(self._say, *one)

    def _say(self, reply: str, data: bytes, headers: bytes | None) -> None:
        client = self._client
        if client is not None and reply.startswith(client.inbox):
            self.connection._dispatch(reply[len(client.inbox) :].encode(), data, headers)

    # Publishing.

    def _taker(self, subject: str) -> MemoryStream | None:
        streams = self.streams.values()
        return next((one for one in streams if any(covers(s, subject) for s in one.config["subjects"])), None)

    def _publish(self, subject: str, reply: str, headers: bytes, body: bytes, *, full: bool = False) -> None:
        stream = self._taker(subject)
        if stream is None:
            self._answer(reply, None)
        elif reply.endswith(".$FI"):
            self._ingest(stream, subject, reply, headers, body, full=full)
        else:
            self._single(stream, subject, reply, headers, body, full=full)

    def _single(
        self, stream: MemoryStream, subject: str, reply: str, headers: bytes, body: bytes, *, full: bool
    ) -> None:
        said: dict[str, Any] = {"stream": stream.config["name"], "seq": 0}
        told = read_headers(headers) if headers else {}
        expected = int(told.get("Nats-Expected-Last-Sequence", stream.last))
        if expected != stream.last:
            said["error"] = _error(WRONG_SEQUENCE, stream.last)
        elif told.get("Nats-Msg-Id") in stream.ids:
            said |= {"seq": stream.ids[told["Nats-Msg-Id"]], "duplicate": True}
        elif full or _is_full(stream):
            said["error"] = _error(FULL)
        else:
            said["seq"] = stream.store(subject, headers, body)
        self._answer(reply, said)

    def _ingest(
        self, stream: MemoryStream, subject: str, reply: str, headers: bytes, body: bytes, *, full: bool
    ) -> None:
        """As processJetStreamFastBatchMsg of nats-server does on a stream of one replica, with the gap mode `fail`."""
        name, flow, _, number, operation = reply.split(".")[-6:-1]
        refusal: dict[str, Any] = {"stream": stream.config["name"], "seq": 0}
        if not stream.config.get("allow_batched"):
            self._answer(reply, refusal | {"error": _error(DISABLED)})
            return
        batch = stream.batches.get(name)
        if batch is None:
            if int(number) != 1:
                self._answer(reply, refusal | {"error": _error(UNKNOWN_BATCH)})
                return
            granted = min(500, int(flow)) if not stream.batches else 1
            batch = stream.batches[name] = Batch(int(flow), granted)
        if int(number) != batch.number + 1:
            if int(number) > batch.number + 1:
                self._answer(reply, {"type": "gap", "last_seq": batch.number + 1, "seq": int(number)})
            self._end(stream, name, reply)
            return
        if operation == "3":
            self._end(stream, name, reply)
            return
        if int(number) == 1 and operation == "0":
            self._answer(reply, {"type": "ack", "seq": 0, "msgs": batch.flow})
        told = read_headers(headers)
        error = None
        duplicate = told.get("Nats-Msg-Id") in stream.ids
        if not duplicate:
            if int(told["Nats-Expected-Last-Sequence"]) != stream.last:
                error = _error(WRONG_SEQUENCE, stream.last)
            elif full or _is_full(stream):
                error = _error(FULL)
        if error is not None and batch.number == 0:
            del stream.batches[name]
            self._answer(reply, refusal | {"error": error})
        elif error is not None:
            self._answer(reply, {"type": "err", "seq": int(number), "error": error})
            self._end(stream, name, reply)
        else:
            batch.number += 1
            if not duplicate:
                batch.sequence = stream.store(subject, headers, body)
            self._acknowledge(batch, reply)
            if operation != "2":
                return
            if duplicate and batch.number == 1:
                del stream.batches[name]
                seen = stream.ids[told["Nats-Msg-Id"]]
                self._answer(reply, refusal | {"seq": seen, "duplicate": True, "batch": name, "count": 1})
            else:
                self._end(stream, name, reply)

    def _acknowledge(self, batch: Batch, reply: str) -> None:
        if batch.number < batch.told + batch.flow:
            return
        batch.told += (batch.number - batch.told) // batch.flow * batch.flow
        batch.flow = min(batch.most, max(1, self.flows.popleft())) if self.flows else batch.flow
        self._answer(reply, {"type": "ack", "seq": batch.told, "msgs": batch.flow})

    def _end(self, stream: MemoryStream, name: str, reply: str) -> None:
        batch = stream.batches.pop(name)
        ack = {"stream": stream.config["name"], "seq": batch.sequence, "batch": name, "count": batch.number}
        self._answer(reply, ack)

    # Requests.

    def _request(self, endpoint: str, body: bytes) -> dict[str, Any]:
        asked = orjson.loads(body) if body else {}
        verb, _, name = endpoint.rpartition(".")
        stream = self.streams.get(name)
        if endpoint == "STREAM.NAMES":
            return {"streams": list(self.streams)}
        if verb == "STREAM.CREATE" and stream is None:
            self._count += 1
            stream = self.streams[name] = MemoryStream(_as_created(asked), f"2026-01-01T00:00:{self._count:02}Z")
        if stream is None:
            return {"error": {"code": 404, "err_code": 10059, "description": "stream not found"}}
        if verb == "STREAM.UPDATE":
            stream.config = _as_created(asked)
        elif verb == "STREAM.DELETE":
            del self.streams[name]
        elif verb == "STREAM.PURGE":
            stream.messages.clear()
        elif verb == "STREAM.MSG.GET":
            return _found(stream, asked)
        return stream.info()


class _Client:
    """What a `NatsConnection` uses of nats-py's client while it lives."""

    def __init__(self, server: MemoryNats, inbox: str) -> None:
        self.inbox = inbox
        self.info = {"version": "2.15.1"}
        self.lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.arrives_late = False
        self._server = server

    def send(self, data: bytes) -> None:
        self._server.take(self, data)


def _read(data: bytes) -> Iterator[tuple[bytes, bytes, bytes, bytes]]:
    """Subject, reply, headers and body of each message in whole commands."""
    place = 0
    while place < len(data):
        found = _COMMANDS.match(data, place)
        assert found is not None, data[place : place + 100]
        verb, subject, reply, cut, size = found.groups()
        begin, split = found.end(), int(cut or 0) if verb == b"HPUB" else 0
        end = begin + int(size)
        assert data[end : end + 2] == b"\r\n"
        yield subject, reply or b"", data[begin : begin + split], data[begin + split : end]
        place = end + 2


def _error(error: tuple[int, int, str], *values: object) -> dict[str, Any]:
    return {"code": error[0], "err_code": error[1], "description": error[2].format(*values)}


def _is_full(stream: MemoryStream) -> bool:
    most = int(stream.config.get("max_msgs", -1))
    return stream.config.get("discard") == "new" and 0 < most <= len(stream.messages)


def _as_created(config: dict[str, Any]) -> dict[str, Any]:
    return {"num_replicas": 1, "retention": "limits", "metadata": {"_nats.ver": "2.15.1"}, **config}


def _found(stream: MemoryStream, asked: dict[str, Any]) -> dict[str, Any]:
    there = stream.messages
    if "last_by_subj" in asked:
        there = [one for one in there if covers(asked["last_by_subj"], one.subject)][-1:]
    elif "next_by_subj" in asked:
        there = [one for one in there if one.sequence >= asked["seq"] and covers(asked["next_by_subj"], one.subject)]
    else:
        there = [one for one in there if one.sequence == asked["seq"]]
    if not there:
        return {"error": {"code": 404, "err_code": 10037, "description": "no message found"}}
    one = there[0]
    document = {"subject": one.subject, "seq": one.sequence, "data": b64encode(one.body).decode()}
    if one.headers:
        document["hdrs"] = b64encode(one.headers).decode()
    return {"message": document}
