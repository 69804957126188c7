"""A snapshot's documents as events: raw BSON in the shape of a change event, so that rows are made messages as events
are, by the same code.

    {"_id": {"_data": <the row's place>}, "operationType": "snapshot", "clusterTime", "ns": {"db", "coll"},
     "documentKey": {"_id"}, "fullDocument"}
"""

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Final, NamedTuple

from app.domain.raw_bson import document_of, elements
from app.domain.raw_events import RawEvents
from app.domain.snapshot import DONE, OPERATION
from app.domain.tokens import ClusterTime

_INT32: Final = Struct("<i")


class RowHead(NamedTuple):
    """What the rows of a chunk have in common: how their places begin (`RowPlace.before`), the cluster time that they
    were read as of, and database and collection. `names` is None where a pipeline has made events of the documents."""

    before: str
    at: ClusterTime
    names: tuple[str, str] | None


def of_rows(documents: Sequence[bytes], keys: Sequence[bytes], head: RowHead) -> RawEvents:
    """Return the rows of what was read: `documents` and their keys."""
    places = [f"{head.before}{row:06}" for row in range(len(keys))]
    if head.names is None:
        return of_events(documents, places)
    return of_documents(documents, keys, places, head.at, *head.names)


def of_documents(
    documents: Sequence[bytes],
    keys: Sequence[bytes],
    places: Sequence[str],
    at: ClusterTime,
    database: str,
    collection: str,
) -> RawEvents:
    """Return the rows of documents of one collection, which were read as of `at`. `places` are theirs."""
    between = b"".join(
        (
            _text("operationType", OPERATION),
            _time(at),
            _document("ns", document_of(_text("db", database), _text("coll", collection))),
        )
    )
    return _joined(
        document_of(
            _document("_id", document_of(_text("_data", place))), between, _document("documentKey", key),
            _document("fullDocument", document),
        )
        for document, key, place in zip(documents, keys, places, strict=True)
    )  # fmt: skip


def of_events(events: Sequence[bytes], places: Sequence[str]) -> RawEvents:
    """Return the rows of what a pipeline made of inserts."""
    operation = _text("operationType", OPERATION)

    def row(event: bytes, place: str) -> bytes:
        parts = [_document("_id", document_of(_text("_data", place))), operation]
        parts += [event[begin:end] for name, begin, _, end in elements(event) if name not in (b"_id", b"operationType")]
        return document_of(*parts)

    return _joined(map(row, events, places))


def of_done(place: str, at: ClusterTime, run: str, documents: int, collections: Sequence[str]) -> RawEvents:
    """Return the event that a run is complete."""
    counts = document_of(
        _text("run", run),
        b"\x12documents\0" + documents.to_bytes(8, "little"),
        _document(
            "collections", document_of(*(_text(str(index), name) for index, name in enumerate(collections))), kind=4
        ),
    )
    return _joined(
        [
            document_of(
                _document("_id", document_of(_text("_data", place))), _text("operationType", DONE), _time(at),
                _document("snapshot", counts),
            )
        ]
    )  # fmt: skip


def _joined(events: Iterable[bytes]) -> RawEvents:
    whole = list(events)
    starts, ends, at = [], [], 0
    for event in whole:
        starts.append(at)
        at += len(event)
        ends.append(at)
    return RawEvents(b"".join(whole), starts, ends)


def _text(name: str, value: str) -> bytes:
    encoded = value.encode()
    return b"\x02" + name.encode() + b"\0" + _INT32.pack(len(encoded) + 1) + encoded + b"\0"


def _time(at: ClusterTime) -> bytes:
    return b"\x11clusterTime\0" + at.increment.to_bytes(4, "little") + at.seconds.to_bytes(4, "little")


def _document(name: str, value: bytes, kind: int = 3) -> bytes:
    return bytes((kind,)) + name.encode() + b"\0" + value
