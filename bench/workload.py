"""What is written: orders with the types that such documents have, and the number by which each is found again.

A workload says how many collections, how large the documents, and how they are written: inserted, updated, or some of
them in transactions. Every change has a number of its own, which the check of the streams looks for (`check.py`).
"""

import datetime
import re
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import bson
from bson.raw_bson import RawBSONDocument
from pymongo import InsertOne, UpdateOne
from pymongo.collection import Collection

Orders = Collection[dict[str, Any]]

BYTES = 1400
"""The size of a document as BSON; its change event is some 250 bytes larger."""
CHUNK = 1000
LEAST_EVENTS = 1000
MANY = 50
UPDATED = 1000
"""How many documents the updates go round."""
ALTERNATELY, IN_TRANSACTIONS, TRANSACTION = 100, 60, 10
"""Of every hundred changes of a mix, sixty are made in transactions of ten."""

_PLACED = datetime.datetime(2024, 5, 17, 8, 30, 15, 250_000, tzinfo=datetime.UTC)
_WORDS = "left with the neighbour on the second floor, who is in after six; ring twice – “Müller & Söhne”. "
_JSON = re.compile(rb'"number\\?":\s*(\d+)')
_JSON_UPDATE = re.compile(rb'"updatedFields":\s*\{\s*"number":\s*(\d+)')
_BSON = re.compile(rb"\x10number\x00(.{4})", re.DOTALL)
_BSON_UPDATE = re.compile(rb"\x03updatedFields\x00.{4}\x10number\x00(.{4})", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Workload:
    """One way to write. `name` is what `--workloads` calls it."""

    name: str
    title: str
    size: int = BYTES
    collections: int = 1
    kind: Literal["insert", "update", "mix"] = "insert"

    def share(self, events: int) -> int:
        """How many events are enough, of `events` that the headline has: more of small documents, fewer of large ones,
        and fewer over many collections, since mongod reads the whole oplog for each of them."""
        if self.collections >= MANY:
            return max(LEAST_EVENTS, events // 8)
        if self.size < BYTES:
            return events * 3 // 2
        return events if self.size == BYTES else min(events, max(LEAST_EVENTS, events // 4))


HEADLINE = Workload("inserts", f"inserts of {BYTES:,} bytes")
SMALL = Workload("small", "inserts of 300 bytes", size=300)
LARGE = Workload("large", "inserts of 16,000 bytes", size=16_000)
SIZES = (SMALL, HEADLINE, LARGE)
"""What is drained in comparison, and what the floors are measured with."""
WORKLOADS = (
    Workload("updates", f"updates, the document of {BYTES:,} bytes looked up", kind="update"),
    Workload("transactions", f"inserts, {IN_TRANSACTIONS} % in transactions of {TRANSACTION}", kind="mix"),
    Workload("collections-10", "inserts over 10 collections and streams", collections=10),
    Workload("collections-100", "inserts over 100 collections and streams", collections=100),
)
"""What is measured beside the sizes."""


def order(number: int, size: int = BYTES) -> dict[str, Any]:
    """One document of `size` bytes, 300 at least."""
    document: dict[str, Any] = {
        "_id": bson.ObjectId(),
        "number": number,
        "placedAt": _PLACED + datetime.timedelta(seconds=abs(number) % 1_000_000),
        "status": "new",
        "customer": {"id": bson.Int64(7_000_000_000 + number), "name": "Ada Lovelace"},
        "total": 345.0 + number % 100 / 8,
        "paid": True,
        "coupon": None,
        "tags": ["web", "gift", "express"],
        "note": "",
    }
    if size >= BYTES:
        document["customer"] |= {
            "email": f"ada{number}@example.org",
            "address": {"street": "12 St James's Square", "city": "London", "postcode": "SW1Y 4JH", "country": "GB"},
        }
        document["items"] = [
            {
                "sku": f"SKU-{number % 997:04}-{line}",
                "title": "kettle, brushed steel",
                "quantity": line + 1,
                "price": 34.5,
            }
            for line in range(size // 350)
        ]
    missing = size - len(bson.encode(document))
    text = (_WORDS * (1 + missing // len(_WORDS))).encode()[:missing].decode(errors="ignore")
    document["note"] = text + "." * (missing - len(text.encode()))
    return document


@cache
def _template(size: int) -> tuple[bytes, int, int]:
    document = order(0, size)
    data = bson.encode(document)
    return data, data.index(document["_id"].binary), data.index(b"\x10number\x00") + len(b"\x10number\x00")


def orders(numbers: Iterable[int], size: int = BYTES) -> list[RawBSONDocument]:
    """Such documents ready made, of which only `_id` and `number` differ: they are written faster than built."""
    data, id_at, number_at = _template(size)
    made = []
    for number in numbers:
        one = bytearray(data)
        one[id_at : id_at + 12] = bson.ObjectId().binary
        one[number_at : number_at + 4] = number.to_bytes(4, "little", signed=True)
        made.append(RawBSONDocument(bytes(one)))
    return made


def write_before(workload: Workload, collections: Sequence[Orders]) -> None:
    """Write what has to be there before anybody watches: what the updates update."""
    if workload.kind == "update":
        for collection in collections:
            documents = [order(-1, workload.size) | {"_id": number} for number in range(UPDATED)]
            collection.insert_many(documents)


def write(workload: Workload, collections: Sequence[Orders], numbers: range) -> None:
    """Make the changes of these numbers, in turns over the collections; returns when the last is acknowledged."""
    several = len(collections)
    turn = CHUNK if several == 1 else max(1, min(CHUNK, len(numbers) // several // 10))
    for start in range(numbers.start, numbers.stop, turn * several):
        share = range(start, min(start + turn * several, numbers.stop))
        for index, collection in enumerate(collections):
            _WRITERS[workload.kind](collection, share[index::several], workload.size)


def _insert(collection: Orders, numbers: range, size: int) -> None:
    if numbers:
        collection.bulk_write([InsertOne(each) for each in orders(numbers, size)])  # type: ignore[arg-type]


def _update(collection: Orders, numbers: range, _: int) -> None:
    if numbers:
        collection.bulk_write([UpdateOne({"_id": each % UPDATED}, {"$set": {"number": each}}) for each in numbers])


def _mix(collection: Orders, numbers: range, size: int) -> None:
    with collection.database.client.start_session() as session:
        for start in range(0, len(numbers), ALTERNATELY):
            part = numbers[start : start + ALTERNATELY]
            _insert(collection, part[: ALTERNATELY - IN_TRANSACTIONS], size)
            for first in range(ALTERNATELY - IN_TRANSACTIONS, len(part), TRANSACTION):
                documents = orders(part[first : first + TRANSACTION], size)
                with session.start_transaction():
                    collection.insert_many(documents, session=session)


_WRITERS = {"insert": _insert, "update": _update, "mix": _mix}


def number_of(body: bytes) -> int:
    """The number of the change that a message tells of, in JSON or BSON: -1 where there is none."""
    if b"\x00" in body[:4]:  # the size of a BSON document; JSON has no NUL
        found = _BSON_UPDATE.search(body) or _BSON.search(body)
        return int(struct.unpack("<i", found[1])[0]) if found else -1
    found = _JSON_UPDATE.search(body) or _JSON.search(body)
    return int(found[1]) if found else -1


def numbers_of(bodies: Iterable[bytes]) -> Iterator[int]:
    """The same for each of them."""
    return map(number_of, bodies)
