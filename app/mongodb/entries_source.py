"""The change stream of several entries of `connector.yaml`: one stream over their database, or the deployment.

The server chooses: of each collection it sends only what is not published yet. MongoDB compares the tokens of events as
text, as Changewire does. Where all entries are at one position, nothing is left out.
"""

from collections.abc import Collection
from typing import Any, Final

from app.domain.watcher import Watcher
from app.mongodb.change_source import BATCH_SIZE, MongoChangeSource
from app.mongodb.reach import Reach
from app.mongodb.trial import StreamTrial

WHY_OWN: Final = "it reads several entries of connector.yaml"


class EntriesSource(MongoChangeSource):
    """`ChangeSource` of a watcher with entries."""

    def __init__(self, watcher: Watcher, reach: Reach, *, batch_size: int = BATCH_SIZE) -> None:
        super().__init__(watcher, reach, batch_size=batch_size, why_own=WHY_OWN)
        self._entries = watcher.entries

    async def prepare(self, *, may_create: bool = True) -> int:
        if may_create:
            for entry in self._entries:
                if entry.source.pre_and_post_images:
                    await StreamTrial(entry, self._reach).prepare()
        return await super().prepare(may_create=may_create)

    def pass_over(self, ahead: Collection[tuple[str, str]]) -> None:
        self._trial.request.first = ({"$match": _not_yet(ahead)},) if ahead else ()


def _not_yet(ahead: Collection[tuple[str, str]]) -> dict[str, Any]:
    """Return what matches all events but those of each of these collections up to its token."""
    published = []
    for namespace, token in ahead:
        database, _, collection = namespace.partition(".")
        published.append({"ns.db": database, "ns.coll": collection, "_id._data": {"$lte": token}})
    # The first condition is the only one that later events cost.
    return {"$or": [{"_id._data": {"$gt": max(token for _, token in ahead)}}, {"$nor": published}]}
