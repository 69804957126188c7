"""Whether MongoDB's history has an event: the look that proves a position.

MongoDB takes a resume token of another deployment without an error, as long as no later event shows that it is missing.
So the history is read from the token's cluster time on, tokens only, until the token comes or a later one does. What
follows from the answer is decided in `domain/evidence.py`.
"""

from typing import Any, Final

from bson.raw_bson import RawBSONDocument

from app.domain.tokens import same_event
from app.domain.watcher import Source
from app.mongodb.cursor import ChangeStreamCursor, CursorBatch
from app.mongodb.reach import Reach
from app.mongodb.stream import MONGODB_6_0, Target, at_time_of

AT_ONCE: Final = 1_000
"""Tokens in one reply. All changes of a transaction have one cluster time, so there may be many to look through."""
WAIT_MS: Final = 1_000


async def has_event(reach: Reach, source: Source, token: str, *, wire_version: int) -> bool | None:
    """Look for a token's event; None where the history has not come to its time yet. Raises what pymongo raises.

    Reads without the watcher's pipeline, which may drop the event by now, and without documents: tokens do not depend
    on options (tried over all of them), and an event of more than 16 MB is no obstacle so.
    """
    target = Target(source.database, source.collection)
    options: dict[str, Any] = {"showExpandedEvents": True} if wire_version >= MONGODB_6_0 else {}
    stages = [target.change_stream(at_time_of(token), **options), {"$project": {"_id": 1}}]
    cursor = ChangeStreamCursor(reach.client_for(source.namespace), target)
    try:
        batch = await cursor.open(stages, size=1)  # one comes at once, also where the next is far off in the oplog
        while True:
            seen = _tokens(batch)
            if any(same_event(token, one) for one in seen):
                return True
            if batch.token > token:
                return False
            if not cursor.is_open or not seen:
                return None
            batch = await cursor.get_more(size=AT_ONCE, wait_ms=WAIT_MS)
    finally:
        await cursor.close()


def _tokens(batch: CursorBatch) -> list[str]:
    return [str(RawBSONDocument(event)["_id"]["_data"]) for event in batch.events]
