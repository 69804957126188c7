"""Another form of what is broken: forty watchers of two databases, most of them on shared change streams.

Some collections are hot, most are quiet, and some are written that nobody watches. A few watchers have a change stream
of their own by a pipeline, some share with other options, and one watches a whole database. All are written by the same
writers as ever, and the same clusters and services are struck.
"""

from __future__ import annotations

import asyncio
import json
import random
from base64 import b64decode
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import httpx

from tests.faults.cluster import MEMBERS
from tests.faults.testbed import DATABASE, WINDOW_SECONDS, Load, Testbed, stream_of
from tests.faults.writers import LAST
from tests.service import is_stopped, until

OTHER_DATABASE = "depot"
HOT = ("s00", "s01", "d00", "d01")
"""The collections that most is written to."""
SHOP = tuple(f"s{number:02}" for number in range(19))
DEPOT = tuple(f"d{number:02}" for number in range(17))
PLAIN = ("s16", "s17", "s18")
"""Whose watchers share a change stream of their own kind: without the look-up of documents."""
APART = ("p00", "p01", "q00")
"""Whose watchers have a pipeline, and so a change stream of their own."""
WHOLE = OTHER_DATABASE
"""The watcher of a whole database; it is not named as its collection."""
SHARED = (*SHOP, *DEPOT)
WATCHED = (*SHARED, *APART)
STRANGERS = ("x00", "x01", "x02", "y00", "y01", "y02")
"""Collections that nobody watches."""
LOOKED_AT = (*HOT, APART[0])
"""Which the lag is told by: the others are written too rarely for that."""
PIPELINE = [{"$match": {"operationType": {"$in": ["insert", "update", "replace", "delete"]}}}]
TIMES = {**dict.fromkeys(STRANGERS, 2), **dict.fromkeys(LOOKED_AT, 8)}
"""How often a collection is drawn where a quiet one is drawn once."""
LOAD = Load(bulk=300)
GOOD_SECONDS = 2.0


def database_of(collection: str) -> str:
    return DATABASE if collection[0] in "spx" else OTHER_DATABASE


@dataclass
class Visit:
    """A watcher that is added while changes flow, and may be removed again. Between the marks it misses nothing."""

    name: str
    collection: str
    first: str
    """The `_id` of a document written once the watcher ran."""
    last: str = LAST
    """The `_id` of one that arrived before the watcher was removed."""
    removed: bool = False


class Crowd(Testbed):
    """Testbed of this form."""

    shared_ones: Sequence[str] = SHARED
    """The watchers, named as their collections, that read from shared change streams."""
    watched: Sequence[str] = WATCHED
    """All but the one of a whole database."""
    strangers: Sequence[str] = STRANGERS
    names: Sequence[str] = LOOKED_AT
    recorded: Sequence[str] = ()

    def __init__(
        self, load: Load | None = None, *, patience: float, good: float, silence: float, mongod: Path | None = None
    ) -> None:
        self.databases = {name: database_of(name) for name in self.watched}
        self.replicated = tuple(name for index, name in enumerate(self.watched) if index % 5 == 0)
        self.one_replica = tuple(name for index, name in enumerate(self.watched) if index % 5)
        super().__init__(load or LOAD, patience=patience, good=max(good, GOOD_SECONDS), silence=silence, mongod=mongod)
        self.visits: list[Visit] = []
        self.reads: dict[str, Counter[str]] = {watcher["name"]: Counter() for watcher in self.watchers}
        """How often each watcher was seen on a shared change stream, and on its own."""

    def _described(self) -> list[dict[str, Any]]:
        return [*(self.described(name, name) for name in self.watched), self.described(WHOLE, None)]

    def some(self, draw: random.Random, count: int) -> Sequence[str]:
        """So many of those that share: hot ones and quiet ones."""
        quiet = [name for name in self.shared_ones if name not in HOT]
        return [*draw.sample(HOT, count // 3), *draw.sample(quiet, count - count // 3)]

    def described(self, name: str, collection: str | None) -> dict[str, Any]:
        """A watcher, as it is added."""
        source: dict[str, Any] = {"database": name}
        if collection is not None:
            source = {"database": database_of(collection), "collection": collection}
        if name in APART:
            source["pipeline"] = PIPELINE
        if name in PLAIN:
            source["full_document"] = "default"
        sink = {
            "stream": stream_of(name),
            "replicas": MEMBERS if name in self.replicated else 1,
            "duplicate_window_seconds": WINDOW_SECONDS,
        }
        return {"name": name, "source": source, "sink": sink, "checkpoint": {"collection": f"of_{name}"}}

    def _written(self) -> tuple[Mapping[str, str], Sequence[str]]:
        names = (*self.watched, *self.strangers)
        drawn = [name for name in names for _ in range(TIMES.get(name, 1))]
        return {name: database_of(name) for name in names}, drawn

    def _beside(self) -> list[Coroutine[Any, Any, None]]:
        return []

    async def _make_streams(self) -> None:
        """The watchers make them all."""

    # Who reads how

    async def statuses(self) -> dict[str, dict[str, Any]]:
        """What the services say of all watchers: of each, the one that runs it."""
        found: dict[str, dict[str, Any]] = {}
        for service in self.services:
            with suppress(httpx.TransportError):
                answer = await service.call("GET", "/watchers")
                for watcher in answer.json() if answer.status_code == 200 else ():
                    if watcher["status"]["state"] == "RUNNING" or watcher["name"] not in found:
                        found[watcher["name"]] = watcher["status"]
        return found

    async def shared(self, names: Sequence[str]) -> None:
        """Wait until these watchers run, each on a shared change stream."""

        async def joined() -> bool:
            statuses = await self.statuses()
            seen = [statuses.get(name, {}) for name in names]
            return all((one.get("state"), one.get("reads")) == ("RUNNING", "shared") for one in seen)

        await until(joined, f"{', '.join(names)} read from a shared change stream", within=self.patience)

    async def note_modes(self) -> None:
        await super().note_modes()
        for name, status in (await self.statuses()).items():
            if status["state"] == "RUNNING" and status["reads"] and name in self.reads:
                self.reads[name][status["reads"]] += 1

    async def finish(self) -> None:
        """Let those that share come to it first: after a short run on a busy machine some still read on their own."""

        async def shared() -> bool:
            await self.note_modes()
            return all(self.reads[name]["shared"] for name in self.reads if name in self.shared_ones)

        with suppress(AssertionError):  # it is judged below
            await until(shared, "they read from shared change streams", within=self.patience)
        await super().finish()

    def _judge_modes(self) -> None:
        for name, seen in self.reads.items():
            wanted = "shared" if name in self.shared_ones else "own"
            if not seen[wanted] or (wanted == "own" and seen["shared"]):
                self.problems.append(f"{name} has to read from a {wanted} change stream: {dict(seen) or 'never seen'}")

    def let_go(self) -> int:
        """How often a shared change stream has let go of a watcher that held up the others."""
        return sum(service.log.read_text(errors="replace").count('"feed_lets_go"') for service in self.services)

    # Visitors

    async def visit(self, collection: str) -> Visit:
        """Add a watcher beside those that are there, and wait until it runs."""
        name = f"visitor{len(self.visits)}"
        visit = Visit(name, collection, f"{name}-first")
        self.visits.append(visit)
        watcher = self.described(name, collection)
        turns = cycle(self.services)

        async def added() -> bool:
            service = next(turns)
            if not service.running or is_stopped(service.pid):
                return False
            with suppress(httpx.TransportError):
                answer = await service.call("PUT", f"/watchers/{name}", watcher)
                assert answer.status_code in (200, 201, 503), answer.text
                return answer.status_code != 503
            return False

        await until(added, f"{name} is added", within=self.patience)
        await self.runs(name)
        visit.first = await self._mark(visit, "first")
        return visit

    async def runs(self, name: str) -> None:
        async def running() -> bool:
            return (await self.statuses()).get(name, {}).get("state") == "RUNNING"

        await until(running, f"{name} is RUNNING", within=self.patience)

    async def end_visit(self, visit: Visit) -> None:
        """Write a last document, and wait until it is on the stream: the watcher may go then."""
        last = await self._mark(visit, "last")

        async def there() -> bool:
            return await self.last_of(visit.name, visit.collection, last)

        await until(there, f"{last} is on {stream_of(visit.name)}", within=self.patience)
        visit.last = last

    async def _mark(self, visit: Visit, which: str) -> str:
        """Write a document, however often that takes."""
        number = 0
        while True:
            id_ = f"{visit.name}-{which}-{number}"
            if await self.writers.apply([(visit.collection, "insert", id_, id_)]):
                return id_
            number += 1
            await asyncio.sleep(WINDOW_SECONDS)

    async def last_of(self, name: str, collection: str, id_: str) -> bool:
        """Whether the document's insert is on the watcher's stream: looked for among its last messages."""
        info = await self.nats.ask(f"STREAM.INFO.{stream_of(name)}")
        last = (info.get("state") or {}).get("last_seq", 0)
        for sequence in range(last, max(0, last - 200), -1):
            answer = await self.nats.ask(f"STREAM.MSG.GET.{stream_of(name)}", {"seq": sequence})
            if "message" in answer:
                event = json.loads(b64decode(answer["message"]["data"]))
                key = (event.get("ns", {}).get("coll"), event.get("documentKey", {}).get("_id"))
                if key == (collection, id_):
                    return True
        return False

    # The end

    def _of_the_whole(self) -> list[str]:
        return [name for name in self.watched if name in DEPOT]

    async def _ended(self) -> bool:
        """Whether the last document of each collection is on its watcher's stream, and on the database's."""
        waiting = [(watcher["name"], watcher["source"].get("collection")) for watcher in self.watchers]
        waiting += [(visit.name, visit.collection) for visit in self.visits if visit.last == LAST]
        for name, collection in waiting:
            for each in [collection] if collection else self._of_the_whole():
                if not await self.last_of(name, each, LAST):
                    return False
        return True
