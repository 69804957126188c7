"""A watcher of a whole database, with a subject for each collection: every collection's changes once, in one order.

The service is killed while many collections are written, singly and in transactions over several of them. What arrives
is compared with what was written over the whole stream, and `changewire verify` has to find the same.
"""

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pymongo import DeleteOne, InsertOne, UpdateOne

from app.devservers.servers import MongoServer, NatsServer
from app.domain.subjects import escape
from app.domain.watcher import PUBLISHED, StoredWatcher, from_document
from app.mongodb.watcher_document import as_stored
from tests.integration.cli.test_verify import Verified, changewire
from tests.service import Stage, staged, until

KILLS = 5
NAMES = ("orders", "app.events", "with space", "ünïcode", "a%2Eb", "UPPER", "_", "x-*y>", "{operation}", "tab\tbed")
COLLECTIONS = (*NAMES, *(f"c{number:02}" for number in range(50 - len(NAMES))))


class Written(NamedTuple):
    """What tells a change from all others."""

    collection: str
    operation: str
    id: int
    number: int | None


class Writer:
    """One client that writes to all collections, so that its order is the deployment's."""

    def __init__(self, stage: Stage, seed: int = 1) -> None:
        self.written: list[Written] = []
        self._client = stage.mongo
        self._database = stage.mongo[stage.database]
        self._draw = random.Random(seed)
        self._alive: dict[str, list[int]] = {name: [] for name in COLLECTIONS}
        self._number = 0

    async def write(self, count: int, *, pause: float = 0.0) -> None:
        """Make `count` changes or a few more: some to one collection, or a transaction over several of them."""
        end = len(self.written) + count
        while len(self.written) < end:
            if self._draw.random() < 0.25:
                await self._transaction()
            else:
                await self._some(self._draw.choice(COLLECTIONS), self._draw.randint(1, 12))
            await asyncio.sleep(pause)

    async def create(self) -> None:
        """Make the collections: a transaction over several that are missing would be delayed by their creation."""
        for name in COLLECTIONS:
            await self._some(name, 2)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Write, without an end, beside what is done within the block."""
        over = False

        async def go_on() -> None:
            while not over:
                await self.write(30, pause=0.005)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(go_on())
            yield
            over = True

    async def _some(self, name: str, count: int, session: Any = None) -> None:
        requests, made = self._requests(name, count)
        await self._database[name].bulk_write(requests, ordered=True, session=session)
        self.written += made

    async def _transaction(self) -> None:
        async with self._client.start_session() as session, await session.start_transaction():
            for name in self._draw.sample(COLLECTIONS, 3):
                await self._some(name, self._draw.randint(1, 4), session)

    def _requests(self, name: str, count: int) -> tuple[list[Any], list[Written]]:
        requests: list[Any] = []
        made: list[Written] = []
        alive = self._alive[name]
        for _ in range(count):
            self._number += 1
            number, kind = self._number, self._draw.choice(("insert", "insert", "update", "delete"))
            if kind == "insert" or len(alive) < 2:
                requests.append(InsertOne({"_id": number, "n": number}))
                made.append(Written(name, "insert", number, number))
                alive.append(number)
            elif kind == "update":
                requests.append(UpdateOne({"_id": alive[-1]}, {"$set": {"n": number}}))
                made.append(Written(name, "update", alive[-1], number))
            else:
                requests.append(DeleteOne({"_id": alive[0]}))
                made.append(Written(name, "delete", alive.pop(0), None))
        return requests, made


def arrived(event: dict[str, Any]) -> Written:
    operation, number = event["operationType"], None
    if operation == "insert":
        number = event["fullDocument"]["n"]
    elif operation == "update":
        number = event["updateDescription"]["updatedFields"]["n"]
    return Written(event["ns"]["coll"], operation, event["documentKey"]["_id"], number)


async def add(stage: Stage, subject: str, *, source: dict[str, Any] | None = None, **sink: Any) -> None:
    """Store a watcher, of the stage's database where nothing else is said, as the service finds it when it starts."""
    watcher = from_document(
        {
            "name": stage.watcher,
            "source": source or {"database": stage.database},
            "sink": {"stream": stage.stream, "subject": subject, **sink},
            "checkpoint": {"database": f"tokens_{stage.database}", "collection": "shop"},
        }
    )
    await stage.mongo[stage.environment()["CHANGEWIRE_STATE_DB"]]["watchers"].insert_one(
        as_stored(StoredWatcher(watcher, revision=1, added=1))
    )


async def verified(stage: Stage, cwd: Path, *arguments: str) -> Verified:
    environ = {name: stage.environment()[name] for name in ("MONGO_URI", "NATS_URL", "CHANGEWIRE_STATE_DB")}
    return await changewire("verify", stage.watcher, "--json", *arguments, environ=environ, cwd=cwd)


@pytest.mark.parametrize(
    ("others", "mode"), [([], "fast_ingest"), (["other.>"], "atomic")], ids=["own stream", "shared stream"]
)
async def test_many_collections_written_while_the_service_is_killed_arrive_once_in_commit_order(
    stage: Stage, tmp_path: Path, others: list[str], mode: str
) -> None:
    subjects = [f"{stage.stream}.*.*", *(f"{stage.stream}-{other}" for other in others)]
    await (await stage.nats()).jetstream().add_stream(name=stage.stream, subjects=subjects, duplicate_window=0.1)
    await add(stage, "{stream}.{collection}.{operation}")
    service = await stage.service(batch_size=50).start()
    await service.until_state(stage.watcher, "RUNNING")
    assert (await service.status(stage.watcher))["publish_mode"] == mode
    writer, draw = Writer(stage), random.Random(2)
    await writer.create()
    async with writer.writing():
        for _ in range(KILLS):
            await service.until_state(stage.watcher, "RUNNING")
            await asyncio.sleep(draw.uniform(0, 0.4))  # the random point
            service.kill()
            await service.start()
    await stage.until_length(len(writer.written))
    assert await service.terminate() == 0
    messages = await stage.messages()
    assert [arrived(message.event) for message in messages] == writer.written
    ids = [message.id for message in messages]
    assert ids == sorted(set(ids))
    expected = [f"{stage.stream}.{escape(one.collection)}.{one.operation}" for one in writer.written]
    assert [message.subject for message in messages] == expected
    done = await verified(stage, tmp_path)
    assert done.code == 0, done.output + done.errors
    counts = Counter(f"{stage.database}.{one.collection}" for one in writer.written)
    assert done.report["collections"] == counts
    assert (done.report["compared"], done.report["foreign"]) == (len(writer.written), 0)


async def test_verify_finds_a_change_on_another_collections_subject_and_one_that_is_missing(
    stage: Stage, tmp_path: Path
) -> None:
    await (
        (await stage.nats())
        .jetstream()
        .add_stream(name=stage.stream, subjects=[f"{stage.stream}.*.*"], duplicate_window=0.1)
    )
    await add(stage, "{stream}.{collection}.{operation}")
    service = await stage.service().start()
    await service.until_state(stage.watcher, "RUNNING")
    writer = Writer(stage)
    await writer.create()
    await stage.until_length(len(writer.written))
    assert await service.terminate() == 0
    jetstream, messages = (await stage.nats()).jetstream(), await stage.messages()
    last, lost = messages[-1], messages[40]
    await jetstream.delete_msg(stage.stream, lost.sequence)
    await jetstream.delete_msg(stage.stream, last.sequence)
    headers = {"Nats-Msg-Id": last.id}
    await until(lambda: _published(stage, f"{stage.stream}.orders.insert", last.body, headers), "it is stored")
    report = (await verified(stage, tmp_path)).report
    assert [one["token"] for one in report["lost"]["findings"]] == [lost.id]
    assert "of " + stage.database in report["lost"]["findings"][0]["what"]
    (altered,) = report["altered"]["findings"]
    assert altered["token"] == last.id
    assert f"is on the subject {stage.stream}.orders.insert, not {last.subject}" in altered["what"]


async def _published(stage: Stage, subject: str, body: bytes, headers: dict[str, str]) -> bool:
    """Publish a message as nobody should, as soon as the duplicate window has forgotten its id."""
    ack = await (await stage.nats()).jetstream().publish(subject, body, headers=headers)
    return not ack.duplicate


async def test_a_list_of_writes_may_name_the_collections(stage: Stage, tmp_path: Path) -> None:
    await add(stage, "{stream}.{collection}.{operation}")
    service = await stage.service().start()
    await service.until_state(stage.watcher, "RUNNING")
    database = stage.mongo[stage.database]
    for name in ("a", "b"):  # the same _id in both
        await database[name].insert_one({"_id": 1})
    await stage.until_length(2)
    assert await service.terminate() == 0
    listed = tmp_path / "writes.jsonl"
    lines = [{"operation": "insert", "id": 1, "collection": name} for name in ("b", "a")]
    listed.write_text("\n".join(map(json.dumps, lines)))
    assert (await verified(stage, tmp_path, "--writes", str(listed))).report["compared"] == 2
    listed.write_text(json.dumps(lines[0] | {"collection": "c"}))
    assert (await verified(stage, tmp_path, "--writes", str(listed))).report["lost"]["total"] == 1


async def test_a_large_change_is_a_letter_with_its_collection_and_is_replayed_onto_its_subject(stage: Stage) -> None:
    jetstream = (await stage.nats()).jetstream()
    config: dict[str, Any] = {"name": stage.stream, "subjects": [f"{stage.stream}.*.*"]}
    await jetstream.add_stream(**config, max_msg_size=3000)
    await add(stage, "{stream}.{collection}.{operation}", oversize="dead_letter")
    service = await stage.service().start()
    await service.until_state(stage.watcher, "RUNNING")
    database = stage.mongo[stage.database]
    await database["a.b"].insert_one({"_id": 1, "text": "x" * 4000})
    await database["c"].insert_one({"_id": 2})
    await stage.until_length(1)
    page = (await service.call("GET", f"/watchers/{stage.watcher}/dead-letters")).json()
    (letter,) = page["dead_letters"]
    assert letter["namespace"] == f"{stage.database}.a.b"
    await jetstream.update_stream(**config, max_msg_size=-1)
    service.kill()
    await service.start()
    await service.until_state(stage.watcher, "RUNNING")
    path = f"/watchers/{stage.watcher}/dead-letters/{letter['sequence']}/replay"
    await service.call("POST", path, status=200)
    messages = await stage.messages()
    assert [message.subject.removeprefix(stage.stream) for message in messages] == [".c.insert", ".a%2Eb.insert"]
    assert messages[1].event["documentKey"] == {"_id": 1}


async def test_a_body_in_the_object_store_has_its_pointer_on_the_collections_subject(stage: Stage) -> None:
    jetstream = (await stage.nats()).jetstream()
    await jetstream.add_stream(name=stage.stream, subjects=[f"{stage.stream}.*.*"], max_msg_size=3000)
    await add(stage, "{stream}.{collection}.{operation}")
    service = await stage.service().start()
    await service.until_state(stage.watcher, "RUNNING")
    for name in ("a", "b"):  # the same document, in two collections: two objects
        await stage.mongo[stage.database][name].insert_one({"_id": 1, "text": name * 4000})
    await stage.until_length(2)
    messages = await stage.messages()
    assert [message.subject.removeprefix(stage.stream) for message in messages] == [".a.insert", ".b.insert"]
    bodies = []
    for message in messages:
        bucket, _, name = message.headers["Changewire-Object"].partition("/")
        found = await (await jetstream.object_store(bucket)).get(name)
        bodies.append(json.loads(found.data or b"")["fullDocument"]["text"][0])
    assert bodies == ["a", "b"]


async def test_what_is_done_to_a_database_as_a_whole_has_a_subject_without_a_collection(
    stage: Stage, tmp_path: Path
) -> None:
    await add(stage, "{stream}.{collection}.{operation}", operations=["insert", "drop", "rename", "dropDatabase"])
    service = await stage.service().start()
    await service.until_state(stage.watcher, "RUNNING")
    database = stage.mongo[stage.database]
    await database["a"].insert_one({"_id": 1})
    await database["a"].rename("b")
    await stage.mongo.drop_database(stage.database)
    await database["c"].insert_one({"_id": 2})
    await stage.until_length(5)
    subjects = [message.subject.removeprefix(f"{stage.stream}.") for message in await stage.messages()]
    assert subjects == ["a.insert", "a.rename", "b.drop", "_.dropDatabase", "c.insert"]
    done = await verified(stage, tmp_path)
    assert (done.code, done.report["compared"]) == (0, 5), done.output + done.errors


async def test_a_deployments_changes_are_on_one_stream_in_one_order_and_verify_reads_them_all(
    own_mongo: MongoServer, nats_url: str, tmp_path: Path, unique: str
) -> None:
    async with staged(own_mongo.uri, nats_url, tmp_path, unique) as stage:
        databases = [f"{name}_{unique}" for name in ("crm", "shop")]
        pipeline = [{"$match": {"ns.db": {"$in": databases}}}]  # the service's own writes are none of its business
        source = {"pipeline": pipeline, "include": [f"{name}.*" for name in databases]}
        await add(
            stage,
            "{stream}.{database}.{collection}.{operation}",
            source=source,
            operations=[*PUBLISHED, "dropDatabase"],
        )
        service = await stage.service().start()
        await service.until_state(stage.watcher, "RUNNING")
        expected = []
        for number in range(60):
            database, name = databases[number % 2], f"c{number % 3}"
            await stage.mongo[database][name].insert_one({"_id": number})
            expected.append(f"{stage.stream}.{database}.{name}.insert")
        await stage.mongo.drop_database(databases[0])
        expected.append(f"{stage.stream}.{databases[0]}._.dropDatabase")
        await stage.until_length(len(expected))
        assert await service.terminate() == 0
        assert [message.subject for message in await stage.messages()] == expected
        done = await verified(stage, tmp_path)
        assert done.code == 0, done.output + done.errors
        assert done.report["collections"] == {
            databases[0]: 1, **{f"{database}.c{number}": 10 for database in databases for number in range(3)}
        }  # fmt: skip


async def test_a_name_that_makes_a_subject_too_long_for_the_server_is_a_letter_and_the_others_go_on(
    mongo_uri: str, own_nats: NatsServer, tmp_path: Path, unique: str
) -> None:
    """A server with a lower max_control_line: what is longer is learnt, and after that no connection is lost."""
    own_nats.config = "max_control_line: 512"
    await own_nats.restart()
    async with staged(mongo_uri, own_nats.url, tmp_path, unique) as stage:
        await add(stage, "{stream}.{collection}.{operation}", oversize="dead_letter")
        service = await stage.service().start()
        await service.until_state(stage.watcher, "RUNNING")
        database = stage.mongo[stage.database]
        long = "a" + ". " * 110 + "z"
        for name in ("before", long, "after"):
            await database[name].insert_one({"_id": 1})
        await stage.until_length(2)
        path = f"/watchers/{stage.watcher}/dead-letters"
        (letter,) = (await service.call("GET", path)).json()["dead_letters"]
        assert letter["namespace"] == f"{stage.database}.{long}"
        assert "bytes is longer than the" in letter["error"]
        assert await service.terminate() == 0
        subjects = [message.subject for message in await stage.messages()]
        assert subjects == [f"{stage.stream}.before.insert", f"{stage.stream}.after.insert"]
