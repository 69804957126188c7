"""Servers and accounts that are not as they should be: what the service says, what it falls back to, what it keeps."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pymongo import MongoClient

from app.devservers.servers import MongoServer
from tests.conftest import MakeMongo, MakeNats
from tests.live import Live, until

SECRET = "pl4nted-s3cret"
TWO_ACCOUNTS = """
accounts {
  TEST: { jetstream: enabled, users: [
    {user: admin, password: admin},
    {user: service, password: "%s", permissions: {publish: {deny: [%s]}}},
  ] }
  SYS: { users: [{user: sys, password: sys}] }
}
system_account: SYS
no_auth_user: admin
"""


def said_secret(live: Live) -> list[str]:
    """Every answer and log line that holds the planted secret."""
    return [text[:300] for text in (*live.said, *live.log.getvalue().splitlines()) if SECRET in text]


async def reason(live: Live, *words: str) -> str:
    """Wait until /readyz names one of the words, and return what it says."""

    said = ""

    async def named() -> bool:
        nonlocal said
        said = (await live.call("GET", "/readyz")).json().get("reason") or ""
        return any(word in said for word in words)

    try:
        await until(named)
    except AssertionError:
        raise AssertionError(f"{said!r} in place of {words}") from None
    return said


async def look_around(live: Live) -> None:
    """Call everything that could repeat what a server or a setting says."""
    await live.call("POST", "/watchers", json=live.definition())
    await live.call("POST", "/watchers?dry_run=true", json=live.definition())
    await live.call("PUT", "/watchers/orders", json=live.definition())
    for path in ("/watchers", "/watchers/orders/token", "/lag", "/healthz", "/livez", "/readyz", "/metrics"):
        await live.call("GET", path)


async def test_a_standalone_mongod_is_down_saying_that_a_replica_set_is_needed(
    make_mongo: MakeMongo, nats_url: str, unique: str
) -> None:
    standalone = await make_mongo(replica_set=None)
    async with Live(standalone.uri, nats_url, unique, ready=False) as live:
        before = await live.facts()
        assert "--replSet" in await reason(live, "replica set")
        component = (await live.call("GET", "/healthz", 503)).json()["components"]["mongo"]
        assert component["status"] == "DOWN"
        assert "replica set" in component["reason"]
        assert "replica set" in await live.refused(503, "POST", "/watchers", json=live.definition())
        assert "replica set" in await live.refused(503, "PUT", "/watchers/orders", json=live.definition())
        assert await live.facts() == before


async def test_a_mongod_that_is_standalone_for_a_while_is_used_again_once_it_is_a_member(
    make_mongo: MakeMongo, nats_url: str, unique: str
) -> None:
    """As in maintenance: the driver gives up a server that is no member, and would never ask it again."""
    mongo = await make_mongo()
    async with Live(mongo.uri, nats_url, unique) as live:
        await live.add()
        live.insert(1)
        await live.seen("1")
        await mongo.stop()
        mongo.replica_set = None
        await mongo.start()
        assert "standalone" in await reason(live, "standalone")
        assert "standalone" in (await live.call("GET", "/healthz", 503)).text
        await mongo.stop()
        mongo.replica_set = "rs0"
        await mongo.start()
        await until(live.is_ready)
        with MongoClient[dict[str, Any]](mongo.uri) as client:
            client[live.database][live.collection].insert_one({"_id": 2})
        await live.seen("1", "2")
        await live.reaches("RUNNING")


async def test_nats_without_jetstream_is_said_by_readyz_and_by_the_refusal(
    mongo_uri: str, make_nats: MakeNats, unique: str
) -> None:
    plain = await make_nats(jetstream=False)
    look_at = (mongo_uri, (await make_nats()).url)
    async with Live(mongo_uri, plain.url, unique, look_at=look_at, ready=False) as live:
        assert "JetStream" in await reason(live, "JetStream")
        assert "JetStream" in await live.refused(503, "POST", "/watchers", json=live.definition())
        assert live.stored() == []
        lines = [json.loads(line) for line in live.log.getvalue().splitlines()]
        said = [line for line in lines if line.get("component") == "NATS"]
        assert [line["level"] for line in said] == ["warning"], "once, and from the start"
        assert "JetStream is not enabled" in said[0]["reason"]


@pytest.mark.parametrize("uri", ["mongodb://service:{}@{}", "mongodb://{}:wrong@{}", "mongodb://{}"])
async def test_wrong_or_no_credentials_for_mongodb_are_said_without_the_secret(
    make_mongo: MakeMongo, nats_url: str, unique: str, uri: str
) -> None:
    server = await make_mongo(auth=("root", "toor"))
    address = f"127.0.0.1:{server.port}/?replicaSet=rs0"
    wrong = uri.format(SECRET, address) if uri.count("{}") == 2 else uri.format(address)
    async with Live(wrong, nats_url, unique, look_at=(server.uri, nats_url), ready=False, LOG_LEVEL="debug") as live:
        said = await reason(live, "uth")
        assert "authenti" in said.lower() or "authoris" in said.lower() or "authoriz" in said.lower(), said
        await look_around(live)
        assert live.stored() == []
    assert said_secret(live) == []
    assert "Traceback" not in live.log.getvalue()


@pytest.mark.parametrize("how", ["url", "settings"])
async def test_wrong_credentials_for_nats_are_said_without_the_secret(
    mongo_uri: str, make_nats: MakeNats, unique: str, how: str
) -> None:
    server = await make_nats(config=TWO_ACCOUNTS % ("right", ""))
    url = server.url.replace("//", f"//service:{SECRET}@") if how == "url" else server.url
    settings: dict[str, Any] = (
        {} if how == "url" else {"CHANGEWIRE_NATS_USER": "service", "CHANGEWIRE_NATS_PASSWORD": SECRET}
    )
    look_at = (mongo_uri, server.url)
    async with Live(mongo_uri, url, unique, look_at=look_at, ready=False, LOG_LEVEL="debug", **settings) as live:
        assert "credentials" in await reason(live, "credentials")
        assert "credentials" in await live.refused(503, "POST", "/watchers", json=live.definition())
        await look_around(live)
        assert live.stored() == []
    assert said_secret(live) == []
    assert "Traceback" not in live.log.getvalue()


async def test_a_mongodb_account_without_rights_is_refused_at_creation_and_nothing_is_stored(
    make_mongo: MakeMongo, nats_url: str, unique: str
) -> None:
    server = await make_mongo(auth=("root", "toor"))
    with MongoClient(server.uri) as client:
        roles = [{"role": "readWrite", "db": f"state_{unique}"}]
        client.admin.command("createUser", "little", pwd=SECRET, roles=roles)
    uri = f"mongodb://little:{SECRET}@127.0.0.1:{server.port}/?replicaSet=rs0&authSource=admin"
    async with Live(uri, nats_url, unique, look_at=(server.uri, nats_url)) as live:
        before = await live.facts()
        detail = (await live.call("POST", "/watchers", json=live.definition())).json()
        assert detail["status"] in (409, 422), detail
        assert "grant" in detail["detail"]
        assert live.database in detail["detail"]
        assert await live.facts() == before
    assert said_secret(live) == []


class TestAuthority:
    """Who may change something, over real HTTP."""

    CHANGES = (
        ("POST", "/watchers"), ("PUT", "/watchers/orders"), ("DELETE", "/watchers/orders"),
        ("PUT", "/watchers/orders/pause"), ("PUT", "/watchers/orders/resume"), ("POST", "/watchers/orders/restart"),
        ("PUT", "/watchers/orders/token"), ("DELETE", "/watchers/orders/token"), ("POST", "/watchers?dry_run=true"),
    )  # fmt: skip
    READS = (
        "/watchers", "/watchers/orders", "/watchers/orders/status", "/watchers/orders/health", "/watchers/orders/lag",
        "/watchers/orders/token", "/lag", "/healthz", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs",
    )  # fmt: skip

    @pytest_asyncio.fixture
    async def guarded(self, mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
        async with Live(mongo_uri, nats_url, unique, CHANGEWIRE_API_TOKEN=SECRET) as live:
            await live.add()
            yield live

    async def test_with_a_token_set_changes_need_it_and_reads_do_not(self, guarded: Live) -> None:
        before = await guarded.facts()
        async with httpx.AsyncClient(base_url=guarded.url, trust_env=False) as stranger:
            for method, path in self.CHANGES:
                for authorization in (None, "", SECRET, f"Bearer {SECRET}x", "Bearer", f"Basic {SECRET}"):
                    headers = {} if authorization is None else {"Authorization": authorization}
                    answer = await stranger.request(method, path, headers=headers, json=guarded.definition())
                    assert answer.status_code == 401, f"{method} {path} {authorization}: {answer.text}"
                    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
                    assert answer.headers["Content-Type"] == "application/problem+json"
                    assert SECRET not in answer.text
            for path in self.READS:
                assert (await stranger.get(path)).status_code == 200, path
        after = await guarded.facts()
        assert (after["watchers"], after["streams"]) == (before["watchers"], before["streams"])
        await guarded.pause()
        await guarded.call("DELETE", "/watchers/orders", 204, headers={"Authorization": f"bearer {SECRET}"})

    async def test_a_refusal_for_want_of_a_token_comes_before_the_body_is_looked_at(self, guarded: Live) -> None:
        async with httpx.AsyncClient(base_url=guarded.url, trust_env=False) as stranger:
            assert (await stranger.post("/watchers", content=b"{")).status_code == 401

    async def test_without_a_token_only_this_machine_itself_may_change_or_read(
        self, mongo_uri: str, nats_url: str, unique: str
    ) -> None:
        async with Live(mongo_uri, nats_url, unique) as live:
            port = live.url.rpartition(":")[2]
            for headers in ({"Host": "evil.example"}, {"Host": "127.0.0.1:1"}, {"Origin": "https://evil.example"}):
                await live.refused(403, "POST", "/watchers", json=live.definition(), headers=headers)
                await live.refused(403, "GET", "/watchers", headers=headers)
            assert live.stored() == []
            own = {"Host": f"localhost:{port}", "Origin": f"http://localhost:{port}"}
            await live.call("POST", "/watchers", 201, json=live.definition(), headers=own)

    async def test_bound_to_every_address_nothing_may_be_changed_unless_anonymous_is_allowed(
        self, mongo_uri: str, nats_url: str, unique: str
    ) -> None:
        async with Live(mongo_uri, nats_url, unique, SERVER_ADDR="0.0.0.0:0") as live:
            detail = await live.refused(403, "POST", "/watchers", json=live.definition())
            assert "CHANGEWIRE_API_TOKEN" in detail
            await live.call("GET", "/watchers", 200)
            await live.restart(CHANGEWIRE_ALLOW_ANONYMOUS="true")
            await live.call("POST", "/watchers", 201, json=live.definition())
            await live.restart(CHANGEWIRE_API_TOKEN=SECRET, CHANGEWIRE_ALLOW_ANONYMOUS="false")
            await live.call("PUT", "/watchers/orders/pause", 202)


class TestFallbacks:
    """Ways of publishing that are chosen by themselves, and said."""

    async def test_an_account_that_may_not_update_the_stream_publishes_in_a_window(
        self, mongo_uri: str, make_nats: MakeNats, unique: str
    ) -> None:
        server = await make_nats(config=TWO_ACCOUNTS % ("service", '"$JS.API.STREAM.UPDATE.>"'))
        settings: dict[str, Any] = {"CHANGEWIRE_NATS_USER": "service", "CHANGEWIRE_NATS_PASSWORD": "service"}
        async with Live(mongo_uri, server.url, unique, **settings) as live:
            await live.streams.create(live.stream)
            await live.add()
            keys = list(range(400))
            live.orders.insert_many([{"_id": key} for key in keys])
            live.orders.delete_one({"_id": 0})
            await live.seen(*map(str, keys), "delete 0")
            status = await live.get("/watchers/orders/status")
            assert (status["publish_mode"], status["fence"]) == ("window", "stream")
            assert "window" in status["notes"][0]
            assert f"$JS.API.STREAM.UPDATE.{live.stream}" in status["notes"][0]
            config = await live.streams.config(live.stream)
            assert config is not None
            assert not config.get("allow_atomic")
            await live.restart()
            await live.reaches("RUNNING")
            live.insert("end")
            await live.seen(*map(str, keys), "delete 0", "end")

    async def test_two_watchers_share_a_stream_each_fenced_by_its_subjects(
        self, mongo_uri: str, nats_url: str, unique: str
    ) -> None:
        async with Live(mongo_uri, nats_url, unique) as live:
            await live.streams.create(live.stream, subjects=[f"{live.stream}.>"])
            for name in ("a", "b"):
                place = {"collection": f"{name}_{unique}"}
                sink = {"stream": live.stream, "subject": "{stream}.{collection}.{operation}"}
                await live.add(name, source=place, checkpoint=place, sink=sink)
            database = live.mongo[live.database]
            for number in range(20):
                for name in ("a", "b"):
                    database[f"{name}_{unique}"].insert_many([{"_id": f"{name}{number}.{each}"} for each in range(10)])

            async def enough() -> bool:
                return len(await live.messages()) >= 400

            await until(enough)
            found = await live.messages()
            for name in ("a", "b"):
                own = [one.short for one in found if one.subject == f"{live.stream}.{name}_{unique}.insert"]
                assert own == [f"insert {name}{number}.{each}" for number in range(20) for each in range(10)]
                status = await live.get(f"/watchers/{name}/status")
                assert (status["publish_mode"], status["fence"]) == ("atomic", "subject")
                assert "a stream of its own" in status["notes"][0]
            assert len(found) == 400

    async def test_a_stream_that_becomes_a_shared_one_is_published_to_by_another_mode_while_the_watcher_runs(
        self, mongo_uri: str, nats_url: str, unique: str
    ) -> None:
        async with Live(mongo_uri, nats_url, unique) as live:
            await live.add()
            live.insert(1)
            await live.seen("1")
            status = await live.get("/watchers/orders/status")
            assert (status["publish_mode"], status["fence"], status["notes"]) == ("fast_ingest", "stream", [])
            config = await live.streams.config(live.stream)
            assert config is not None
            other = f"others.{live.stream}"
            await live.streams.api(f"STREAM.UPDATE.{live.stream}", config | {"subjects": [f"{live.stream}.*", other]})
            await live.streams.client.jetstream().publish(other, b"{}")
            live.insert(*range(2, 40))

            async def own() -> list[str]:
                return [one.short for one in await live.messages() if one.subject != other]

            async def all_there() -> bool:
                return len(await own()) >= 39

            await until(all_there)
            assert await own() == [f"insert {key}" for key in range(1, 40)]
            status = await live.get("/watchers/orders/status")
            assert (status["publish_mode"], status["fence"]) == ("atomic", "subject")
            assert other in status["notes"][0]

    async def test_a_shared_stream_that_may_not_be_updated_gets_single_messages(
        self, mongo_uri: str, make_nats: MakeNats, unique: str
    ) -> None:
        server = await make_nats(config=TWO_ACCOUNTS % ("service", '"$JS.API.STREAM.UPDATE.>"'))
        settings: dict[str, Any] = {"CHANGEWIRE_NATS_USER": "service", "CHANGEWIRE_NATS_PASSWORD": "service"}
        async with Live(mongo_uri, server.url, unique, **settings) as live:
            await live.streams.create(live.stream, subjects=[f"{live.stream}.>"])
            await live.add()
            live.orders.insert_many([{"_id": key} for key in range(50)])
            await live.streams.client.jetstream().publish(f"{live.stream}.of.others", b"{}")
            await live.streams.client.jetstream().publish(f"{live.stream}.of.others", b"{}")

            async def own() -> list[str]:
                return [one.short for one in await live.messages() if one.subject == f"{live.stream}.insert"]

            async def all_there() -> bool:
                return len(await own()) >= 50

            await until(all_there)
            assert await own() == [f"insert {key}" for key in range(50)]
            status = await live.get("/watchers/orders/status")
            assert (status["publish_mode"], status["fence"]) == ("single", "subject")
            assert "one at a time" in status["notes"][0]


async def test_an_account_that_may_not_read_the_oplog_has_no_headroom_and_is_told_why(
    make_mongo: MakeMongo, nats_url: str, unique: str
) -> None:
    server: MongoServer = await make_mongo(auth=("root", "toor"))
    with MongoClient(server.uri) as client:
        roles = [{"role": "readWrite", "db": name} for name in (f"db_{unique}", f"state_{unique}", "resume-tokens")]
        client.admin.command("createUser", "usual", pwd="usual", roles=roles)
    uri = f"mongodb://usual:usual@127.0.0.1:{server.port}/?replicaSet=rs0&authSource=admin"
    async with Live(uri, nats_url, unique, look_at=(server.uri, nats_url)) as live:
        await live.add()
        live.insert(1)
        await live.seen("1")
        lag = await live.get("/watchers/orders/lag")
        assert lag["oplog_headroom_seconds"] is None
        assert "local" in lag["oplog_headroom_why"]
        assert lag["seconds"] is not None
