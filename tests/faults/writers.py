"""Writers that keep a list of what they did, in the form that `changewire verify --writes` reads.

Each writer has documents of its own, so that the order of its list is each document's order. A write that ended in an
error may have happened or not: it is listed as uncertain, and its documents are not touched again.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError

KEPT = 20
"""Documents of one writer that live at a time."""
KINDS = ("insert", "insert", "insert", "update", "update", "replace", "delete", "transaction")
Change = tuple[str, str, str, str | None]
"""Collection, operation, `_id`, and the value that makes it unique (a delete has none)."""
LAST = "the last"
"""The `_id` of the document that ends each collection's list."""


class Writers:
    """`count` tasks that write to all collections in turn, until they are cancelled."""

    def __init__(self, uri: str, database: str, collections: Sequence[str], *, count: int, pause: float) -> None:
        self.total = 0
        """Writes made for certain."""
        self.uncertain = 0
        self.acknowledged_at = time.monotonic()
        """When the last one was taken by a majority of the replica set."""
        self._listed: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.collections = collections
        self._count = count
        self._pause = pause
        self._client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            uri,
            w="majority",  # what one member alone has taken may be rolled back, and was no change then
            serverSelectionTimeoutMS=5_000,
            connectTimeoutMS=2_000,  # of a heartbeat too: a frozen primary is left as soon as another is elected
            socketTimeoutMS=5_000,
            heartbeatFrequencyMS=1_000,
            appname="writers",
        )
        self._database = self._client[database]

    async def run(self, seed: str) -> None:
        """Write until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for index in range(self._count):
                writer = _Writer(self, f"w{index}", random.Random(f"{seed}/{index}"))
                tasks.create_task(writer.run(self._pause), name=f"writer {index}")

    async def finish(self) -> None:
        """Write each collection's last document, once the tasks are over."""
        for name in self.collections:
            await self._database[name].insert_one({"_id": LAST, "n": LAST})
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

    async def apply(self, changes: Sequence[Change]) -> bool:
        """Make the changes, several as one transaction, and list them. Returns whether they are certain."""
        try:
            if len(changes) == 1:
                await self._make(changes[0], None)
            else:
                async with self._client.start_session() as session, await session.start_transaction():
                    for change in changes:
                        await self._make(change, session)
        except PyMongoError:
            self.note(changes, certain=False)
            return False
        except asyncio.CancelledError:
            self.note(changes, certain=False)
            raise
        self.note(changes, certain=True)
        return True

    async def _make(self, change: Change, session: Any) -> None:
        name, operation, id_, n = change
        collection = self._database[name]
        if operation == "insert":
            await collection.insert_one({"_id": id_, "n": n, "text": "x" * 400}, session=session)
        elif operation == "update":
            await collection.update_one({"_id": id_}, {"$set": {"n": n}}, session=session)
        elif operation == "replace":
            await collection.replace_one({"_id": id_}, {"n": n, "replaced": True}, session=session)
        else:
            await collection.delete_one({"_id": id_}, session=session)


class _Writer:
    def __init__(self, writers: Writers, name: str, draw: random.Random) -> None:
        self._writers = writers
        self._name = name
        self._draw = draw
        self._number = 0
        self._alive: list[tuple[str, str]] = []

    async def run(self, pause: float) -> None:
        while True:
            changes = self._next()
            touched = {(collection, id_) for collection, _, id_, _ in changes}
            self._alive = [one for one in self._alive if one not in touched]
            if await self._writers.apply(changes):
                self._alive += sorted(touched - {(c, id_) for c, operation, id_, _ in changes if operation == "delete"})
            await asyncio.sleep(pause)

    def _next(self) -> list[Change]:
        kind = self._draw.choice(KINDS)
        if len(self._alive) >= KEPT:
            kind = "delete"
        elif len(self._alive) < 2:
            kind = "insert"
        if kind == "insert":
            return [self._insert(self._draw.choice(self._writers.collections))]
        collection, id_ = self._draw.choice(self._alive)
        if kind == "transaction":
            there = [self._insert(name) for name in self._writers.collections]
            first = there[0]
            return [*there, (collection, "update", id_, self._fresh()), (first[0], "update", first[2], self._fresh())]
        return [(collection, kind, id_, None if kind == "delete" else self._fresh())]

    def _insert(self, collection: str) -> Change:
        n = self._fresh()
        return (collection, "insert", n, n)

    def _fresh(self) -> str:
        self._number += 1
        return f"{self._name}-{self._number}"
