"""Snapshots of every kind of collection: each document once, as the changes before it have left it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from bson.codec_options import CodecOptions, DatetimeConversion
from pymongo.errors import DuplicateKeyError

from tests.integration.mongodb.test_row_source import KEYS
from tests.integration.service.test_snapshot_errors import arrived
from tests.integration.service.test_snapshots import begin, fill, now, until_ended
from tests.service import Service, Stage, Trap, until
from tests.service.messages import Message
from tests.service.rows import DONE, ROW, check_rows, is_of_snapshot
from tests.service.scope_rows import Named, check_scope, named

pytestmark = pytest.mark.long

ANY_DATE = CodecOptions(datetime_conversion=DatetimeConversion.DATETIME_MS)
MEGABYTE = 1024 * 1024
OPERATIONS = ["insert", "update", "replace", "delete", "rename", "drop"]


class Scope:
    """A stage whose watcher reads what a test says, and writers that change its documents all the time."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.database = stage.mongo[stage.database]
        self.number = 0

    async def add(self, service: Service, *, sink: dict[str, Any] | None = None, **source: Any) -> None:
        await until(lambda: self.stage.takes(service), "the service is ready")
        watcher = self.stage.described(subject="{stream}.{operation}", operations=OPERATIONS, **(sink or {}))
        watcher["source"] = {"database": self.stage.database, **source}
        await service.call("POST", "/watchers", watcher, status=201)
        await service.until_state(self.stage.watcher, "RUNNING")

    async def fill(self, collection: str, keys: Any, **more: Any) -> None:
        documents = []
        for key in keys:
            self.number += 1
            documents.append({"_id": key, "n": self.number, **more})
        await self.database[collection].insert_many(documents)

    async def now(self, *left_out: str) -> dict[Named, int]:
        """What is there: the number of each document."""
        found = {}
        for name in await self.database.list_collection_names(filter={"type": "collection"}):
            if not name.startswith("system.") and name not in left_out:
                things = self.database.get_collection(name, codec_options=ANY_DATE)
                async for raw in things.find({}, {"n": 1}):
                    found[named(name, raw["_id"])] = raw["n"]
        return found

    @asynccontextmanager
    async def updated(self, collection: str, keys: list[Any], *, deletes: bool = True) -> AsyncIterator[None]:
        """Change documents of these keys all the time."""
        over, draw, things = False, random.Random(1), self.database[collection]

        async def write() -> None:
            while not over:
                key = draw.choice(keys)
                self.number += 1
                if deletes and draw.random() < 0.1:
                    await things.delete_one({"_id": key})
                elif (await things.update_one({"_id": key}, {"$set": {"n": self.number}})).matched_count == 0:
                    with suppress(DuplicateKeyError):
                        await things.insert_one({"_id": key, "n": self.number})
                await asyncio.sleep(0.002)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            yield
            over = True

    async def arrived(self) -> list[Message]:
        """Wait until the last change is on the stream, end the service, and return all messages."""
        last = await self.database["things"].insert_one({"n": self.number + 1})
        end = named("things", last.inserted_id)[1]

        async def there() -> bool:
            messages = await self.stage.messages(last=50)
            return any(each.event.get("documentKey", {}).get("_id") == json.loads(end) for each in messages)

        await until(there, "the last change is on the stream", within=60)
        for service in self.stage._services:
            assert await service.terminate() == 0, service.log_tail()
        return await self.stage.messages()


@pytest.fixture
def scope(stage: Stage) -> Scope:
    return Scope(stage)


async def begun(service: Service) -> None:
    await until(lambda: "snapshot_begun" in service.log_tail(400), "the run has begun", within=30)


@pytest.mark.parametrize("kind", ["plain", "collation", "clustered", "pipeline", "filter"])
async def test_documents_with_keys_of_every_type_come_once(scope: Scope, kind: str) -> None:
    options: Any = {
        "collation": {"collation": {"locale": "en", "strength": 2}},
        "clustered": {"clusteredIndex": {"key": {"_id": 1}, "unique": True}},
    }.get(kind, {})
    await scope.database.create_collection("things", **options)
    await scope.fill("things", KEYS, text="x")
    await scope.fill("things", [f"k{n}" for n in range(2000)])
    before = await scope.now()
    service = await scope.stage.service().start()
    pipeline = [{"$match": {"operationType": {"$ne": "none"}}}, {"$set": {"fullDocument.seen": True}}]
    await scope.add(service, collection="things", pipeline=pipeline if kind == "pipeline" else [])
    wish = {"filter": {"n": {"$gt": 0}}} if kind == "filter" else {}
    keys = [key for key in KEYS if key == key and not isinstance(key, dict)]
    async with scope.updated("things", [*keys, *(f"k{n}" for n in range(0, 2000, 3))]):
        await begin(scope.stage, service, **wish)
        await until_ended(scope.stage, service)
    after = await scope.now()
    messages = await scope.arrived()
    last = messages[-1]
    assert check_scope(before, [each for each in messages if each is not last], after) >= len(KEYS)


async def test_documents_of_one_byte_and_of_16_megabytes_come_in_their_order(stage: Stage) -> None:
    """Chunks are sized by bytes, whatever the documents before have been; what is too large is pointed to."""
    large = dict.fromkeys((150, 400), "x" * (15 * MEGABYTE))
    large[401] = "x" * (16 * MEGABYTE - 40)
    for n in range(500):
        await stage.collection.insert_one({"_id": n, "n": n, "x": large.get(n, "")})
    service = await stage.service().start()
    await stage.add(service)
    await begin(stage, service)
    seen = await until_ended(stage, service)
    assert seen["documents"] == 500
    rows = [each for each in await stage.messages() if each.event["operationType"] == ROW]
    assert [each.event["documentKey"]["_id"] for each in rows] == list(range(500))
    pointers = [each for each in rows if "Changewire-Object" in each.headers]
    assert [each.event["documentKey"]["_id"] for each in pointers] == list(large)
    store = (
        await (await stage.nats())
        .jetstream(timeout=20)
        .object_store(pointers[-1].headers["Changewire-Object"].partition("/")[0])
    )
    for pointer in pointers:
        kept = await store.get(pointer.headers["Changewire-Object"].partition("/")[2])
        body = json.loads(kept.data or b"")
        assert body["fullDocument"]["x"] == large[body["documentKey"]["_id"]]
        assert body["_id"]["_data"] == pointer.id


async def test_a_document_that_is_too_large_ends_the_run_and_not_the_watcher(stage: Stage) -> None:
    await stage.collection.insert_one({"_id": -1, "n": -1, "x": "x" * (2 * MEGABYTE)})
    service = await stage.service().start()
    await stage.add(service, oversize="fail")
    for _ in range(2):
        await begin(stage, service)
        seen = await until_ended(stage, service, "failed")
        assert "raise the limit" in seen["reason"]
        await stage.write(20)
        await stage.until_length(len(stage.written))
        assert await service.state(stage.watcher) == "RUNNING"
    await stage.check()


@pytest.mark.parametrize("absent", [True, False])
async def test_where_there_is_nothing_the_run_is_complete_at_once(stage: Stage, absent: bool) -> None:
    if not absent:
        await stage.mongo[stage.database].create_collection("things")
    service = await stage.service().start()
    await stage.add(service)
    await begin(stage, service)
    assert (await until_ended(stage, service))["documents"] == 0
    assert [each.event["operationType"] for each in await stage.messages()] == [DONE]


async def test_a_capped_collection_that_is_written_comes_exactly(stage: Stage) -> None:
    await stage.mongo[stage.database].create_collection("things", capped=True, size=50 * MEGABYTE)
    before = await fill(stage, 5000)
    stage._alive.extend(before)
    service = await stage.service().start()
    await stage.add(service)
    async with stage.load():
        await begin(stage, service)
        await stage.until_length(2500, within=60)
        service.kill()
        await service.start()
        await until_ended(stage, service)
    check_rows(before, await arrived(stage), await now(stage))


# What happens to collections while a run reads them

Meanwhile = Callable[[Scope], Coroutine[Any, Any, None]]


async def dropped(scope: Scope) -> None:
    await scope.database["b"].drop()


async def dropped_and_made_again(scope: Scope) -> None:
    await scope.database["b"].drop()
    await scope.fill("b", range(50))


async def renamed_within(scope: Scope) -> None:
    await scope.database["b"].rename("e")


async def renamed_back_and_forth(scope: Scope) -> None:
    for name in ("e", "b", "a2"):
        last = "b" if name != "b" else "e"
        await scope.database[last].rename(name)
        await scope.fill(name, [f"in {name}"])


async def renamed_out(scope: Scope) -> None:
    await scope.database["b"].rename("out b")


async def renamed_in(scope: Scope) -> None:
    await scope.database["out a"].rename("a2")


async def renamed_onto(scope: Scope) -> None:
    await scope.database["out a"].rename("b", dropTarget=True)


async def renamed_onto_another(scope: Scope) -> None:
    await scope.database["d"].rename("b", dropTarget=True)


async def made(scope: Scope) -> None:
    for name in ("a1", "e"):
        await scope.fill(name, range(300))


@pytest.mark.parametrize(
    "meanwhile",
    [
        dropped, dropped_and_made_again, renamed_within, renamed_back_and_forth, renamed_out, renamed_in, renamed_onto,
        renamed_onto_another, made,
    ],
)  # fmt: skip
async def test_collections_may_come_and_go_and_change_their_names(scope: Scope, meanwhile: Meanwhile) -> None:
    """Whatever happens to collections of a scope: a consumer of the stream has exactly what is there in the end."""
    for name in ("a", "b", "d", "out a"):
        await scope.fill(name, range(3000 if name != "d" else 9000), text="x" * 300)
    before = await scope.now()
    service = await scope.stage.service(trap=Trap("after-plan", 3, "STOP")).start()  # a takes two chunks
    await scope.add(service, exclude=["out*"])
    await begin(scope.stage, service)
    await service.trapped()
    await meanwhile(scope)
    service.thaw()
    await until_ended(scope.stage, service)
    after = await scope.now()
    messages = await scope.arrived()
    left_out = {each: n for each, n in after.items() if each[0].startswith("out")}
    check_scope(before, messages[:-1], after, whole=False, unread="out ")
    watched = {each: n for each, n in after.items() if each not in left_out}
    known: dict[Named, int] = {}
    for message in messages[:-1]:
        if "documentKey" in (event := message.event):
            known[event["ns"]["coll"], json.dumps(event["documentKey"]["_id"], sort_keys=True)] = 1
        elif event["operationType"] == "rename":
            moved = {key: 1 for name, key in known if name == event["ns"]["coll"]}
            known |= {(event["to"]["coll"], key): 1 for key in moved}
    assert not [each for each in watched if each not in known]


async def test_views_and_time_series_are_left_out_of_a_scope(scope: Scope) -> None:
    await scope.fill("things", range(10))
    await scope.database.create_collection("view", viewOn="things", pipeline=[])
    await scope.database.create_collection("series", timeseries={"timeField": "t"})
    service = await scope.stage.service().start()
    await scope.add(service)
    for name, reason in (("view", "is a view"), ("series", "is a time series")):
        wish = {"collections": [f"{scope.stage.database}.{name}"]}
        answer = await service.call("POST", f"/watchers/{scope.stage.watcher}/snapshot", wish, status=422)
        assert reason in answer.text
    await begin(scope.stage, service)
    seen = await until_ended(scope.stage, service)
    assert (seen["documents"], seen["collections"]) == (10, [f"{scope.stage.database}.things"])


async def test_the_deployment_is_read_database_by_database(scope: Scope) -> None:
    stage = scope.stage
    others = [f"{stage.database}_{n}" for n in range(3)]
    for name in others:
        await stage.mongo[name]["things"].insert_many([{"_id": n, "n": n} for n in range(500)])
    service = await stage.service().start()
    await until(lambda: stage.takes(service), "the service is ready")
    watcher = stage.described(subject="{stream}.{operation}")
    watcher["source"] = {"include": [f"{stage.database}*.*"]}
    await service.call("POST", "/watchers", watcher, status=201)
    await service.until_state(stage.watcher, "RUNNING")
    await begin(stage, service)
    seen = await until_ended(stage, service)
    assert seen["collections"] == [f"{name}.things" for name in others]
    rows = [each.event for each in await stage.messages() if each.event["operationType"] == ROW]
    assert sorted((each["ns"]["db"], each["documentKey"]["_id"]) for each in rows) == [
        (name, n) for name in others for n in range(500)
    ]
    for name in others:
        await stage.mongo.drop_database(name)


async def test_watchers_that_share_a_change_stream_have_snapshots_at_once(stage: Stage) -> None:
    names = [f"c{n}" for n in range(5)]
    for name in names:
        await stage.mongo[stage.database][name].insert_many([{"_id": n, "n": n} for n in range(3000)])
    service = await stage.service().start()
    await until(lambda: stage.takes(service), "the service is ready")
    for name in names:
        watcher = {
            "name": name,
            "source": {"database": stage.database, "collection": name},
            "sink": {"stream": f"{stage.stream}_{name}"},
        }
        await service.call("POST", "/watchers", watcher, status=201)

    async def sharing() -> bool:
        return all([(await service.status(name)).get("reads") == "shared" for name in names])

    await until(sharing, "all read from one change stream", within=30)
    over = False

    async def write() -> None:
        number = 10_000
        while not over:
            for name in names:
                number += 1
                await stage.mongo[stage.database][name].update_one({"_id": number % 3000}, {"$set": {"n": number}})

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(write())
        for name in names:
            await service.call("POST", f"/watchers/{name}/snapshot", status=202)
        for name in names:

            async def ended(name: str = name) -> bool:
                return ((await service.status(name)).get("snapshot") or {}).get("state") == "done"

            await until(ended, f"the snapshot of {name} is done", within=90)
        over = True
    after = {
        name: {each["_id"]: each["n"] async for each in stage.mongo[stage.database][name].find()} for name in names
    }
    for name in names:
        changed = sum(n > 10_000 for n in after[name].values())

        async def there(name: str = name) -> bool:
            newest = max(after[name].values())
            last = [
                each for each in (await stage.messages(f"{stage.stream}_{name}"))[-500:] if not is_of_snapshot(each)
            ]
            return newest < 10_000 or bool(last and last[-1].change.number == newest)

        await until(there, f"the changes of {name} are there ({changed})", within=30)
        messages = await stage.messages(f"{stage.stream}_{name}")
        assert check_rows({n: n for n in range(3000)}, messages, after[name]) == 3000


async def test_a_hundred_thousand_small_documents_come_once(stage: Stage) -> None:
    count = 100_000
    for first in range(0, count, 10_000):
        await stage.collection.insert_many([{"_id": n, "n": n} for n in range(first, first + 10_000)])
    service = await stage.service().start()
    await stage.add(service)
    await begin(stage, service)
    assert (await until_ended(stage, service, within=100))["documents"] == count
    rows = [each for each in await stage.messages() if each.event["operationType"] == ROW]
    assert [each.event["documentKey"]["_id"] for each in rows] == list(range(count))
