"""The commands of pages that need one service: each page's, word for word, in the order of the page."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import nats
import nats.js.errors
import pytest
import pytest_asyncio
from pymongo import MongoClient

from app.devservers.servers import MongoServer, NatsServer, free_port
from tests.conftest import MakeMongo, MakeNats
from tests.letters import spoilt
from tests.live import Live, until
from tests.pages import Shell, blocks, mongosh


@pytest_asyncio.fixture
async def shop(own_mongo: MongoServer, own_nats: NatsServer, unique: str) -> AsyncIterator[Live]:
    """A service on servers of its own, where names are those of the pages, with one watcher of `shop.orders`."""
    async with Live(own_mongo.uri, own_nats.url, unique, CHANGEWIRE_STATE_DB="changewire") as live:
        live.database, live.collection, live.stream, live.state_db = "shop", "orders", "ORDERS", "changewire"
        await live.add()
        live.insert("first")
        await live.seen("first")
        yield live


def shell(live: Live, directory: Path, **replace: str) -> Shell:
    """A shell for a page's commands on this service and its servers."""
    here = {"http://127.0.0.1:8080": live.url, **replace}
    given = {name: live.environ[name] for name in ("MONGO_URI", "NATS_URL", "CHANGEWIRE_STATE_DB")}
    return Shell(directory, here, {**given, "CHANGEWIRE_URL": live.url})


async def ends(live: Live, watcher: str, state: str = "done") -> None:
    async def so() -> bool:
        snapshot = (await live.get(f"/watchers/{watcher}/status"))["snapshot"]
        return snapshot is not None and snapshot["state"] == state

    await until(so)


async def test_snapshots_are_taken_and_cancelled(shop: Live, tmp_path: Path) -> None:
    run = shell(shop, tmp_path)
    for block in [
        *blocks("README.md", section="The documents that exist already", language="sh"),
        *(each for each in blocks("docs/snapshots.md", language="sh") if each.section not in ("Cancel", "Try it")),
    ]:
        if await run(block):
            await ends(shop, "orders")
    (cancel,) = blocks("docs/snapshots.md", section="Cancel", language="sh")
    await run(cancel)


async def test_scopes_are_added(shop: Live, tmp_path: Path) -> None:
    (add,) = blocks("docs/scopes.md", language="sh")
    (body,) = blocks("docs/scopes.md", language="json")
    await shell(shop, tmp_path)(add)
    for name in ("shop", "crm", "everything"):
        await shop.reaches("RUNNING", name)
    over_http = json.loads(body.text)
    assert (await shop.get("/watchers/crm"))["source"].items() >= over_http["source"].items()


async def test_messages_are_followed(shop: Live, tmp_path: Path) -> None:
    (follow,) = blocks("docs/page.md", language="sh")
    seen = 'while read -r line; do echo "$line"; case "$line" in *ORDERS.insert*) break ;; esac; done'
    printed = await shell(shop, tmp_path)(f"{seen} < <(exec timeout 30 {follow.text.strip()}); kill $!")
    assert "event: message" in printed
    assert "ORDERS.insert" in printed


async def test_dead_letters_are_listed_read_replayed_and_deleted(shop: Live, tmp_path: Path) -> None:
    shop.orders.insert_one(spoilt({"_id": 1}))
    await shop.put(sink={"oversize": "dead_letter"})
    shop.orders.insert_one({"_id": 2, "text": "x" * 2_000_000})
    shop.insert(3)
    await shop.seen("first", "3")
    unreadable, large = (await shop.get("/watchers/orders/dead-letters"))["dead_letters"]
    await shop.put(sink={"oversize": "claim_check"})
    (block,) = blocks("docs/dead-letters.md", language="sh")
    *_, replay, delete = block.text.strip().splitlines()
    run = shell(shop, tmp_path, **{"dead-letters/7": f"dead-letters/{large['sequence']}"})
    printed = await run(block.text.replace(delete, ""))
    assert "oversize" in printed
    await shop.seen("first", "3", "2")
    await run(delete.replace("dead-letters/7", f"dead-letters/{unreadable['sequence']}"))
    assert (await shop.get("/watchers/orders/dead-letters"))["dead_letters"] == []
    assert "replay" in replay


async def test_a_consumer_is_made_and_read_by_the_nats_command(shop: Live, tmp_path: Path) -> None:
    shop.insert(*range(2, 11))
    shop.orders.insert_one({"_id": 11, "text": "x" * 2_000_000})
    found = await shop.seen("first", *map(str, range(2, 12)))
    (block,) = blocks("docs/consuming.md", language="sh")
    printed = await shell(shop, tmp_path, TOKEN=found[-1].token)(block)
    assert printed.count("ORDERS.insert") >= 10
    assert json.loads((tmp_path / "event.json").read_bytes())["documentKey"] == {"_id": 11}


# Retention.


async def test_the_oplog_is_enlarged_as_the_page_says(own_mongo: MongoServer) -> None:
    (block,) = blocks("docs/retention.md", language="js")
    ((database, command),) = mongosh(block.text)
    with MongoClient[dict[str, Any]](own_mongo.uri) as client:
        client[database].command(command)
        assert client.local.command("collStats", "oplog.rs")["maxSize"] == command["size"] * 1024 * 1024


async def test_a_watcher_gets_the_limits_of_the_page(shop: Live, tmp_path: Path) -> None:
    (block,) = blocks("docs/retention.md", language="sh")
    smaller = {'"replicas": 3': '"replicas": 1', '"max_bytes": 52000000000': '"max_bytes": 52000000'}
    assert all(written in block.text for written in smaller)
    run = shell(shop, tmp_path, **smaller, **{'"name": "orders"': '"name": "more"', "ORDERS": "MORE"})
    await run(block.text.replace("--dry-run", ""))
    config = await shop.streams.config("MORE")
    assert config is not None
    assert (config["max_age"], config["max_bytes"]) == (518_400_000_000_000, 52_000_000)


# Upgrade.


async def test_an_instance_is_drained_and_comes_back_and_a_stream_is_switched(shop: Live, tmp_path: Path) -> None:
    one_by_one, look, switch = blocks("docs/upgrade.md", language="sh")
    names = (each["name"] for each in await shop.get("/instances"))
    run = shell(shop, tmp_path, one=next(names))
    environ = shop.environ
    async with Live(environ["MONGO_URI"], environ["NATS_URL"], "other", CHANGEWIRE_STATE_DB="changewire"):

        async def are_two() -> bool:
            return len(await shop.get("/instances")) == 2

        await until(are_two)
        printed = await run(one_by_one)
        assert "draining" in printed
        assert {each["state"] for each in await shop.get("/instances")} == {"active"}
    await shop.reaches("RUNNING")
    assert "RUNNING" in await run(look)
    await shop.stop()
    await run(switch)
    config = await shop.streams.config("ORDERS")
    assert config is not None
    assert not any(config.get(name) for name in ("allow_batched", "allow_atomic", "allow_direct"))


# Several teams.


@asynccontextmanager
async def serving(run: Shell, block: str) -> AsyncIterator[httpx.AsyncClient]:
    """What a block starts as a service, for as long as it is asked."""
    port = free_port()
    served = asyncio.create_task(run(block.replace(":8081", f":{port}"), seconds=120), name="service of a page")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as client:

        async def ready() -> bool:
            assert not served.done(), served.exception()
            try:
                return (await client.get("/readyz")).status_code == 200
            except httpx.TransportError:
                return False

        try:
            await until(ready, seconds=40)
            yield client
        finally:
            served.cancel()
            await asyncio.wait([served])


@pytest.mark.long
async def test_a_team_with_a_service_of_its_own_cannot_reach_anothers(
    make_mongo: MakeMongo, make_nats: MakeNats, tmp_path: Path
) -> None:
    page = "docs/multi-tenancy.md"
    (roles,), (accounts,) = blocks(page, language="js"), blocks(page, language="nats")
    (serve,) = blocks(page, language="sh")
    mongo = await make_mongo(auth=("root", "toor"))
    config = accounts.text.replace("$CHANGEWIRE_CRM_PASSWORD", "secret").replace("$CHANGEWIRE_SHOP_PASSWORD", "secret")
    server = await make_nats(config=config.replace("200GB", "2GB").replace("50GB", "1GB"))
    with MongoClient[dict[str, Any]](mongo.uri) as client:
        for database, command in mongosh(roles.text):
            client[database].command(command)
        run = Shell(
            tmp_path, {"127.0.0.1:27017": f"127.0.0.1:{mongo.port}", "127.0.0.1:4222": f"127.0.0.1:{server.port}"}, {}
        )
        crm = {"name": "contacts", "source": {"database": "crm", "collection": "contacts"}}
        others = {"name": "orders", "source": {"database": "shop", "collection": "orders"}}
        for text in (serve.text, serve.text.replace("CHANGEWIRE_NAMESPACES='crm.*'", "")):
            async with serving(run, text) as service:
                answer = await service.put("/watchers/contacts", json=crm)
                assert answer.status_code in (200, 201), answer.text
                refused = await service.post("/watchers", json=others)
                assert refused.status_code == 422, refused.text
                assert "shop" in refused.text
        client.crm.contacts.insert_one({"_id": 1})
        async with serving(run, serve.text):
            reader = await nats.connect(server.url, user="changewire-crm", password="secret")
            stranger = await nats.connect(server.url, user="changewire-shop", password="secret")

            async def arrived() -> bool:
                try:
                    return (await reader.jetstream().stream_info("CONTACTS")).state.messages == 1
                except nats.js.errors.NotFoundError:
                    return False

            await until(arrived)
            assert await stranger.jetstream().streams_info() == []
            await reader.close()
            await stranger.close()
