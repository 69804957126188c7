"""Events of more than the 16 MiB that MongoDB can send: read past, or put together, and never in the way of the others.

mongod 6.0.5 cannot split an event; `Splitting` stands in for one that can, around the real server. A newer one can,
where it is provided.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import bson
import pymongo
import pytest
import pytest_asyncio
from bson.raw_bson import RawBSONDocument

from app.domain.errors import EventTooLarge
from app.domain.watcher import Source, Start, Watcher
from app.mongodb.change_source import MongoChangeSource
from app.mongodb.deployment import MongoDeployment
from app.mongodb.large_events import put_together
from app.ports import SourceBatch
from tests.live import Live, until
from tests.service import Stage, Trap, staged
from tests.splitting import Splitting

pytestmark = pytest.mark.long

LARGE = "x" * 9_000_000
IMAGES = {"pre_and_post_images": True}


class Reading:
    """A source over a collection with images, and all that it has delivered."""

    def __init__(self, uri: str, database: str, *, emulated: bool, batch: int = 500, **source: Any) -> None:
        self.client: pymongo.MongoClient[dict[str, Any]] = pymongo.MongoClient(uri)
        self.orders = self.client[database]["orders"]
        self.deployment = MongoDeployment(uri, state_database="changewire", batch_size=batch)
        watcher = Watcher("w", Source(database, "orders", pre_and_post_images=True, **source))
        reach = self.deployment.reach
        if emulated:
            client: Any = Splitting(reach.client)
            reach = replace(reach, client=client, patient=lambda: client)
        self.source = MongoChangeSource(watcher, reach, batch_size=batch)
        self.batches: list[SourceBatch] = []

    async def begin(self) -> None:
        await self.source.prepare()
        await self.source.open(await self.source.locate(Start("latest")))

    async def read(self, count: int) -> list[dict[str, Any]]:
        """Read until so many events are there in all."""

        async def enough() -> bool:
            self.batches.append(await self.source.read())
            return len(self.events) >= count

        await until(enough)
        assert len(self.events) == count
        return self.events

    @property
    def events(self) -> list[dict[str, Any]]:
        return [bson.decode(event) for batch in self.batches for event in batch.events]

    async def close(self) -> None:
        await self.source.close()
        self.deployment.close()
        self.client.drop_database(self.orders.database.name)
        self.client.close()


EMULATED = "emulated"


@pytest.fixture(params=["reduces", "splits", "newer mongo"])
def splits(request: pytest.FixtureRequest) -> str:
    """What splits large events: nothing, `Splitting`, or the server at this address."""
    if request.param == "newer mongo":
        return str(request.getfixturevalue("newer_mongo_uri"))
    return EMULATED if request.param == "splits" else ""


@pytest_asyncio.fixture
async def make(mongo_uri: str, database: str) -> AsyncIterator[Any]:
    made: list[Reading] = []

    async def make(*, splits: str = "", **options: Any) -> Reading:
        uri = mongo_uri if splits in ("", EMULATED) else splits
        made.append(Reading(uri, database, emulated=splits == EMULATED, **options))
        await made[-1].begin()
        return made[-1]

    yield make
    for one in made:
        await one.close()


def said(events: list[dict[str, Any]]) -> list[str]:
    return [f"{event['operationType']} {event['documentKey']['_id']}" for event in events]


@pytest.mark.parametrize("batch", [1, 2, 500])
async def test_a_large_event_comes_alone_and_in_its_place(make: Any, splits: str, batch: int) -> None:
    reading = await make(splits=splits, batch=batch)
    orders = reading.orders
    orders.insert_many([{"_id": 1}, {"_id": 2, "text": LARGE}, {"_id": 3}])
    orders.update_one({"_id": 2}, {"$set": {"n": 1}})
    orders.update_one({"_id": 2}, {"$set": {"n": 2}})
    orders.insert_many([{"_id": 4}, {"_id": 5}])
    events = await reading.read(7)
    assert said(events) == ["insert 1", "insert 2", "insert 3", "update 2", "update 2", "insert 4", "insert 5"]
    tokens = [event["_id"]["_data"] for event in events]
    assert tokens == sorted(set(tokens))
    for update in events[3:5]:
        if splits:
            assert len(update["fullDocument"]["text"]) == len(update["fullDocumentBeforeChange"]["text"]) == len(LARGE)
        else:
            assert "fullDocumentBeforeChange" not in update
            assert len(update["fullDocument"]["text"]) == len(LARGE)
        assert update["updateDescription"]["updatedFields"] in ({"n": 1}, {"n": 2})
    assert events[3]["updateDescription"]["updatedFields"] == {"n": 1}
    large = [batch for batch in reading.batches if batch.reduced]
    assert [batch.reduced for batch in large] == ([] if splits else [("fullDocumentBeforeChange",)] * 2)
    # Where it stands is an event's own position: the plain stream reads on after it.
    for at in (2, 3, 4):
        reading.batches.clear()
        await reading.source.open(tokens[at])
        assert said(await reading.read(6 - at)) == said(events)[at + 1 :]


@pytest.mark.parametrize("copied", [False, True])
async def test_no_more_is_left_out_than_need_be(make: Any, copied: bool) -> None:
    copy: tuple[dict[str, Any], ...] = ({"$set": {"copy": "$updateDescription.updatedFields.text"}},) if copied else ()
    reading = await make(pipeline=copy)
    size = 9_000_000 if copied else 15_000_000
    reading.orders.insert_one({"_id": 1, "old": LARGE if not copied else ""})
    reading.orders.update_one({"_id": 1}, {"$set": {"text": "y" * size}, "$unset": {"old": 1}})
    _, update = await reading.read(2)
    documents = ("fullDocument", "fullDocumentBeforeChange")
    left_out = (*documents, "updateDescription") if copied else documents
    assert [batch.reduced for batch in reading.batches if batch.reduced] == [left_out]
    assert not set(left_out) & set(update)
    assert ("updateDescription" in update) is not copied


@pytest.mark.parametrize("matching", [True, False])
async def test_the_watchers_own_pipeline_still_chooses(make: Any, splits: str, matching: bool) -> None:
    pipeline = ({"$match": {"fullDocument.wanted": matching}}, {"$set": {"more": "$fullDocument.wanted"}})
    reading = await make(splits=splits, pipeline=pipeline)
    reading.orders.insert_one({"_id": 1, "wanted": True, "text": LARGE})
    reading.orders.update_one({"_id": 1}, {"$set": {"n": 1}})
    reading.orders.insert_one({"_id": 2, "wanted": matching})
    expected = ["insert 1", "update 1", "insert 2"] if matching else ["insert 2"]
    events = await reading.read(len(expected))
    assert said(events) == expected
    assert all(event["more"] is matching for event in events)


async def test_what_is_large_even_without_its_documents_stops_with_what_to_do(make: Any) -> None:
    copies: dict[str, Any] = {f"copy{n}": "$fullDocument.text" for n in range(2)}
    reading = await make(pipeline=({"$set": copies},))
    reading.orders.insert_one({"_id": 1, "text": LARGE})
    with pytest.raises(EventTooLarge, match="in the pipeline"):
        await reading.read(1)


async def test_a_token_before_a_large_event_can_be_gone_on_from(make: Any, mongo_uri: str) -> None:
    reading = await make()
    reading.orders.insert_one({"_id": 1, "text": LARGE})
    (insert,) = await reading.read(1)
    reading.orders.update_one({"_id": 1}, {"$set": {"n": 1}})
    token = insert["_id"]["_data"]
    assert await reading.source.locate(Start("token", token)) == token
    await reading.source.open(token)
    assert said((await reading.read(2))[1:]) == ["update 1"]


async def test_after_options_changed_a_large_event_is_read_by_its_time(make: Any, splits: str) -> None:
    """The token's event is not in what the stream sees (280), and the next one is too large."""
    reading = await make(splits=splits)
    reading.orders.insert_one({"_id": 0, "text": LARGE})
    reading.orders.insert_one({"_id": 1})
    token = (await reading.read(2))[1]["_id"]["_data"]
    reading.orders.update_one({"_id": 0}, {"$set": {"n": 1}})
    reading.orders.update_one({"_id": 0}, {"$set": {"n": 2}})
    changed = await make(splits=splits, pipeline=({"$match": {"operationType": "update"}},))
    await changed.source.open(token)
    assert said(await changed.read(2)) == ["update 0", "update 0"]


async def test_each_large_event_of_a_transaction_is_put_together(make: Any, newer_mongo_uri: str) -> None:
    """They share time and key: their tokens alone tell them apart."""
    reading = await make(splits=newer_mongo_uri)
    reading.orders.insert_many([{"_id": 1, "text": LARGE}, {"_id": 2}])
    with reading.client.start_session() as session, session.start_transaction():
        for n in range(1, 4):
            reading.orders.update_one({"_id": 2}, {"$set": {"n": n}}, session=session)
            reading.orders.update_one({"_id": 1}, {"$set": {"n": n}}, session=session)
    events = await reading.read(8)
    assert said(events)[2:] == ["update 2", "update 1"] * 3
    large = [event for event in events[2:] if event["documentKey"]["_id"] == 1]
    assert [event["updateDescription"]["updatedFields"] for event in large] == [{"n": 1}, {"n": 2}, {"n": 3}]
    # In a transaction the image is of the document before the update itself.
    assert [event["fullDocumentBeforeChange"].get("n") for event in large] == [None, 1, 2]


def test_fragments_of_another_event_are_not_put_together() -> None:
    def document(**fields: Any) -> RawBSONDocument:
        return RawBSONDocument(bson.encode(fields))

    rest = bson.encode({"_id": {"_data": "82"}, "operationType": "update", "documentKey": {"_id": 1}})
    ours = document(_id={"_data": "8201"}, operationType="update", documentKey={"_id": 1})
    other = document(_id={"_data": "8201"}, operationType="update", documentKey={"_id": 2})
    assert put_together([other], rest) is None
    whole = put_together([ours, document(_id={"_data": "8202"}, fullDocument={"n": 1}, splitEvent={})], rest)
    assert bson.decode(whole or b"") == bson.decode(rest) | {"fullDocument": {"n": 1}}


# The whole service


async def test_a_large_event_is_published_reduced_and_says_so(mongo_uri: str, nats_url: str, unique: str) -> None:
    async with Live(mongo_uri, nats_url, unique) as live:
        update, event = await published(live)
        assert update.headers["Changewire-Reduced"] == "fullDocumentBeforeChange"
        assert "fullDocumentBeforeChange" not in event


async def test_a_large_event_is_published_whole_where_the_server_splits(
    newer_mongo_uri: str, nats_url: str, unique: str
) -> None:
    async with Live(newer_mongo_uri, nats_url, unique) as live:
        update, event = await published(live)
        assert "Changewire-Reduced" not in update.headers
        assert len(event["fullDocumentBeforeChange"]["text"]) == len(LARGE)
        assert event["updateDescription"]["updatedFields"] == {"n": 1}


async def published(live: Live) -> tuple[Any, dict[str, Any]]:
    """Have a large event among others published; its message and what that refers to."""
    await live.add(source=IMAGES)
    live.insert(1)
    live.orders.insert_one({"_id": 2, "text": LARGE})
    live.orders.update_one({"_id": 2}, {"$set": {"n": 1}})
    live.insert(3)
    messages = await live.seen("1", "2", "update 2", "3")
    assert [index for index, one in enumerate(messages) if "Changewire-Reduced" in one.headers] in ([2], [])
    update = messages[2]
    bucket, _, name = update.headers["Changewire-Object"].partition("/")
    found = await (await live.streams.client.jetstream().object_store(bucket)).get(name)
    event = json.loads(found.data or b"")
    assert len(event["fullDocument"]["text"]) == len(LARGE)
    await live.restart()
    await live.reaches("RUNNING")
    live.insert(4)
    await live.seen("1", "2", "update 2", "3", "4")
    return update, event


MOMENTS = ("before-publish", "after-publish", "before-read-back", "before-checkpoint")


@pytest.mark.parametrize("oversize", ["claim_check", "dead_letter"])
@pytest.mark.parametrize("moment", MOMENTS)
async def test_killed_around_a_large_event(
    mongo_uri: str, nats_url: str, tmp_path: Path, unique: str, moment: str, oversize: str
) -> None:
    async with staged(mongo_uri, nats_url, tmp_path, unique) as stage:
        kept = oversize == "claim_check"
        await kill_around_a_large_event(stage, moment, oversize, kept=2 if kept else 0, reduced=[21] if kept else [])


@pytest.mark.parametrize("moment", MOMENTS)
async def test_killed_around_a_large_event_that_the_server_splits(
    newer_mongo_uri: str, nats_url: str, tmp_path: Path, unique: str, moment: str
) -> None:
    async with staged(newer_mongo_uri, nats_url, tmp_path, unique) as stage:
        await kill_around_a_large_event(stage, moment, "claim_check", kept=2, reduced=[])


async def kill_around_a_large_event(stage: Stage, moment: str, oversize: str, *, kept: int, reduced: list[int]) -> None:
    """Kill the service around two large events: so many of them are published, those listed without images."""
    service = await stage.service().start()
    await until(lambda: stage.takes(service))
    described = stage.described(oversize=oversize)
    described["source"] |= IMAGES
    await service.call("POST", "/watchers", described, status=201)
    await service.until_state(stage.watcher, "RUNNING")
    await stage.write(10)
    await stage.until_length(10)
    service.kill()
    await stage.write(10)
    await large(stage)
    await stage.write(10)
    service.trap = Trap(moment)
    service.spawn()
    await service.trapped()
    await service.start()
    await stage.until_length(30 + kept)
    assert await service.terminate() == 0
    messages = await stage.messages()
    keys = [message.event["documentKey"]["_id"] for message in messages]
    assert len(messages) == 30 + kept
    assert [at for at, key in enumerate(keys) if key == "big"] == [20, 21][:kept]
    assert [message.change for message in messages if message.event["documentKey"]["_id"] != "big"] == stage.written
    assert [at for at, message in enumerate(messages) if "Changewire-Reduced" in message.headers] == reduced


async def large(stage: Stage) -> None:
    await stage.collection.insert_one({"_id": "big", "n": -1, "text": LARGE})
    await stage.collection.update_one({"_id": "big"}, {"$set": {"n": -2}})
