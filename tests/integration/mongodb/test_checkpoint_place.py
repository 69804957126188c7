"""Where a position cannot be kept: sizes and rights that cannot work are 422 when the watcher is added."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pymongo
import pytest
import pytest_asyncio

from app.devservers.servers import MongoServer, NatsServer
from app.domain.checkpoint_place import CheckpointPlace
from app.domain.watcher import Source, Watcher, problems
from tests.live import Live

pytestmark = pytest.mark.asyncio(loop_scope="session")

MakeMongo = Callable[..., Awaitable[MongoServer]]
PETABYTE = 1024**5


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def service(mongo_server: MongoServer, nats_server: NatsServer) -> AsyncIterator[Live]:
    async with Live(mongo_server.uri, nats_server.url, "places") as live:
        yield live


async def errors(live: Live, place: dict[str, Any]) -> list[tuple[str, str]]:
    answer = await live.call("POST", "/watchers?dry_run=true", 422, json=live.definition(checkpoint=place))
    same = await live.call("POST", "/watchers", 422, json=live.definition(checkpoint=place))
    assert same.json()["errors"] == answer.json()["errors"]
    return [(each["field"], each["detail"]) for each in answer.json()["errors"]]


@pytest.mark.parametrize("size", [0, 1, 256, 4095, PETABYTE + 1])
async def test_a_size_that_no_capped_collection_of_positions_can_have_is_refused(service: Live, size: int) -> None:
    place = {"database": "places", "collection": "new", "capped": True, "size_in_bytes": size}
    assert [field for field, _ in await errors(service, place)] == ["checkpoint.size_in_bytes"]
    assert "places" not in service.mongo.list_database_names()


async def test_capped_is_refused_where_the_collection_is_there_and_is_not(service: Live) -> None:
    service.mongo["places"]["plain"].insert_one({"value": "x"})
    service.mongo["places"]["plain"].delete_many({})
    place = {"database": "places", "collection": "plain", "capped": True, "size_in_bytes": 4096}
    ((field, problem),) = await errors(service, place)
    assert field == "checkpoint.capped"
    assert "places.plain exists and is not capped" in problem
    service.mongo.drop_database("places")


async def test_a_capped_collection_too_small_for_a_position_is_refused(service: Live) -> None:
    service.mongo["places"].create_collection("tiny", capped=True, size=256)
    for more in ({}, {"capped": True, "size_in_bytes": 4096}):
        ((field, problem),) = await errors(service, {"database": "places", "collection": "tiny", **more})
        assert field == "checkpoint.collection"
        assert "256 bytes" in problem
    service.mongo.drop_database("places")


async def test_a_small_size_in_the_file_of_mongodb_nats_connector_is_rounded_up_as_mongodb_5_did(
    mongo_server: MongoServer, nats_server: NatsServer, unique: str, tmp_path: Any
) -> None:
    config = tmp_path / "connector.yaml"
    config.write_text(
        f"connector: {{collections: [{{dbName: db_{unique}, collName: orders_{unique}, tokensCollCapped: true, "
        "tokensCollSizeInBytes: 512}]}"
    )
    async with Live(mongo_server.uri, nats_server.url, unique, config=config) as live:
        name = f"db_{unique}.orders_{unique}"
        await live.reaches("RUNNING", name)
        live.insert(1)
        await live.seen("1")
        assert live.mongo["resume-tokens"][live.collection].options()["size"] == 4096
        assert live.checkpoint(database="resume-tokens")


@pytest.mark.parametrize(
    ("actions", "place", "lacks"),
    [
        (["find", "listCollections", "insert"], {}, "update"),
        (["find", "listCollections", "update"], {}, "insert"),
        (["insert", "update"], {}, "find, listCollections"),
        (["find", "listCollections", "insert", "update"], {"capped": True, "size_in_bytes": 4096}, "createCollection"),
    ],
)
async def test_an_account_that_cannot_keep_the_position_is_told_what_it_lacks(
    accounts: Live, actions: list[str], place: dict[str, Any], lacks: str
) -> None:
    role = {"resource": {"db": "positions", "collection": ""}, "actions": actions}
    accounts.mongo.admin.command("updateRole", "keeper", privileges=[role])
    ((field, problem),) = await errors(accounts, {"database": "positions", "collection": "orders", **place})
    assert field == "checkpoint.database"
    assert f"lacks {lacks} on positions.orders" in problem
    assert "readWrite on positions" in problem


async def test_an_account_that_has_just_what_a_position_needs_keeps_one(accounts: Live) -> None:
    actions = ["find", "listCollections", "insert", "update"]
    role = {"resource": {"db": "positions", "collection": ""}, "actions": actions}
    accounts.mongo.admin.command("updateRole", "keeper", privileges=[role])
    await accounts.add(checkpoint={"database": "positions", "collection": "orders"})
    assert accounts.checkpoint("orders", "positions")
    await accounts.call("DELETE", "/watchers/orders", 204)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def accounts(nats_server: NatsServer) -> AsyncIterator[Live]:
    """A service whose account may read db_accounts and keep the state; a role of its own says what more."""
    async with MongoServer(auth=("root", "root")) as server:
        with pymongo.MongoClient[dict[str, Any]](server.uri) as root:
            root.admin.command("createRole", "keeper", privileges=[], roles=[])
            roles = [{"role": "read", "db": "db_accounts"}, {"role": "readWrite", "db": "state_accounts"}, "keeper"]
            root.admin.command("createUser", "small", pwd="small", roles=roles)
        uri = server.uri.replace("root:root", "small:small")
        async with Live(uri, nats_server.url, "accounts", look_at=(server.uri, nats_server.url)) as live:
            yield live


async def test_what_can_be_told_without_a_server_is() -> None:
    place = CheckpointPlace("t", "o", capped=True, size_in_bytes=PETABYTE + 1)
    found = problems(Watcher("w", Source("shop", "orders"), checkpoint=place).with_defaults(), state_database="state")
    assert [each.field for each in found] == ["checkpoint.size_in_bytes"]
    long = Watcher("w", Source("d" * 63, "c" * 192), checkpoint=CheckpointPlace("e" * 20, "c" * 235)).with_defaults()
    found = problems(long, state_database="state")
    assert {each.field for each in found} >= {"source.collection", "checkpoint.collection"}
