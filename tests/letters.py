"""Changes that cannot be published, and what the dead-letter stream holds of them."""

import struct
from base64 import b64decode
from dataclasses import dataclass
from typing import Any

import bson
from bson.binary import Binary
from bson.raw_bson import RawBSONDocument

from tests.live import Live, Streams

_WHOLE = struct.pack("<i", 8) + b"\x02" + struct.pack("<i", 4) + b"spoi"
_SPOILT = struct.pack("<i", 8) + b"\x02" + struct.pack("<i", 99) + b"spoi"


def spoilt(document: dict[str, Any]) -> RawBSONDocument:
    """The document with a field that MongoDB stores and pymongo cannot read: a binary whose inner length is wrong."""
    raw = bson.encode({**document, "spoilt": Binary(b"spoi", 2)})
    assert raw.count(_WHOLE) == 1
    return RawBSONDocument(raw.replace(_WHOLE, _SPOILT))


def spoilt_event(raw: bytes) -> bytes:
    """An event with such a field in its document."""
    event = bson.decode(raw)
    return bson.encode(event | {"fullDocument": spoilt(event["fullDocument"])})


@dataclass(frozen=True)
class Stored:
    """A message of the dead-letter stream."""

    sequence: int
    subject: str
    headers: dict[str, str]
    body: bytes

    @property
    def key(self) -> Any:
        return bson.decode(RawBSONDocument(self.body)["documentKey"].raw)["_id"]


async def stored(streams: Streams, stream: str, kind: str = "event") -> list[Stored]:
    """All letters (or receipts, `replay`) in a stream's dead-letter stream; none where there is no such stream."""
    name, found, sequence = f"{stream}-DLQ", [], 0
    while True:
        wanted = {"seq": sequence + 1, "next_by_subj": f"{name}.*.*.{kind}"}
        message = (await streams.api(f"STREAM.MSG.GET.{name}", wanted)).get("message")
        if message is None:
            return found
        sequence = message["seq"]
        _, *lines = b64decode(message.get("hdrs", "")).decode().strip().split("\r\n")
        headers = {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
        found.append(Stored(sequence, message["subject"], headers, b64decode(message.get("data", ""))))


async def letters(live: Live) -> list[Stored]:
    return await stored(live.streams, live.stream)


def spoil(live: Live, *keys: int | str) -> None:
    """Insert documents that cannot be read."""
    for key in keys:
        live.mongo[live.database].command({"insert": live.collection, "documents": [spoilt({"_id": key})]})
