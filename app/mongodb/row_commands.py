"""The commands that read a snapshot's rows, and what their replies hold. Pure: nothing here sends one.

A read goes on after a key of any type. A `$gt` in a query sees only values of its operand's type; `$expr` compares as
the index does, types and collation included, and has bounds in an index on `_id`. A clustered collection has no such
index, so there `min` says where to begin. An ordinary index takes no `min`, which leaves out the greatest key of all,
MaxKey.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from bson.binary import Binary
from bson.raw_bson import RawBSONDocument
from bson.timestamp import Timestamp

from app.domain.errors import SourceRefused
from app.domain.raw_bson import document_of, elements, key_of, keys_of
from app.domain.raw_events import RawEvents
from app.domain.snapshot import Part
from app.domain.tokens import ClusterTime
from app.mongodb.stream import COMMENT, parse_pipeline

READ_MS: Final = 10_000
"""How long the server may work on one read."""
_SHARED: Final[dict[str, Any]] = {"hint": {"_id": 1}, "maxTimeMS": READ_MS, "comment": COMMENT}
_ALIKE: Final = frozenset({0x02, 0x05, 0x07, 0x09, 0x10, 0x12})
"""Types of keys between two of which every key has the same type: strings, binaries, ObjectIds, dates, integers. Not
floating-point numbers: NaN is less than every other one, and a query does not compare it."""


def find_rows(
    part: Part, *, after: bytes | None, until: bytes | None, limit: int, filter_: str | None
) -> dict[str, Any]:
    """Build the read of documents as they are. `limit` bounds a read without an upper end; one that has it is a cursor,
    whose reply says whether it is all."""
    found = [*_bounds(part, after, until), *_filter(filter_)]
    command: dict[str, Any] = {"find": _name(part), "filter": {"$and": found} if found else {}, "sort": {"_id": 1}}
    if until is None and filter_ is None:
        command |= {"limit": limit, "batchSize": limit, "singleBatch": True}
    else:
        command["batchSize"] = limit + 1  # a reply that is all of it ends the cursor
    if after is not None and until is None and part.clustered:
        command["min"] = RawBSONDocument(after)
    return command | _SHARED


def piped_rows(
    part: Part, at: ClusterTime, pipeline: Sequence[Mapping[str, Any]], *, after: bytes | None, until: bytes | None,
    limit: int, filter_: str | None,
) -> dict[str, Any]:  # fmt: skip
    """Build the read of what a watcher's pipeline makes of documents. Its reply says whether it is all."""
    found = _bounds(part, after, until)
    stages: list[Mapping[str, Any]] = [{"$match": {"$and": found}}] if found else []
    stages += [{"$sort": {"_id": 1}}, *({"$match": each} for each in _filter(filter_))]
    stages += [{"$replaceWith": _insert(part, at)}, *parse_pipeline(pipeline)]
    return {"aggregate": _name(part), "pipeline": stages, "cursor": {"batchSize": limit + 1}} | _SHARED


def find_boundary(part: Part, after: bytes | None, count: int) -> dict[str, Any]:
    """Build the look for the key that lies `count` documents after a key."""
    return find_rows(part, after=after, until=None, limit=1, filter_=None) | {"skip": count, "projection": {"_id": 1}}


def keys_in(documents: Sequence[bytes], *, whole: bool) -> list[bytes]:
    """Return the key of each document, or of each event that came out of a pipeline. Raises SourceRefused."""
    try:
        if whole and isinstance(documents, RawEvents):
            return keys_of(documents)
        return list(map(key_of if whole else _key_in_id, documents))
    except ValueError as error:
        raise SourceRefused(f"what MongoDB has sent cannot be read as documents: {error}") from error


def of_uuid(part: Part) -> dict[str, Any]:
    """What makes a read fail where the collection has another name by now (MongoDB 6.0 and later)."""
    return {} if part.uuid is None else {"collectionUUID": Binary(bytes.fromhex(part.uuid), 4)}


def _name(part: Part) -> str:
    return part.namespace.partition(".")[2]


def _bounds(part: Part, after: bytes | None, until: bytes | None) -> list[Mapping[str, Any]]:
    """Match what comes after a key, and up to another one."""
    bounds: list[Mapping[str, Any]] = []
    if after is not None:
        bounds.append({"$expr": {"$gt": ["$_id", _renamed(after, b"$literal")]}})
    if until is not None:
        bounds.append({"$expr": {"$lte": ["$_id", _renamed(until, b"$literal")]}})
    if part.clustered and after is not None and until is not None and after[4] == until[4] and after[4] in _ALIKE:
        both = document_of(_element(after, b"$gte"), _element(until, b"$lte"))
        bounds.append({"_id": RawBSONDocument(both)})  # the bounds that a clustered collection has
    return bounds


def _renamed(key: bytes, name: bytes) -> RawBSONDocument:
    """Return a document that has a key's value under another name: as bytes, which takes every type as it is."""
    return RawBSONDocument(document_of(_element(key, name)))


def _element(key: bytes, name: bytes) -> bytes:
    return key[4:5] + name + key[8:-1]  # after `_id` comes the NUL that ends a name


def _filter(text: str | None) -> list[Mapping[str, Any]]:
    return list(parse_pipeline([json.loads(text)])) if text else []


def _insert(part: Part, at: ClusterTime) -> dict[str, Any]:
    """What a pipeline sees of a document: an insert of it. Its `_id` is the key, which no pipeline may touch."""
    database, _, collection = part.namespace.partition(".")
    return {
        "_id": {"_id": "$_id"},
        "operationType": "insert",
        "clusterTime": {"$literal": Timestamp(at.seconds, at.increment)},
        "ns": {"$literal": {"db": database, "coll": collection}},
        "documentKey": {"_id": "$_id"},
        "fullDocument": "$$ROOT",
    }


def _key_in_id(event: bytes) -> bytes:
    """Return the key of what came out of the pipeline."""
    for name, _, value, end in elements(event):
        if name == b"_id":
            return event[value:end]
    raise ValueError("the pipeline removes _id")
