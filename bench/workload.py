"""What is written: orders of 1.4 kB with the types that such documents have, and the number that finds them again."""

import datetime
import re
from collections.abc import Iterator
from typing import Any

import bson
from pymongo.collection import Collection

BYTES = 1400
"""The size of a document as BSON; its change event is some 250 bytes larger."""
CHUNK = 1000

_PLACED = datetime.datetime(2024, 5, 17, 8, 30, 15, 250_000, tzinfo=datetime.UTC)
_NUMBER = re.compile(rb'"number":\s*(\d+)')
_WORDS = "left with the neighbour on the second floor, who is in after six; ring twice – “Müller & Söhne”. "


def order(number: int) -> dict[str, Any]:
    """One document of BYTES bytes."""
    document: dict[str, Any] = {
        "_id": bson.ObjectId(),
        "number": number,
        "placedAt": _PLACED + datetime.timedelta(seconds=number),
        "status": "new",
        "customer": {
            "id": bson.Int64(7_000_000_000 + number),
            "name": "Ada Lovelace",
            "email": f"ada{number}@example.org",
            "address": {"street": "12 St James's Square", "city": "London", "postcode": "SW1Y 4JH", "country": "GB"},
        },
        "items": [
            {
                "sku": f"SKU-{number % 997:04}-{line}",
                "title": "kettle, brushed steel",
                "quantity": line + 1,
                "price": 34.5,
            }
            for line in range(4)
        ],
        "total": 345.0 + number % 100 / 8,
        "paid": True,
        "coupon": None,
        "tags": ["web", "gift", "express"],
        "note": "",
    }
    missing = BYTES - len(bson.encode(document))
    text = (_WORDS * 12).encode()[:missing].decode(errors="ignore")
    document["note"] = text + "." * (missing - len(text.encode()))
    return document


def write(collection: Collection[dict[str, Any]], numbers: range) -> None:
    """Insert the orders of these numbers, a thousand at a time; returns when the last is acknowledged."""
    for start in range(numbers.start, numbers.stop, CHUNK):
        collection.insert_many([order(number) for number in range(start, min(start + CHUNK, numbers.stop))])


def numbers_of(bodies: Iterator[bytes]) -> Iterator[int]:
    """The order's number in each message's body: -1 where there is none."""
    for body in bodies:
        found = _NUMBER.search(body)
        yield int(found.group(1)) if found else -1
