"""Writers that keep a list of what they did, in the form that `changewire verify --writes` reads.

Each writer has documents of its own, so that the order of its list is each document's order. A write that ended in an
error may have happened or not: it is listed as uncertain, and its documents are not touched again. One that found no
document, since the collection was dropped or renamed meanwhile, was none.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

KEPT = 20
"""Documents of one writer that live at a time."""
TEXT_BYTES = 400
BURST = 15
"""Documents of a burst, of which one is touched again."""
KINDS = ("insert", "insert", "insert", "update", "update", "replace", "delete", "transaction")
BURSTS = (*KINDS, "burst", "burst", "burst")
"""For many changes in little time."""
Change = tuple[str, str, str, str | None]
"""Collection, operation, `_id`, and the value that makes it unique (a delete has none)."""
LAST = "the last"
"""The `_id` of the document that ends each collection's list."""


class Writers:
    """`count` tasks that write to all collections in turn, until `stopped`."""

    def __init__(
        self,
        uri: str,
        databases: Mapping[str, str],
        collections: Sequence[str],
        *,
        count: int,
        pause: float,
        kinds: Sequence[str] = KINDS,
    ) -> None:
        """`databases`: that of each collection. `collections` are drawn from, each as often as it is there."""
        self.total = 0
        """Writes made for certain."""
        self.uncertain = 0
        self.stopped = False
        """Ends them; cancelled, a driver's call may take that for its own and let its caller go on."""
        self.acknowledged_at = time.monotonic()
        """When the last one was taken by a majority of the replica set."""
        self._listed: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.collections = collections
        self.bulk = 0
        """The most documents that are inserted at once now and then, of which none is touched again."""
        self.bulk_pause = 1.0
        self._poured = 0
        self._count = count
        self._pause = pause
        self.kinds = kinds
        self._client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            uri,
            w="majority",  # what one member alone has taken may be rolled back, and was no change then
            serverSelectionTimeoutMS=5_000,
            connectTimeoutMS=2_000,  # of a heartbeat too: a frozen primary is left as soon as another is elected
            socketTimeoutMS=5_000,
            heartbeatFrequencyMS=1_000,
            appname="writers",
        )
        self._places = {name: self._client[database][name] for name, database in databases.items()}

    async def run(self, seed: str) -> None:
        """Write until stopped."""
        async with asyncio.TaskGroup() as tasks:
            for index in range(self._count):
                writer = _Writer(self, f"w{index}", random.Random(f"{seed}/{index}"))
                tasks.create_task(writer.run(self._pause), name=f"writer {index}")
            if self.bulk:
                tasks.create_task(self._pour(random.Random(f"{seed}/bulk")), name="bulk writer")

    async def _pour(self, draw: random.Random) -> None:
        while not self.stopped:
            await self.pour(draw.choice(self.collections), draw.randint(1, self.bulk))
            await asyncio.sleep(self.bulk_pause)

    def listed(self, collection: str) -> Sequence[Mapping[str, Any]]:
        """The collection's list, as `save` writes it."""
        return self._listed[collection]

    async def pour(self, collection: str, count: int, *, size: int = TEXT_BYTES) -> None:
        """Insert so many documents of about this size at once."""
        first, self._poured = self._poured, self._poured + count
        ids = [f"bulk-{number}" for number in range(first, first + count)]
        await self.apply([(collection, "insert", id_, id_) for id_ in ids], size=size)

    async def finish(self) -> None:
        """Write each collection's last document, once the tasks are over."""
        for name in dict.fromkeys(self.collections):
            await self._places[name].insert_one({"_id": LAST, "n": LAST})
            self.note([(name, "insert", LAST, LAST)], certain=True)

    async def close(self) -> None:
        await self._client.close()

    def save(self, collection: str, path: Path) -> None:
        """Write the collection's list to a file."""
        path.write_text("".join(f"{json.dumps(line)}\n" for line in self._listed[collection]))

    def note(self, changes: Sequence[Change], *, certain: bool) -> None:
        """List changes that were made, or may have been."""
        for collection, operation, id_, n in changes:
            line: dict[str, Any] = {"operation": operation, "id": id_}
            if n is not None:
                line["fields"] = {"n": n}
            if not certain:
                line["uncertain"] = True
            self._listed[collection].append(line)
        if certain:
            self.total += len(changes)
            self.acknowledged_at = time.monotonic()
        else:
            self.uncertain += len(changes)

    async def apply(self, changes: Sequence[Change], *, size: int = TEXT_BYTES) -> bool:
        """Make the changes, several as one transaction or burst, and list them. Returns whether all were made."""
        try:
            made = await self._apply(changes, size)
        except PyMongoError:
            self.note(changes, certain=False)
            return False
        except asyncio.CancelledError:
            self.note(changes, certain=False)
            raise
        self.note(made, certain=True)
        return len(made) == len(changes)

    async def _apply(self, changes: Sequence[Change], size: int) -> Sequence[Change]:
        """Make the changes, and return those that found their document."""
        if len(changes) == 1:
            return [change for change in changes if await self._make(change, None)]
        if len({collection for collection, *_ in changes}) == 1:
            documents = [_document(id_, n, size) for _, _, id_, n in changes]
            await self._places[changes[0][0]].insert_many(documents)
            return changes
        async with self._client.start_session() as session, await session.start_transaction():
            return [change for change in changes if await self._make(change, session)]

    async def _make(self, change: Change, session: Any) -> bool:
        name, operation, id_, n = change
        collection = self._places[name]
        if operation == "insert":
            await collection.insert_one(_document(id_, n), session=session)
            return True
        if operation == "update":
            result: Any = await collection.update_one({"_id": id_}, {"$set": {"n": n}}, session=session)
        elif operation == "replace":
            result = await collection.replace_one({"_id": id_}, {"n": n, "replaced": True}, session=session)
        else:
            result = await collection.delete_one({"_id": id_}, session=session)
            return bool(result.deleted_count)
        return bool(result.matched_count)


def _document(id_: str, n: str | None, size: int = TEXT_BYTES) -> dict[str, Any]:
    return {"_id": id_, "n": n, "text": "x" * size}


class _Writer:
    def __init__(self, writers: Writers, name: str, draw: random.Random) -> None:
        self._writers = writers
        self._name = name
        self._draw = draw
        self._number = 0
        self._alive: list[tuple[str, str]] = []

    async def run(self, pause: float) -> None:
        while not self._writers.stopped:
            changes = self._next()
            touched = {(collection, id_) for collection, _, id_, _ in changes}
            self._alive = [one for one in self._alive if one not in touched]
            if await self._writers.apply(changes):
                left = touched - {(c, id_) for c, operation, id_, _ in changes if operation == "delete"}
                self._alive += sorted(left)[:1] if len(changes) == BURST else sorted(left)
            await asyncio.sleep(pause)

    def _next(self) -> list[Change]:
        kind = self._draw.choice(self._writers.kinds)
        if len(self._alive) >= KEPT:
            kind = "delete"
        elif len(self._alive) < 2:
            kind = "insert"
        if kind == "insert":
            return [self._insert(self._draw.choice(self._writers.collections))]
        if kind == "burst":
            collection = self._draw.choice(self._writers.collections)
            return [self._insert(collection) for _ in range(BURST)]
        collection, id_ = self._draw.choice(self._alive)
        if kind == "transaction":
            there = [self._insert(name) for name in self._draw.sample(self._writers.collections, 3)]
            first = there[0]
            return [*there, (collection, "update", id_, self._fresh()), (first[0], "update", first[2], self._fresh())]
        return [(collection, kind, id_, None if kind == "delete" else self._fresh())]

    def _insert(self, collection: str) -> Change:
        n = self._fresh()
        return (collection, "insert", n, n)

    def _fresh(self) -> str:
        self._number += 1
        return f"{self._name}-{self._number}"
