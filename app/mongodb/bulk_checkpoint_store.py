"""One watcher's position among those of all watchers, in the state database.

What reads and what is written often goes out together with the other watchers' (`checkpoint_bulk.py`). A deliberate
move and a deletion are commands of their own.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

from app.domain.errors import Invalid, StoreUnavailable
from app.domain.position import Checkpoint, OwnMessage
from app.domain.watcher import Watcher
from app.mongodb.checkpoint_bulk import CheckpointBulk, Kind, Write
from app.mongodb.checkpoint_document import as_checkpoint, as_fields
from app.mongodb.durable import SECONDS
from app.mongodb.errors import translated
from app.mongodb.owned import is_of_namespace, position_named, scope_of
from app.mongodb.writes import to_its_end


class BulkCheckpointStore:
    """`CheckpointStore`: the document with the watcher's name as its `_id`."""

    def __init__(self, bulk: CheckpointBulk, watcher: Watcher) -> None:
        self._bulk = bulk
        self._name = watcher.name
        self._namespace = watcher.source.namespace
        self._mine = {**position_named(watcher.name), "scope": {"$in": [None, scope_of(self._namespace)]}}

    async def check(self) -> None:
        found = await self._bulk.problem()
        if found is not None:
            raise Invalid(problems=(found,))

    async def read(self) -> Checkpoint | None:
        document, home = await self._bulk.read(self._name)
        if document is None or not is_of_namespace(document, self._namespace):
            return None
        return as_checkpoint(document, home)

    async def create(self, checkpoint: Checkpoint) -> bool:
        return await self._bulk.write(self._write("create", checkpoint))

    async def advance(self, checkpoint: Checkpoint) -> bool:
        return await self._bulk.write(self._write("advance", checkpoint))

    async def keep_unsettled(self, unsettled: tuple[OwnMessage, ...], epoch: int) -> None:
        await self._note({"doubt": [{"sequence": one.sequence, "id": str(one.id)} for one in unsettled]}, epoch)

    async def uncount(self, epoch: int) -> None:
        await self._note({"counted": False}, epoch)

    @to_its_end
    async def begin(self, checkpoint: Checkpoint) -> bool:
        epoch = checkpoint.epoch or 0
        for _ in range(3):
            with self._guarded("storing the checkpoint"):
                home = await self._bulk.home()
                changed = {**self._write("advance", checkpoint).document(home, None), "doubt": None}
                earlier = {"$and": [self._mine, {"epoch": {"$lt": epoch}}]}
                if (await self._bulk.collection.update_one(earlier, {"$set": changed})).matched_count:
                    return True
                if await self._bulk.collection.find_one(self._mine, {"_id": 1}) is not None:
                    return False
            if await self._bulk.write(self._write("create", checkpoint)):
                return True
        raise StoreUnavailable(f"the checkpoint of {self._name} comes and goes: something else deletes it")

    @to_its_end
    async def delete(self) -> None:
        with self._guarded("deleting the checkpoint"):
            await self._bulk.collection.delete_one(self._mine)

    async def _note(self, fields: Mapping[str, Any], epoch: int) -> None:
        await self._bulk.write(Write("note", self._name, self._namespace, fields, epoch=epoch))

    def _write(self, kind: Kind, checkpoint: Checkpoint) -> Write:
        fields = as_fields(checkpoint) | {"registry": self._bulk.database.name}
        return Write(kind, self._name, self._namespace, fields, epoch=checkpoint.epoch or 0, native=checkpoint.native)

    def _guarded(self, doing: str) -> contextlib.AbstractContextManager[None]:
        return translated(doing, grant=self._bulk.grant, kind=StoreUnavailable, seconds=SECONDS)
