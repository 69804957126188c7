"""What exists on both servers is suggested, as far as the accounts may see it and a watcher may use it."""

from typing import Any

from pymongo import MongoClient

from tests.conftest import MakeMongo, MakeNats
from tests.live import Live, until

USERS = """
authorization { users: [
  {user: admin, password: admin},
  {user: narrow, password: narrow, permissions: {publish: {deny: ["$JS.API.STREAM.NAMES"]}}},
] }
no_auth_user: admin
"""


async def test_databases_collections_and_streams_that_exist_are_suggested_and_nothing_is_made(
    mongo_uri: str, nats_url: str, unique: str
) -> None:
    async with Live(mongo_uri, nats_url, unique) as live:
        live.insert(1)
        live.mongo[live.database].create_collection("seen", viewOn=live.collection, pipeline=[])
        live.mongo["resume-tokens"][live.collection].insert_one({"value": "x"})
        for stream in (live.stream, f"{live.stream}-DLQ", f"KV_{live.stream}"):
            await live.streams.create(stream)
        before = await live.facts()
        found = await live.get(f"/suggestions?database={live.database}")
        assert live.database in found["databases"]["names"]
        assert not {"admin", "config", "local", "resume-tokens", live.state_db} & {*found["databases"]["names"]}
        assert found["collections"] == {"names": [live.collection], "more": False, "why": None}
        assert [each for each in found["streams"]["names"] if live.stream in each] == [live.stream]
        absent = await live.get(f"/suggestions?database=absent_{unique}")
        assert absent["collections"] == {"names": [], "more": False, "why": None}
        assert await live.facts() == before


async def test_an_account_is_suggested_what_it_may_see_and_told_what_it_may_not(
    make_mongo: MakeMongo, make_nats: MakeNats, unique: str
) -> None:
    server, nats = await make_mongo(auth=("root", "toor")), await make_nats(config=USERS)
    with MongoClient[dict[str, Any]](server.uri) as client:
        for database, collection in (("shop", "orders"), ("shop", "secret"), ("hr", "people")):
            client[database][collection].insert_one({})
        one = {"resource": {"db": "shop", "collection": "orders"}, "actions": ["find", "changeStream"]}
        state = [{"role": "readWrite", "db": f"state_{unique}"}]
        client.admin.command("createRole", "one", privileges=[one], roles=state)
        client.admin.command("createUser", "some", pwd="some", roles=["one"])
    uri, url = server.uri.replace("root:toor", "some:some"), nats.url.replace("://", "://narrow:narrow@")
    async with Live(uri, url, unique, look_at=(server.uri, nats.url)) as live:
        found = await live.get("/suggestions?database=shop")
        assert found["databases"]["names"] == ["shop"]
        assert found["collections"]["names"] == ["orders"]
        assert found["streams"]["names"] == []
        assert "STREAM.NAMES" in found["streams"]["why"]
        refused = (await live.get("/suggestions?database=hr"))["collections"]
        assert refused["names"] == []
        assert "lacks a privilege" in refused["why"]


async def test_servers_that_are_away_are_said_and_the_answer_comes(
    make_mongo: MakeMongo, make_nats: MakeNats, unique: str
) -> None:
    mongo, nats = await make_mongo(), await make_nats()
    async with Live(mongo.uri, nats.url, unique) as live:
        live.insert(1)
        nats.kill()
        mongo.kill()

        async def said() -> bool:
            found = await live.get(f"/suggestions?database={live.database}")
            return all(found[kind]["names"] == [] and found[kind]["why"] for kind in found)

        await until(said)
        await nats.start()
        await mongo.start()
