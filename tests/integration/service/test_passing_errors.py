"""Errors that a server gives in a bad moment are tried again, whatever their code says; what is meant for good fails.

mongod gives them on purpose (`failCommand`, which needs test commands); what counts is what is on the stream
afterwards, and that the watcher was never FAILED on the way.
"""

import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from pymongo import MongoClient

from app.devservers.servers import MongoServer, NatsServer
from app.domain.checkpoint_place import CheckpointPlace
from app.domain.errors import HistoryLost, NotAuthorised, SourceRefused
from app.domain.watcher import Sink, Source, StoredWatcher, Watcher
from app.mongodb.deployment import MongoDeployment
from tests.conftest import MakeMongo, MakeNats
from tests.live import Live, until

UNKNOWN = (1, 40, 96, 216, 365, 462, 8, 47)
"""Said of passing troubles as well, or of nothing that this watcher can have."""
PERMANENT = (2, 13, 18, 73, 8000, 10334, 40324)
"""What is known to be permanent, where it comes again."""
LOST = (136, 286, 280)
OVERLOAD = ["SystemOverloadedError", "RetryableError"]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Attempts follow one another quickly, so that three in a row are over long before anything is believed."""
    monkeypatch.setattr("app.domain.backoff.LIMIT_SECONDS", 0.1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def failing() -> AsyncIterator[MongoServer]:
    """A mongod that can be made to fail."""
    async with MongoServer(args=["--setParameter", "enableTestCommands=1"]) as server:
        yield server


@pytest.fixture
def mongo(failing: MongoServer) -> Iterator[MongoServer]:
    """The same, which no longer fails after the test."""
    yield failing
    with MongoClient(failing.uri) as client:
        client.admin.command({"configureFailPoint": "failCommand", "mode": "off"})


def blip(live: Live, command: str, code: int, times: int = 3, *, labels: list[str] | None = None) -> Callable[[], bool]:
    """Have the service's next commands of this kind fail; what is returned tells whether they all have."""
    data = {"failCommands": [command], "errorCode": code, "appName": "changewire"}
    if labels is not None:
        data["errorLabels"] = labels
    admin = live.mongo.admin
    before = admin.command({"configureFailPoint": "failCommand", "mode": {"times": times}, "data": data})["count"]

    def over() -> bool:
        point = admin.command({"getParameter": 1, "failpoint.failCommand": 1})["failpoint.failCommand"]
        return bool(point["timesEntered"] - before >= times)

    return over


async def never_failed(live: Live) -> None:
    history = await live.get("/watchers/orders/history")
    assert "FAILED" not in {one["state"] for one in history}, history


@pytest.mark.long
@pytest.mark.parametrize("command", ["getMore", "aggregate"])
async def test_an_error_that_comes_three_times_and_passes_is_tried_again_whatever_its_code(
    mongo: MongoServer, nats_url: str, unique: str, command: str
) -> None:
    async with Live(mongo.uri, nats_url, unique) as live:
        await live.add()
        keys: list[str] = []
        for code in (*UNKNOWN, *PERMANENT, *LOST):
            await live.reaches("RUNNING")
            over = blip(live, command, code)
            if command == "aggregate":
                await live.call("POST", "/watchers/orders/restart", 202)
            await until(over)
            keys.append(str(code))
            live.insert(str(code))
            await live.seen(*keys)
            await never_failed(live)
        await live.reaches("RUNNING")


async def test_no_gap_is_marked_where_the_oplog_still_reaches_back(
    mongo: MongoServer, nats_url: str, unique: str
) -> None:
    async with Live(mongo.uri, nats_url, unique) as live:
        await live.add(on_history_lost="latest")
        keys: list[str] = []
        for command in ("getMore", "aggregate"):
            for code in LOST:
                await live.pause()
                keys += [f"{command} {code} before", f"{command} {code} after"]
                live.insert(keys[-2])
                over = blip(live, command, code, 4)
                await live.call("PUT", "/watchers/orders/resume", 202)
                await until(over)
                live.insert(keys[-1])
                await live.seen(*(f"insert {key}" for key in keys))
        await never_failed(live)


async def test_what_a_label_says_passes_is_never_the_pipelines_fault_however_long_it_lasts(
    mongo: MongoServer, nats_url: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind in (HistoryLost, NotAuthorised, SourceRefused):
        monkeypatch.setattr(kind, "confirm_seconds", 0.01)
    async with Live(mongo.uri, nats_url, unique) as live:
        await live.add(source={"pipeline": [{"$match": {"operationType": "insert"}}]}, on_history_lost="latest")
        for code, labels in ((2, ["ResumableChangeStreamError"]), (13, ["RetryableError"]), (286, OVERLOAD)):
            over = blip(live, "aggregate", code, 15, labels=labels)
            await live.call("POST", "/watchers/orders/restart", 202)
            await live.reaches("RETRYING")
            await until(over)
            await live.reaches("RUNNING")
        live.insert("a")
        await live.seen("a")
        await never_failed(live)


BAD = {"$set": {"n": {"$toInt": [1, 2]}}}


async def test_a_pipeline_that_mongodb_refuses_is_refused_at_the_door_and_fails_where_it_is_stored(
    mongo: MongoServer, nats_url: str, unique: str
) -> None:
    async with Live(mongo.uri, nats_url, unique) as live:
        wrong = live.definition(source={"pipeline": [BAD]})
        assert "$toInt" in await live.refused(422, "POST", "/watchers", json=wrong)
        await live.stop()
        deployment = MongoDeployment(mongo.uri, state_database=live.state_db)
        source = Source(live.database, live.collection, pipeline=(BAD,))
        place = CheckpointPlace(collection=live.collection)
        await deployment.watchers().insert(StoredWatcher(Watcher("orders", source, Sink(live.stream), place)))
        deployment.close()
        await live.start()
        failed = await live.reaches("FAILED")
        assert "refuses the pipeline" in failed["status"]["reason"]
        history = await live.get("/watchers/orders/history")
        assert "RETRYING" in {one["state"] for one in history}, "it was asked again"


async def test_a_good_pipeline_is_never_refused_for_a_passing_error(
    mongo: MongoServer, nats_url: str, unique: str
) -> None:
    async with Live(mongo.uri, nats_url, unique) as live:
        fine = live.definition(source={"pipeline": [{"$match": {"operationType": "insert"}}]})
        for code in (2, 96, 40324):
            for times in (1, 2, 3, 4):
                blip(live, "aggregate", code, times)
                answer = await live.call("POST", "/watchers?dry_run=true", json=fine)
                assert answer.status_code in (201, 503), f"{times} times {code}: {answer.text}"
                assert "refuses" not in answer.text


# Accounts


@pytest_asyncio.fixture
async def accounts(make_mongo: MakeMongo) -> MongoServer:
    return await make_mongo(auth=("root", "root"))


@pytest.fixture
def users(accounts: MongoServer) -> Any:
    with MongoClient(accounts.uri) as client:
        yield client.admin


ROLES = ["readWriteAnyDatabase", "clusterMonitor"]


async def watched_by(users: Any, accounts: MongoServer, nats_url: str, unique: str) -> AsyncIterator[Live]:
    users.command("createUser", "service", pwd="service", roles=ROLES)
    uri = accounts.uri.replace("root:root", "service:service")
    async with Live(uri, nats_url, unique, look_at=(accounts.uri, nats_url)) as live:
        await live.add()
        yield live


@pytest_asyncio.fixture
async def rotated(users: Any, accounts: MongoServer, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async for live in watched_by(users, accounts, nats_url, unique):
        yield live


async def test_an_account_that_is_replaced_is_waited_for(rotated: Live, users: Any) -> None:
    rotated.insert(1)
    await rotated.seen("1")
    users.command("revokeRolesFromUser", "service", roles=ROLES)
    await rotated.reaches("RETRYING")
    users.command("grantRolesToUser", "service", roles=ROLES)
    rotated.insert(2)
    await rotated.seen("1", "2")
    users.command("dropUser", "service")
    rotated.insert(3)
    await rotated.reaches("RETRYING")
    users.command("createUser", "service", pwd="service", roles=ROLES)
    await rotated.seen("1", "2", "3")
    await never_failed(rotated)


async def test_an_account_that_stays_without_rights_is_failed_until_somebody_restarts_it(
    rotated: Live, users: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NotAuthorised, "confirm_seconds", 1.0)
    users.command("updateUser", "service", roles=[{"role": "readWrite", "db": rotated.state_db}])
    rotated.insert(1)
    failed = await rotated.reaches("FAILED")
    assert "grant it" in failed["status"]["reason"]
    users.command("updateUser", "service", roles=ROLES)
    await rotated.call("POST", "/watchers/orders/restart", 202)
    await rotated.seen("1")


RELOADED = "Reloaded server configuration"
ACCOUNT = """
accounts {{ TEST: {{ jetstream: {jetstream}, users: [
  {{user: admin, password: admin}},
  {{user: service, password: service, permissions: {{publish: {{deny: [{denied}]}}}}}},
] }}, SYS: {{ users: [{{user: sys, password: sys}}] }} }}
system_account: SYS
no_auth_user: admin
"""


def account(*, jetstream: str = "enabled", denied: str = "") -> str:
    return ACCOUNT.format(jetstream=jetstream, denied=denied)


async def reload(nats: NatsServer, config: str) -> None:
    """Give the running server another configuration of its accounts, and wait until it has taken it."""
    before = nats.log.read_text().count(RELOADED)
    path = nats.data / "nats-server.conf"
    path.write_text(path.read_text().partition("\naccounts")[0] + config)
    os.kill(nats.pid, signal.SIGHUP)
    await until(lambda: nats.log.read_text().count(RELOADED) > before)


@pytest.mark.parametrize(
    "trouble", [{"denied": '"ORDERS_*.>"'}, {"denied": '"$JS.API.STREAM.>"'}, {"jetstream": "off"}]
)
async def test_what_nats_does_not_give_for_a_moment_is_waited_for(
    mongo_uri: str, make_nats: MakeNats, unique: str, trouble: dict[str, str]
) -> None:
    nats = await make_nats(config=account())
    user: dict[str, Any] = {"CHANGEWIRE_NATS_USER": "service", "CHANGEWIRE_NATS_PASSWORD": "service"}
    async with Live(mongo_uri, nats.url, unique, **user) as live:
        await live.add()
        live.insert(1)
        await live.seen("1")
        own = {name: value.replace("ORDERS_*", live.stream) for name, value in trouble.items()}
        await reload(nats, account(**own))
        live.insert(2)
        await live.call("POST", "/watchers/orders/restart", 202)
        await live.reaches("RETRYING")
        await reload(nats, account())
        await live.seen("1", "2")
        await never_failed(live)
