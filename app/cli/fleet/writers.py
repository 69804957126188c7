"""The fleet's traffic: one writer for each collection, at rates that differ widely.

All writers share some threads, so that a MongoDB that is down blocks those alone.
"""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from app.cli.fleet import plan
from app.cli.fleet.plan import FleetWatcher
from app.cli.traffic import Writer

_THREADS = 8
_SELECTION_MS = 3000
"""How long a write waits for a MongoDB that is down; one that fails counts as uncertain."""
_CUSTOMERS = ("Ada", "Grace", "Edsger", "Barbara", "Donald", "Frances", "Ken", "Radia")
_BULK = 1000


class Writers:
    """A writer for each watcher's collection. A context manager: its threads and connections end with it."""

    def __init__(self, mongo_uri: str, run: str, watchers: Sequence[FleetWatcher], rate: float) -> None:
        self._client: MongoClient[dict[str, Any]] = MongoClient(mongo_uri, serverSelectionTimeoutMS=_SELECTION_MS)
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="writer")
        self._run = run
        self.of: Mapping[str, Writer] = {
            each.name: Writer(
                self._client[each.database][each.collection],
                run,
                rate * each.share,
                document=_document,
                threads=self._threads,
            )
            for each in watchers
        }
        """By the watcher's name."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._client.close()

    @property
    def written(self) -> int:
        """How many writes were made by all."""
        return sum(len(each.written) for each in self.of.values())

    async def write_until(self, stop: asyncio.Event) -> None:
        """Write until `stop` is set."""
        async with asyncio.TaskGroup() as group:
            for name, writer in self.of.items():
                group.create_task(writer.write_until(stop), name=f"writer:{name}")

    async def server_version(self) -> str:
        """The version of the mongod. Raises PyMongoError."""
        info = await asyncio.get_running_loop().run_in_executor(self._threads, self._client.server_info)
        return str(info["version"])

    async def fill(self, watcher: FleetWatcher, count: int = plan.SNAPSHOT_DOCUMENTS) -> None:
        """Give a collection documents before its watcher is added, unless an earlier demo did. Raises PyMongoError."""
        await asyncio.get_running_loop().run_in_executor(self._threads, self._fill, watcher, count)

    async def write_too_large(self, watcher: FleetWatcher, size: int) -> str | None:
        """Insert a document larger than this; return what was wrong, None where it was inserted."""
        document = {"_id": f"too-large-{self._run}", "note": "x" * size}
        collection = self._client[watcher.database][watcher.collection]
        try:
            await asyncio.get_running_loop().run_in_executor(self._threads, collection.insert_one, document)
        except PyMongoError as error:
            return str(error)
        return None

    def _fill(self, watcher: FleetWatcher, count: int) -> None:
        collection = self._client[watcher.database][watcher.collection]
        there = collection.count_documents({"_id": {"$regex": "^kept-"}})
        for begin in range(there, count, _BULK):
            some = range(begin, min(begin + _BULK, count))
            collection.insert_many([_document(f"kept-{number:06}", number) for number in some], ordered=True)


def _document(key: str, number: int) -> dict[str, Any]:
    return {
        "_id": key,
        "customer": random.choice(_CUSTOMERS),
        "amount": round(random.uniform(1, 500), 2),
        "tags": random.sample(["new", "gift", "express", "returning", "wholesale"], 2),
        "at": round(time.time(), 3),
        "status": "new",
        "number": number,
    }
