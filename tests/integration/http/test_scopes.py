"""Watchers of a whole database and of the deployment, added over HTTP: what they read, and when they are refused."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio
from pymongo import MongoClient

from tests.conftest import MakeMongo
from tests.integration.cli.test_verify import changewire
from tests.live import Live, Message, until

STRANGE = ("a.b.c", "with space", "ünïcode 😀", "UPPER", "-", "a%b")


@pytest_asyncio.fixture
async def live(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as live:
        yield live


def source(live: Live, **parts: Any) -> dict[str, Any]:
    return {"name": "all", "source": {"database": live.database, **parts.pop("source", {})}, **parts}


async def add(live: Live, definition: dict[str, Any]) -> dict[str, Any]:
    await live.call("POST", "/watchers", 201, json=definition)
    return await live.reaches("RUNNING", definition["name"])


async def arrived(live: Live, stream: str, count: int) -> list[Message]:
    """The messages once there are so many, and no more."""

    async def enough() -> list[Message] | None:
        found = await live.streams.messages(stream)
        return found if len(found) >= count else None

    found: list[Message] = await until(enough)
    assert len(found) == count, [one.subject for one in found]
    return found


def names(messages: list[Message]) -> list[tuple[str, str]]:
    return [(one.body["operationType"], one.body["ns"].get("coll", "")) for one in messages]


async def compared(live: Live, name: str, cwd: Path) -> int:
    """How many changes `changewire verify` has compared, and found all right."""
    environ = {key: live.environ[key] for key in ("MONGO_URI", "NATS_URL", "CHANGEWIRE_STATE_DB")}
    done = await changewire("verify", name, "--json", environ=environ, cwd=cwd)
    assert done.code == 0, done.output + done.errors
    return int(done.report["compared"])


async def test_every_collection_of_a_database_is_read_also_those_that_are_created_later(live: Live) -> None:
    added = await add(live, source(live))
    assert added["source"]["collection"] is None
    stream = added["sink"]["stream"]
    assert (stream, added["sink"]["subject"]) == (live.database.upper(), "{stream}.{collection}.{operation}")
    assert added["status"]["reads"] == "own"
    shop = live.mongo[live.database]
    for name in STRANGE:
        shop[name].insert_one({"_id": name})
    assert names(await arrived(live, stream, len(STRANGE))) == [("insert", name) for name in STRANGE]
    await live.restart()
    await live.reaches("RUNNING", "all")
    shop["later"].insert_one({"_id": 1})
    shop[STRANGE[0]].drop()  # a drop is not among the operations, and ends nothing
    shop[STRANGE[0]].insert_one({"_id": 2})
    messages = await arrived(live, stream, len(STRANGE) + 2)
    assert names(messages)[-2:] == [("insert", "later"), ("insert", STRANGE[0])]
    assert messages[0].subject == f"{stream}.a%2Eb%2Ec.insert"


async def test_patterns_choose_collections_and_renames_by_either_name(live: Live, tmp_path: Path) -> None:
    await add(
        live,
        source(
            live,
            source={"include": ["orders_*"], "exclude": ["*_tmp"]},
            sink={"stream": live.stream, "operations": ["insert", "drop", "rename", "dropDatabase"]},
        ),
    )
    shop = live.mongo[live.database]
    shop["orders_1"].insert_one({"_id": 1})
    shop["users"].insert_one({"_id": 1})
    shop["orders_tmp"].insert_one({"_id": 1})
    shop["users"].rename("orders_2")  # into the patterns
    shop["orders_2"].insert_one({"_id": 2})
    shop["orders_1"].rename("orders_tmp", dropTarget=True)  # out of them
    shop["orders_tmp"].insert_one({"_id": 3})
    shop["orders_2"].drop()
    shop["orders_3"].insert_one({"_id": 3})
    wanted = [
        ("insert", "orders_1"),
        ("rename", "users"),
        ("insert", "orders_2"),
        ("rename", "orders_1"),
        ("drop", "orders_2"),
        ("insert", "orders_3"),
    ]
    assert names(await arrived(live, live.stream, len(wanted))) == wanted
    live.mongo.drop_database(live.database)
    shop["orders_4"].insert_one({"_id": 4})  # in the database that is created again
    messages = await arrived(live, live.stream, len(wanted) + 3)
    assert names(messages)[-3:] == [("drop", "orders_3"), ("dropDatabase", ""), ("insert", "orders_4")]
    assert [one.id for one in messages] == sorted({one.id for one in messages})
    assert await compared(live, "all", tmp_path) == len(messages)


async def test_other_patterns_hold_for_what_comes_after_the_position(live: Live) -> None:
    await add(live, source(live, source={"include": ["a_*"]}, sink={"stream": live.stream}))
    shop = live.mongo[live.database]
    shop["a_1"].insert_one({"_id": 1})
    await arrived(live, live.stream, 1)
    await live.pause("all")
    shop["a_2"].insert_one({"_id": 2})
    shop["b_1"].insert_one({"_id": 3})
    changed = source(live, source={"include": ["b_*"]}, sink={"stream": live.stream}, paused=False)
    await live.call("PUT", "/watchers/all", 200, json=changed)
    await live.reaches("RUNNING", "all")
    shop["a_1"].insert_one({"_id": 4})
    shop["b_2"].insert_one({"_id": 5})
    wanted = [("insert", "a_1"), ("insert", "b_1"), ("insert", "b_2")]
    assert names(await arrived(live, live.stream, 3)) == wanted


async def test_a_deployments_watcher_reads_the_databases_it_names_and_never_the_services_own(
    live: Live, tmp_path: Path
) -> None:
    first, second = f"{live.database}_a", f"{live.database}_b"
    definition = {"name": "all", "source": {"include": [f"{live.database}_?.*"]}, "sink": {"stream": live.stream}}
    added = await add(live, definition)
    assert added["source"]["database"] is None
    everything = {"name": "everything", "source": {}, "sink": {"stream": f"{live.stream}_ALL"}}
    await add(live, everything | {"checkpoint": {"collection": live.unique}})
    try:
        for database in (first, second, f"{live.database}_ab"):
            live.mongo[database]["orders"].insert_one({"_id": database})
        messages = await arrived(live, live.stream, 2)
        assert [one.subject for one in messages] == [
            f"{live.stream}.{database}.orders.insert" for database in (first, second)
        ]
        await live.call("PUT", "/watchers/all/pause", 202)  # writes to the state database
        await live.reaches("PAUSED", "all")
        live.mongo[first]["orders"].insert_one({"_id": "last"})

        async def last() -> list[Message] | None:
            found = await live.streams.messages(f"{live.stream}_ALL")
            return found if any(one.body["documentKey"]["_id"] == "last" for one in found) else None

        databases = {one.body["ns"]["db"] for one in await until(last)}
        assert {first, second} <= databases
        assert databases.isdisjoint({live.state_db, "resume-tokens", "config", "local", "admin"})
        assert await compared(live, "everything", tmp_path) >= 3
    finally:
        for database in (first, second, f"{live.database}_ab"):
            live.mongo.drop_database(database)


async def test_a_pattern_that_fits_nothing_yet_is_accepted_with_a_note_until_it_does(live: Live) -> None:
    live.mongo[live.database]["orders_1"].insert_one({"_id": 0})
    await add(live, source(live, source={"include": ["orders_*", "refunds_*"]}, sink={"stream": live.stream}))

    async def notes() -> list[str]:
        return [note for note in (await live.get("/watchers/all"))["status"]["notes"] if "no collection fits" in note]

    (note,) = await until(notes)
    assert "refunds_*" in note
    assert "orders_*" not in note
    live.mongo[live.database]["refunds_1"].insert_one({"_id": 1})
    await arrived(live, live.stream, 1)

    async def gone() -> bool:
        return not await notes()

    await until(gone)


async def test_what_can_never_be_is_refused_with_its_field_and_nothing_is_changed(live: Live) -> None:
    for parts, field in (
        ({"source": {"include": ["a", ""]}}, "source.include.1"),
        ({"source": {"exclude": ["*"]}}, "source.exclude"),
        ({"source": {"include": [5]}}, "source.include.0"),
        ({"source": {"collection": "a", "include": ["b"]}}, "source.include"),
        ({"source": {"collection": ""}}, "source.collection"),
        ({"source": {"full_document": "required"}}, "source.full_document"),
    ):
        answer = await live.call("POST", "/watchers", 422, json=source(live, **parts))
        assert [each["field"] for each in answer.json()["errors"]] == [field], answer.text
    assert await live.get("/watchers") == []


async def test_subjects_of_another_watcher_are_refused_by_its_name(live: Live) -> None:
    await live.add(sink={"subject": f"{live.database.upper()}.orders.{{operation}}", "stream": live.stream})
    said = await live.refused(409, "POST", "/watchers", json=source(live))
    assert "which watcher orders uses" in said
    await add(live, source(live, sink={"stream": f"{live.stream}_ALL"}))  # the same collection, onto another stream
    live.insert(1)
    await arrived(live, live.stream, 1)
    await arrived(live, f"{live.stream}_ALL", 1)


async def test_an_account_without_the_right_to_the_whole_is_refused_with_the_grant_that_is_missing(
    make_mongo: MakeMongo, nats_url: str, unique: str
) -> None:
    server = await make_mongo(auth=("root", "toor"))
    with MongoClient[dict[str, Any]](server.uri) as client:
        own = [{"role": "readWrite", "db": name} for name in (f"state_{unique}", "resume-tokens")]
        client.admin.command("createUser", "usual", pwd="usual", roles=[*own, {"role": "read", "db": f"db_{unique}"}])
        one = {"resource": {"db": f"db_{unique}", "collection": "orders"}, "actions": ["find", "changeStream"]}
        client.admin.command("createRole", "narrow", privileges=[one], roles=own)
        client.admin.command("createUser", "narrow", pwd="narrow", roles=["narrow"])
    for user, definition, grant in (
        ("usual", {"name": "all", "source": {}}, 'every collection of the deployment, {db: "", collection: ""}'),
        ("narrow", {"name": "all", "source": {"database": f"db_{unique}"}}, f'{{db: "db_{unique}", collection: ""}}'),
    ):
        uri = f"mongodb://{user}:{user}@127.0.0.1:{server.port}/?replicaSet=rs0&authSource=admin"
        async with Live(uri, nats_url, unique, look_at=(server.uri, nats_url)) as live:
            answer = await live.call("POST", "/watchers", 422, json=definition)
            assert grant in answer.json()["detail"]
            assert await live.get("/watchers") == []
