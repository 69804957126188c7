"""Several entries of `connector.yaml` with one stream: taken over from the Go connector, and given back to it.

`Entry` does what that program does with one entry, beside others that may be further on or behind.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bson import ObjectId, json_util
from pymongo import DESCENDING

from tests.integration.connector.test_takeover import PUBLISHED, as_nats_go_asks, entry, write_config
from tests.live import Live, until
from tests.service import Service


class Entry:
    """One entry of the Go connector."""

    def __init__(
        self,
        live: Live,
        collection: str,
        *,
        database: str | None = None,
        capped: bool = False,
        place: str | None = None,
    ) -> None:
        self.live = live
        self.name = collection
        self.database = database or live.database
        self.capped = capped
        self.stream = f"ALL_{live.unique}"
        self.place = place or collection
        self.tokens = live.mongo["resume-tokens"][self.place]
        self.collection = live.mongo[self.database][collection]

    @property
    def in_file(self) -> dict[str, Any]:
        capped = {"tokensCollCapped": True, "tokensCollSizeInBytes": 4096} if self.capped else {}
        more = {"tokensCollName": self.place} if self.place != self.name else {}
        return {"dbName": self.database, "collName": self.name, "streamName": self.stream, **capped, **more}

    def insert(self, *keys: int | str) -> None:
        for key in keys:
            self.collection.insert_one({"_id": key})

    def newest(self) -> str | None:
        found = self.tokens.find_one(sort=[("$natural" if self.capped else "_id", DESCENDING)])
        return None if found is None else str(found["value"])

    def unpublished(self) -> list[Any]:
        """The keys of the changes that come after the stored token, in the collection's own change stream."""
        token = self.newest()
        assert token is not None, f"{self.place} has no token"
        keys: list[Any] = []
        with self.collection.watch(resume_after={"_data": token}, max_await_time_ms=100) as changes:
            quiet = 0
            while quiet < 3:
                event = changes.try_next()
                quiet = quiet + 1 if event is None else 0
                if event is not None and event["operationType"] in PUBLISHED:
                    keys.append(event["documentKey"]["_id"])
        return keys

    async def begin(self) -> None:
        """What is made once."""
        if self.name not in self.live.mongo[self.database].list_collection_names():
            self.live.mongo[self.database].create_collection(self.name)
        if self.place not in self.live.mongo["resume-tokens"].list_collection_names():
            options: dict[str, Any] = {"capped": True, "size": 4096} if self.capped else {}
            self.live.mongo["resume-tokens"].create_collection(self.place, **options)
        answer = await self.live.streams.api(f"STREAM.CREATE.{self.stream}", as_nats_go_asks(self.stream))
        assert "error" not in answer, f"the connector ends here: {answer['error']}"

    async def publish(self, count: int, *, die_before_token: bool = False) -> None:
        """Publish so many changes after the stored token, or from the oplog's first one; with the last one's token not
        stored where the program dies then."""
        token = self.newest()
        after: dict[str, Any] = {"resume_after": {"_data": token}} if token else {"start_at_operation_time": self.first}
        with self.collection.watch(
            full_document="updateLookup", full_document_before_change="whenAvailable", max_await_time_ms=500, **after
        ) as changes:
            for left in range(count, 0, -1):
                event = changes.next()
                ack = await self.live.streams.client.jetstream().publish(
                    f"{self.stream}.{event['operationType']}",
                    json_util.dumps(event, json_options=json_util.RELAXED_JSON_OPTIONS).encode(),
                    headers={"Nats-Msg-Id": event["_id"]["_data"]},
                )
                assert not ack.duplicate, "the connector would have published this twice after two minutes"
                if left > 1 or not die_before_token:
                    self.tokens.insert_one({"_id": ObjectId(), "value": event["_id"]["_data"]})

    @property
    def first(self) -> Any:
        return self.live.mongo.admin.command("ping")["operationTime"] if self._since is None else self._since

    _since: Any = None

    def starts_now(self) -> None:
        """The connector has opened this entry's change stream."""
        self._since = self.live.mongo.admin.command("ping")["operationTime"]


@pytest_asyncio.fixture
async def live(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    """The service without a file; a test gives it one by `live.restart(config)`."""
    async with Live(mongo_uri, nats_url, unique) as service:
        yield service


async def begun(*entries: Entry) -> None:
    for each in entries:
        await each.begin()
    for each in entries:
        each.starts_now()


def killable(called: str, live: Live, config: Path) -> Service:
    return Service(called, config.parent, os.environ | live.environ | {"CONFIG_FILE": str(config)})


async def seen(entries: list[Entry], expected: dict[str, list[Any]], *, running: Service | None = None) -> None:
    """Wait until the stream has each collection's changes, by the keys of inserts; each once, in their order."""
    live, stream = entries[0].live, entries[0].stream
    found: dict[str, list[Any]] = {}

    async def enough() -> bool:
        found.clear()
        for message in await live.messages(stream):
            event = message.body
            found.setdefault(f"{event['ns']['db']}.{event['ns']['coll']}", []).append(event["documentKey"]["_id"])
        return sum(map(len, found.values())) >= sum(map(len, expected.values()))

    try:
        await until(enough)
    except AssertionError:
        told = running.log_tail() if running else {each["name"]: each["status"] for each in await live.get("/watchers")}
        raise AssertionError(f"{found} in place of {expected}: {told}") from None
    assert found == {name: keys for name, keys in expected.items() if keys}
    ids = [message.id for message in await live.messages(stream)]
    assert len(ids) == len(set(ids))


def name(one: Entry) -> str:
    return f"{one.database}.{one.name}"


@pytest.mark.parametrize("capped", [False, True])
async def test_entries_that_are_not_equally_far_are_taken_over_and_given_back_each_change_once(
    live: Live, tmp_path: Path, capped: bool
) -> None:
    a, b, quiet = (Entry(live, f"{each}_{live.unique}", capped=capped) for each in "abq")
    entries = [a, b, quiet]
    config = write_config(tmp_path / "c.yaml", live, *(each.in_file for each in entries))
    await live.stop()
    await begun(*entries)
    quiet.insert("old")
    for number in range(6):
        a.insert(number)
        b.insert(number)
    await quiet.publish(1)
    await b.publish(6)  # all of them
    await a.publish(2)  # and of this one only the first two, after those on the stream
    await live.start(config)
    await live.reaches("RUNNING", a.stream)
    expected = {name(a): [*range(6)], name(b): [*range(6)], name(quiet): ["old"]}
    await seen(entries, expected)
    a.insert("here")
    b.insert("here")
    expected[name(a)].append("here")
    expected[name(b)].append("here")
    await seen(entries, expected)
    assert all(message.id == message.token for message in await live.messages(a.stream))
    token = await live.get(f"/watchers/{a.stream}/token")
    assert token["epoch"] == 0
    await live.stop()
    for each in entries:
        each.insert("gone")
        assert each.unpublished() == ["gone"]
        expected[name(each)].append("gone")
    # Back: the connector is interrupted when it has got to one entry, and the service comes again.
    await b.publish(1, die_before_token=True)
    await quiet.publish(1)
    await live.start(config)
    await seen(entries, expected)
    await live.stop()
    assert [each.unpublished() for each in entries] == [[], [], []]


async def test_a_takeover_that_is_killed_again_and_again_loses_and_doubles_nothing(live: Live, tmp_path: Path) -> None:
    entries = [Entry(live, f"{each}_{live.unique}") for each in "abcd"]
    config = write_config(tmp_path / "c.yaml", live, *(each.in_file for each in entries))
    chance = random.Random(14)
    await live.stop()
    await begun(*entries)
    keys = list(range(400))
    for key in keys:
        chance.choice(entries[:3]).insert(key)
    have = {name(each): [one["_id"] for one in each.collection.find().sort("$natural", 1)] for each in entries}
    for each in entries[:3]:
        await each.publish(chance.randrange(1, len(have[name(each)])), die_before_token=chance.random() < 0.5)
    service = killable("killed", live, config)
    for _ in range(4):
        before = len(await live.messages(entries[0].stream))
        await service.start()
        for _ in range(20):
            each, key = chance.choice(entries[:3]), len(keys)
            keys.append(key)
            each.insert(key)
            have[name(each)].append(key)

        async def goes_on(before: int = before) -> bool:
            return len(await live.messages(entries[0].stream)) > before

        await until(goes_on)
        service.kill()
    await live.start(config)
    await seen(entries, have)
    await live.stop()
    for each in entries[:3]:
        assert each.unpublished() == []


async def test_entries_of_two_databases_with_one_name_and_one_place_are_one_watcher(live: Live, tmp_path: Path) -> None:
    other = f"zz_{live.unique}"
    a, b = Entry(live, live.collection), Entry(live, live.collection, database=other)
    config = write_config(tmp_path / "c.yaml", live, entry(live), entry(live, dbName=other))
    for each in (a, b):
        each.stream = live.stream
    await live.restart(config)
    await live.reaches("RUNNING", live.stream)
    (stored,) = live.stored()
    assert stored["watcher"]["source"]["include"] == [name(a), name(b)]
    a.insert(1)
    b.insert(1, 2)
    live.mongo[other]["unwatched"].insert_one({})
    expected = {name(a): [1], name(b): [1, 2]}
    await seen([a, b], expected)
    await live.stop()
    a.insert(3)
    assert a.unpublished()[-1] == 3
    await live.start(config)
    expected[name(a)].append(3)
    await seen([a, b], expected)


async def test_entries_come_and_go_in_the_file_and_positions_follow(live: Live, tmp_path: Path) -> None:
    a, b, c = entries = [Entry(live, f"{each}_{live.unique}") for each in "abc"]

    def config(*those: Entry) -> Path:
        return write_config(tmp_path / "c.yaml", live, *(each.in_file for each in those))

    expected: dict[str, list[Any]] = {name(each): [] for each in entries}

    def insert(key: Any, *those: Entry) -> None:
        for each in those:
            each.insert(key)
            expected[name(each)].append(key)

    # Alone at first, called by its collection.
    await live.restart(config(a))
    await live.reaches("RUNNING", name(a))
    insert(1, a)
    await seen(entries, expected)
    await live.stop()
    # A second one, which begins when it comes into the file; the first one goes on from where it was.
    insert("away", a)
    b.insert("before")
    await live.start(config(a, b))
    await live.reaches("RUNNING", a.stream)
    assert [each["name"] for each in await live.get("/watchers")] == [a.stream]
    insert(2, a, b)
    await seen(entries, expected)
    await live.stop()
    # A third one, which has a token of the connector's; and the first one leaves.
    insert("gone", b, c)
    c.tokens.insert_one({"value": b.newest()})
    await live.start(config(b, c))
    insert(3, b, c)
    await seen(entries, expected)
    await live.stop()
    # One alone again, and the one that left.
    insert("alone", a, c)
    await live.start(write_config(tmp_path / "c.yaml", live, c.in_file, a.in_file | {"streamName": f"A_{live.unique}"}))
    await live.reaches("RUNNING", name(c))
    insert(4, c)
    expected[name(a)].pop()
    await seen(entries, expected)
    await live.seen("alone", stream=f"A_{live.unique}")


async def test_an_entry_comes_from_a_stream_of_its_own_and_goes_on_from_where_it_was(
    live: Live, tmp_path: Path
) -> None:
    a, b = entries = [Entry(live, f"{each}_{live.unique}") for each in "ab"]
    alone = [each.in_file | {"streamName": each.name.upper()} for each in entries]
    await live.restart(write_config(tmp_path / "c.yaml", live, *alone))
    for each in entries:
        await live.reaches("RUNNING", name(each))
        each.insert(1)
        await live.seen("1", stream=each.name.upper())
    await live.stop()
    a.insert(2)
    b.insert(2)
    await live.start(write_config(tmp_path / "c.yaml", live, *(each.in_file for each in entries)))
    await seen(entries, {name(a): [2], name(b): [2]})


async def test_the_position_of_several_entries_is_moved_for_all_of_them(live: Live, tmp_path: Path) -> None:
    a, b = entries = [Entry(live, f"{each}_{live.unique}") for each in "ab"]
    config = write_config(tmp_path / "c.yaml", live, *(each.in_file for each in entries))
    await live.restart(config)
    await live.reaches("RUNNING", a.stream)
    a.insert(1)
    b.insert(2)
    a.insert(3)
    await seen(entries, {name(a): [1, 3], name(b): [2]})
    first = (await live.messages(a.stream))[0]
    await live.pause(a.stream)
    await live.call("PUT", f"/watchers/{a.stream}/token", 200, json={"token": first.token})
    await live.resume(a.stream)
    await seen(entries, {name(a): [1, 3, 3], name(b): [2, 2]})
    assert [one.id.partition(":")[2] for one in await live.messages(a.stream)] == ["", "", "", "1", "1"]
    await live.stop()
    a.insert(4)
    await live.start(config)
    await seen(entries, {name(a): [1, 3, 3, 4], name(b): [2, 2]})


async def test_two_instances_take_over_at_once(live: Live, tmp_path: Path) -> None:
    a, b = entries = [Entry(live, f"{each}_{live.unique}") for each in "ab"]
    config = write_config(tmp_path / "c.yaml", live, *(each.in_file for each in entries))
    await live.stop()
    await begun(*entries)
    for number in range(300):
        a.insert(number)
        b.insert(number)
    await b.publish(200)
    await a.publish(3)
    services = [killable(f"instance {number}", live, config) for number in range(2)]
    try:
        await asyncio.gather(*(service.start() for service in services))
        await seen(entries, {name(a): [*range(300)], name(b): [*range(300)]}, running=services[0])
        services[0].kill()
        a.insert("later")
        await seen(entries, {name(a): [*range(300), "later"], name(b): [*range(300)]}, running=services[1])
    finally:
        for service in services:
            await service.close()
