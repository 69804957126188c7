"""What is changed in MongoDB is what arrives on the stream: every operation, every type, every size, every name.

The service is a process of its own, the servers are real, and nothing fails here; what happens when something does is
in the other `test_service_*.py`.
"""

import asyncio
import json
import random
import re
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

import pytest_asyncio
from bson import (
    Binary,
    Code,
    DBRef,
    Decimal128,
    Int64,
    MaxKey,
    MinKey,
    ObjectId,
    Regex,
    Timestamp,
    encode,
    json_util,
)
from pymongo import AsyncMongoClient

from tests.service import Change, Service, Stage, assert_same

TYPES = {
    "double": 1.5,
    "huge double": 1.7976931348623157e308,
    "negative zero": -0.0,
    "infinity": float("inf"),
    "minus infinity": float("-inf"),
    "string": "text",
    "astral string": "naïve 名前 🚀\x00\u2028",
    "empty string": "",
    "document": {"a": {"b": {"c": {}}}},
    "document with odd names": {"": 1, "a.b": 2, "c d": 3, "ключ": 4},
    "array": [1, [2, [3, []]], {"a": [None]}],
    "binary": Binary(b"\x00\xff", 0),
    "binary of a subtype": Binary(b"abc", 128),
    "uuid": Binary(uuid.UUID(int=7).bytes, 4),
    "object id": ObjectId("65a000000000000000000001"),
    "true": True,
    "false": False,
    "date": datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
    "date before 1970": datetime(1903, 2, 1, tzinfo=UTC),
    "null": None,
    "regex": Regex("^a.*b$", "im"),
    "code": Code("return 1"),
    "code with scope": Code("return x", {"x": 1}),
    "int32": -(2**31),
    "int64": Int64(2**63 - 1),
    "timestamp": Timestamp(1_700_000_000, 7),
    "decimal": Decimal128("-1.50E+10"),
    "decimal nan": Decimal128("NaN"),
    "min key": MinKey(),
    "max key": MaxKey(),
    "reference": DBRef("things", ObjectId("65a000000000000000000002"), "elsewhere"),
}
SIZES = (0, 1, 100_000, 1_000_000, 1_047_000, 1_048_576, 1_060_000, 2_500_000, 5_000_000, 3)
NAMES = ("dots.in.a.name", "with spaces", "größe 名前", "{braces}", "100%", "%41", "a*b>c", "back\\slash/slash")


@pytest_asyncio.fixture
async def service(stage: Stage) -> Service:
    return await stage.service().start()


async def test_every_insert_update_replace_and_delete_arrives_once_in_order(stage: Stage, service: Service) -> None:
    await stage.add(service)
    await stage.write(3000, at_once=100)
    await stage.check()


async def test_what_several_writers_change_at_once_arrives_in_the_order_of_the_oplog(
    stage: Stage, service: Service
) -> None:
    await stage.add(service)
    async with await stage.collection.watch() as history:
        clients = [AsyncMongoClient(stage.mongo_uri) for _ in range(4)]
        try:
            await _write_at_once([client[stage.database]["things"] for client in clients], 100)
        finally:
            for client in clients:
                await client.close()
        tokens = [(await anext(history))["_id"]["_data"] for _ in range(4 * 200)]
    await stage.until_length(len(tokens))
    assert [message.id for message in await stage.messages()] == tokens


async def _write_at_once(collections: list[Any], count: int) -> None:
    async def write(writer: int, collection: Any) -> None:
        for number in range(count):
            await collection.insert_one({"_id": f"{writer}-{number}", "n": number})
            await collection.update_one({"_id": f"{writer}-{number}"}, {"$set": {"n": -1}})

    await asyncio.gather(*(write(index, collection) for index, collection in enumerate(collections)))


async def test_a_transaction_arrives_whole_and_in_order_and_an_aborted_one_does_not(
    stage: Stage, service: Service
) -> None:
    await stage.add(service)
    things = stage.collection
    await things.insert_one({"_id": "before", "n": 0})
    async with stage.mongo.start_session() as session:
        async with await session.start_transaction():
            await things.insert_many([{"_id": n, "n": n} for n in range(1, 1501)], session=session)
            await things.update_one({"_id": 1}, {"$set": {"n": -1}}, session=session)
            await things.delete_one({"_id": 2}, session=session)
        async with await session.start_transaction():
            await things.insert_one({"_id": "aborted", "n": 0}, session=session)
            await session.abort_transaction()
    await things.insert_one({"_id": "after", "n": 0})
    stage.written = [
        Change("insert", "before", 0),
        *(Change("insert", n, n) for n in range(1, 1501)),
        Change("update", 1, -1),
        Change("delete", 2, None),
        Change("insert", "after", 0),
    ]
    messages = await stage.check()
    assert len({json.dumps([message.event["lsid"], message.event["txnNumber"]]) for message in messages[1:-1]}) == 1


async def test_a_transaction_over_two_collections_arrives_on_both_streams(stage: Stage, service: Service) -> None:
    await stage.add(service)
    other = stage.described()
    other["name"], other["source"]["collection"], other["checkpoint"]["collection"] = "others", "others", "others"
    other["sink"]["stream"] = f"{stage.stream}_2"
    await service.call("POST", "/watchers", other, status=201)
    await service.until_state("others", "RUNNING")
    database = stage.mongo[stage.database]
    for transaction in range(10):
        async with stage.mongo.start_session() as session, await session.start_transaction():
            for number in range(transaction * 5, transaction * 5 + 5):
                await database["things"].insert_one({"_id": number, "n": number}, session=session)
                await database["others"].insert_one({"_id": -number, "n": -number}, session=session)
    stage.written = [Change("insert", number, number) for number in range(50)]
    await stage.until_length(50, stream=f"{stage.stream}_2")
    await stage.check()
    arrived = [message.change for message in await stage.messages(f"{stage.stream}_2")]
    assert_same([Change("insert", -number, -number) for number in range(50)], arrived)


async def test_a_document_of_every_bson_type_arrives_as_it_is(stage: Stage, service: Service) -> None:
    await stage.add(service)
    for number, (name, value) in enumerate(TYPES.items()):
        await stage.collection.insert_one({"_id": name, "n": number, "value": value})
    await stage.collection.insert_one({"_id": "all", "n": -1, "value": TYPES})
    await stage.collection.insert_one({"_id": "nan", "n": -2, "value": float("nan")})
    stage.written = [Change("insert", name, number) for number, name in enumerate(TYPES)]
    stage.written += [Change("insert", "all", -1), Change("insert", "nan", -2)]
    *messages, nan = await stage.check()
    options = json_util.RELAXED_JSON_OPTIONS.with_options(tz_aware=True, tzinfo=UTC)
    for message, value in zip(messages, [*TYPES.values(), TYPES], strict=True):
        arrived = json_util.loads(message.body.decode(), json_options=options)
        expected = json_util.loads(json_util.dumps(value, json_options=options), json_options=options)
        # Compared as BSON too, in which 1 and 1.0 and True are three things, and -0.0 is not 0.0.
        assert encode({"": arrived["fullDocument"]["value"]}) == encode({"": expected}), message.change.id
    assert nan.event["fullDocument"]["value"] == {"$numberDouble": "NaN"}


async def test_documents_with_ids_of_any_type_arrive_in_order(stage: Stage, service: Service) -> None:
    await stage.add(service)
    ids = [{"a": 1, "b": [1, {"c": None}]}, Int64(2**60), b"\x00\x01", "…", 1.5, None, False, ObjectId(), MinKey()]
    for each in ids:
        await stage.collection.insert_one({"_id": each, "n": 0})
        await stage.collection.delete_one({"_id": each})
    await stage.until_length(2 * len(ids))
    arrived = [json_util.loads(message.body) for message in await stage.messages()]
    assert [event["operationType"] for event in arrived] == ["insert", "delete"] * len(ids)
    assert [encode(event["documentKey"]) for event in arrived] == [
        encode({"_id": each}) for each in ids for _ in range(2)
    ]


async def test_documents_from_nothing_to_five_megabytes_arrive_in_order(stage: Stage, service: Service) -> None:
    await stage.add(service)
    draw = random.Random(1)
    written: dict[int, str] = {}
    for number, size in enumerate(SIZES):
        written[number] = draw.randbytes(size // 2 + 1).hex()[:size]
        await stage.collection.insert_one({"_id": number, "n": number, "text": written[number]})
        await stage.collection.insert_one({"_id": -1 - number, "n": -1, "text": ""})  # small ones in between
    await stage.until_length(2 * len(SIZES))
    messages = await stage.messages()
    assert [message.event["documentKey"]["_id"] for message in messages] == [
        key for number in written for key in (number, -1 - number)
    ]
    jetstream = (await stage.nats()).jetstream()
    checked = []
    for message in messages:
        number, body = message.event["documentKey"]["_id"], message.body
        if "Changewire-Object" in message.headers:
            assert "fullDocument" not in message.event
            assert message.event["operationType"] == "insert"
            bucket, _, name = message.headers["Changewire-Object"].partition("/")
            assert name == message.id
            body = (await (await jetstream.object_store(bucket)).get(name)).data or b""
            checked.append(SIZES[number])
        event = json.loads(body)
        assert event["_id"]["_data"] == message.id
        assert event["fullDocument"]["text"] == ("" if number < 0 else written[number])
    # A message holds 1 MiB (NATS's default); what is below goes as it is.
    assert set(checked) >= {1_048_576, 1_060_000, 2_500_000, 5_000_000}
    assert not set(checked) & {0, 1, 3, 100_000, 1_000_000}


async def test_collections_of_any_name_are_watched_beside_each_other(stage: Stage, service: Service) -> None:
    suffix = stage.database.removeprefix("db_")
    names = [f"{name} {suffix}" for name in NAMES]
    streams = []
    for number, name in enumerate(names):
        watcher = {
            "name": f"w{number}",
            "source": {"database": stage.database, "collection": name},
            "sink": {"subject": "{stream}.{database}.{collection}.{operation}"},
            "checkpoint": {"database": f"tokens_{suffix}"},
        }
        answer = await service.call("POST", "/watchers", watcher, status=201)
        streams.append(answer.json()["sink"]["stream"])
        await service.until_state(f"w{number}", "RUNNING")
    database = stage.mongo[stage.database]
    for number in range(20):
        for name in names:
            await database[name].insert_one({"_id": number, "n": number, "from": name})
    for name, stream in zip(names, streams, strict=True):
        assert unquote(stream) == name.upper()
        await stage.until_length(20, stream=stream)
        messages = await stage.messages(stream)
        assert [message.event["fullDocument"]["n"] for message in messages] == list(range(20))
        assert {message.event["ns"]["coll"] for message in messages} == {name}
        (subject,) = {message.subject for message in messages}
        assert [unquote(part) for part in subject.split(".")] == [name.upper(), stage.database, name, "insert"]
        assert not re.search(r"\s", subject)
