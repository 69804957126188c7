"""Whether MongoDB's history has an event: the look that proves a position.

MongoDB takes a resume token of another deployment without an error, as long as no later event shows that it is missing.
So the history is read from the token's cluster time on, tokens only, until the token comes or is passed. Not its
business: what follows from that (`domain/evidence.py`).
"""

import contextlib
from typing import TYPE_CHECKING, Any, Final

import pymongo
from bson.int64 import Int64
from bson.timestamp import Timestamp
from pymongo.errors import PyMongoError

from app.domain.tokens import cluster_time, same_event
from app.domain.watcher import Source
from app.mongodb.trial import RAW, Pin, Reach, pinned

if TYPE_CHECKING:
    from collections.abc import Mapping

AT_ONCE: Final = 1_000
"""Tokens in one reply. All changes of a transaction have one cluster time, so there may be many to look through."""
WAIT_MS: Final = 1_000
CLOSE_SECONDS: Final = 2.0
_EXPANDED_WIRE_VERSION: Final = 17  # MongoDB 6.0


def start_of(token: str) -> dict[str, Any]:
    """Return the option of a change stream that begins with a token's event."""
    moment = cluster_time(token)
    return {"startAtOperationTime": Timestamp(moment.seconds, moment.increment)}


async def has_event(reach: Reach, source: Source, token: str, *, wire_version: int) -> bool | None:
    """Look for a token's event; None where the history has not come to its time yet. Raises what pymongo raises.

    Without the watcher's pipeline, which may drop the event by now, and without documents: tokens do not depend on
    options (tried over all of them), and an event of more than 16 MB can be passed so.
    """
    stage = start_of(token)
    if wire_version >= _EXPANDED_WIRE_VERSION:
        stage["showExpandedEvents"] = True
    opening: dict[str, Any] = {
        "aggregate": source.collection,
        "pipeline": [{"$changeStream": stage}, {"$project": {"_id": 1}}],
        "cursor": {"batchSize": 1},  # so that it comes at once, also where the next one is far off in the oplog
    }
    client = reach.patient() if source.namespace in reach.slow else reach.client
    database = client[source.database]
    before, cursor = pinned.set(Pin()), 0
    try:
        async with await client.start_session(causal_consistency=False) as session:
            try:
                reply = (await database.command(opening, codec_options=RAW, session=session))["cursor"]
                seen = _tokens(reply["firstBatch"])
                while True:
                    cursor = int(reply["id"])
                    if any(same_event(token, one) for one in seen):
                        return True
                    if str(reply["postBatchResumeToken"]["_data"]) > token:
                        return False
                    if not cursor or not seen:
                        return None
                    more = {"getMore": Int64(cursor), "collection": source.collection, "batchSize": AT_ONCE}
                    reply = (
                        await database.command({**more, "maxTimeMS": WAIT_MS}, codec_options=RAW, session=session)
                    )["cursor"]
                    seen = _tokens(reply["nextBatch"])
            finally:
                if cursor:
                    with contextlib.suppress(PyMongoError), pymongo.timeout(CLOSE_SECONDS):
                        await database.command({"killCursors": source.collection, "cursors": [Int64(cursor)]})
    finally:
        pinned.reset(before)


def _tokens(batch: "list[Mapping[str, Any]]") -> list[str]:
    return [str(event["_id"]["_data"]) for event in batch]
