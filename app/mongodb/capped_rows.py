"""The rows of a capped collection as of a cluster time, at which MongoDB does not read one.

It is read as it is now, with `majority`. Then its own change stream, from that cluster time on, says which documents
have changed since. A document that has not is now what it was then. One that was inserted since, or deleted, has no row
then: the change says it all. Where one was updated since, nobody can tell what it was: the rows end before it, and the
next read begins there, as of a later time. So what is returned is exactly what a read as of that time would return, or
the first part of it.

    the mark's time ............ the read .......... its operationTime
    |--- changes of this time are looked through ------------------|

MongoDB reports no change where a capped collection drops its oldest documents. Such a document has no row either.
"""

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from bson.timestamp import Timestamp

from app.domain.errors import MomentGone
from app.domain.raw_bson import elements, key_of
from app.domain.snapshot import Part
from app.domain.tokens import ClusterTime, cluster_time
from app.mongodb import stream
from app.mongodb.cursor import ChangeStreamCursor

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorClient

SECONDS: Final = 2.0
"""How long changes are looked through for one read."""
BATCH: Final = 1000
WAIT_MS: Final = 100


async def changed_since(
    client: "AsyncIOMotorClient[Mapping[str, Any]]", part: Part, at: ClusterTime, until: Timestamp
) -> dict[bytes, str]:
    """Return the keys of the documents that have changed after `at`, up to `until`, each with the operation of its
    first change.

    Raises MomentGone where the changes do not come in time, or the collection ended meanwhile; what pymongo raises."""
    database, _, collection = part.namespace.partition(".")
    first: dict[bytes, str] = {}
    start = stream.at(ClusterTime(at.seconds, at.increment + 1))
    stages = [{"$changeStream": start}, {"$project": {"operationType": 1, "documentKey": 1}}]
    cursor = ChangeStreamCursor(client, stream.Target(database, collection))
    ends = time.monotonic() + SECONDS
    try:
        batch = await cursor.open(stages, size=BATCH)
        while True:
            for event in batch.events:
                key, operation = _key_and_operation(event)
                first.setdefault(key, operation)
            if not cursor.is_open or b"" in first:
                raise MomentGone(f"{part.namespace} was dropped or renamed while it was read")
            if len(batch.events) < BATCH and cluster_time(batch.token) >= ClusterTime(until.time, until.inc):
                return first  # a batch that is not full ends where there is no more
            if time.monotonic() > ends:
                raise MomentGone(f"{part.namespace} is capped, and has too many changes since that time")
            batch = await cursor.get_more(size=BATCH, wait_ms=WAIT_MS)
    finally:
        await cursor.close()


def as_of_then(keys: Sequence[bytes], changed: Mapping[bytes, str]) -> tuple[list[int], bool]:
    """Return which of the documents that were read are what they were then, and whether all of them could be told: else
    those from the next one on have to be read as of a later time."""
    kept = []
    for index, key in enumerate(keys):
        match changed.get(key):
            case None:
                kept.append(index)
            case "insert" | "delete":
                pass
            case _:
                return kept, False
    return kept, True


def _key_and_operation(event: bytes) -> tuple[bytes, str]:
    """Read a change: the key of its document, empty where it is none of a document."""
    key, operation = b"", ""
    for name, _, value, end in elements(event):
        if name == b"documentKey":
            key = key_of(event[value:end])
        elif name == b"operationType":
            operation = event[value + 4 : end - 1].decode()
    return key, operation
