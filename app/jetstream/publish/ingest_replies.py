"""What a server says about a fast-ingest batch, as values (ADR-50 of NATS, its second half).

A reply comes to the subject of the message that caused it, which ends in `<flow>.fail.<number>.<operation>.$FI`.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from app.domain.errors import ChangewireError, OutcomeUnknown
from app.jetstream.errors import unstored
from app.jetstream.exchange import NO_RESPONDERS
from app.jetstream.publish.acks import NOBODY


@dataclass(frozen=True, slots=True)
class FlowAck:
    """All messages up to `number` are stored, or were known as duplicates; the next one comes `flow` messages later."""

    number: int
    flow: int


@dataclass(frozen=True, slots=True)
class Ended:
    """The batch has ended: the stream's last sequence of it, and how many messages the server counts as taken. A server
    that takes the messages one by one says nothing of a `batch`."""

    batch: str | None
    sequence: int
    count: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Trouble:
    """A message was not stored, and none after it will be. What is stored before it is said by `Ended`, which follows
    unless the trouble is `final`: then nothing of the batch is stored where `number` is 1, and else it is not known."""

    error: ChangewireError
    number: int
    final: bool


@dataclass(frozen=True, slots=True)
class Place:
    """The stream has the message of this number at this sequence; 0 where the duplicate window does not know it."""

    number: int
    sequence: int


Reply = FlowAck | Ended | Trouble | Place


def read_reply(rest: bytes, data: bytes, headers: bytes | None) -> Reply | None:
    """Read a reply; `rest` is what follows the batch's id in its subject. None for one that says nothing."""
    parts = rest.split(b".")
    if len(parts) == _PARTS + 1:
        return _read_place(parts[0], data)
    number = int(parts[2]) if len(parts) == _PARTS and parts[2].isdigit() else 0
    if (headers is not None and headers.startswith(NO_RESPONDERS)) or not data:
        return Trouble(OutcomeUnknown(NOBODY), number, final=True)
    try:
        answer: dict[str, Any] = orjson.loads(data)
        kind = answer.get("type")
        if kind == "ack":
            return FlowAck(int(answer["seq"]), int(answer["msgs"]))
        if kind == "gap":
            return Trouble(OutcomeUnknown("a message of the batch was lost on its way"), number, final=False)
        if kind == "err":
            return Trouble(unstored(answer["error"]), int(answer["seq"]), final=False)
        if "error" in answer:
            code = int(answer["error"].get("err_code", 0))
            return Trouble(unstored(answer["error"]), number, final=number == 1 or code == _UNKNOWN_BATCH)
        count, duplicate = int(answer.get("count", 1)), bool(answer.get("duplicate"))
        return Ended(answer.get("batch"), int(answer["seq"]), count, duplicate)
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        return Trouble(OutcomeUnknown("the stream's acknowledgement cannot be read"), number, final=True)


_UNKNOWN_BATCH = 10208
_PARTS = 5
"""Flow, gap mode, number, operation, `$FI`."""


def _read_place(name: bytes, data: bytes) -> Place | None:
    """Read the answer to `frames.where_is`; `name` ends in a dash and the number. A flow acknowledgement comes as well,
    as for every batch."""
    if data.startswith(b'{"type"'):
        return None
    number = int(name.rpartition(b"-")[2])
    try:
        answer = orjson.loads(data)
        return Place(number, int(answer["seq"]) if answer.get("duplicate") else 0)
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        return Place(number, 0)
