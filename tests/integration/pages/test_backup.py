"""docs/backup.md: its commands, and what becomes of a watcher in each case that it names."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio

from app.devservers.process import Server
from app.devservers.servers import MongoServer, NatsServer
from tests.backups import copy, stopped
from tests.conftest import MakeMongo, MakeNats
from tests.live import Live, Streams, until
from tests.pages import Shell, blocks

pytestmark = pytest.mark.long

BACK_UP, RESTORE_STATE, RESTORE_STREAM, COMPLETE, BEGIN_AGAIN, MOVE = blocks("docs/backup.md", language="sh")


@pytest_asyncio.fixture
async def live(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as live:
        await live.add()
        live.insert(1, 2)
        await live.seen("1", "2")
        yield live


def shell(live: Live, directory: Path) -> Shell:
    """A shell for the page's commands on this service and its servers."""
    directory.mkdir(exist_ok=True)
    replace = {"--db changewire": f"--db {live.state_db}", "ORDERS": live.stream, "http://127.0.0.1:8080": live.url}
    names = ("MONGO_URI", "NATS_URL", "CHANGEWIRE_STATE_DB")
    given = {name: live.environ[name] for name in names}
    return Shell(directory, replace, {**given, "CHANGEWIRE_URL": live.url})


def other(live: Live, name: str) -> dict[str, Any]:
    """A watcher of a collection of its own, with a stream of its own."""
    source = {"database": live.database, "collection": name}
    return {"name": name, "source": source, "sink": {"stream": stream(live, name)}}


def stream(live: Live, name: str) -> str:
    return f"{live.stream}_{name}".upper()


async def add(live: Live, name: str) -> None:
    await live.call("POST", "/watchers", 201, json=other(live, name))
    await live.reaches("RUNNING", name)


def insert(live: Live, name: str, key: int) -> None:
    live.mongo[live.database][name].insert_one({"_id": key})


# The state database.


@pytest.mark.parametrize("service", ["stopped", "runs"])
async def test_an_older_state_database_loses_and_doubles_nothing(live: Live, tmp_path: Path, service: str) -> None:
    await add(live, "removed")
    insert(live, "removed", 1)
    await live.seen("1", stream=stream(live, "removed"))
    run = shell(live, tmp_path)
    await run(BACK_UP)
    await live.call("DELETE", "/watchers/removed?checkpoint=delete", 204)
    await add(live, "added")
    insert(live, "added", 1)
    await live.seen("1", stream=stream(live, "added"))
    live.insert(3)
    await live.seen("1", "2", "3")
    if service == "stopped":
        await live.stop()
    insert(live, "added", 2)
    insert(live, "removed", 2)
    await run(RESTORE_STATE)
    if service == "stopped":
        await live.start()
    live.insert(4)
    await live.seen("1", "2", "3", "4")
    await live.seen("1", "2", stream=stream(live, "removed"))

    async def are_those_of_the_backup() -> bool:
        return {each["name"] for each in await live.get("/watchers")} == {"orders", "removed"}

    await until(are_those_of_the_backup)
    await add(live, "added")
    insert(live, "added", 3)
    await live.seen("1", "2", "3", stream=stream(live, "added"))


async def test_a_state_database_from_before_a_rewind_continues_in_the_later_epoch(live: Live, tmp_path: Path) -> None:
    run = shell(live, tmp_path)
    await run(BACK_UP)
    first = (await live.messages())[0]
    await live.pause()
    await live.call("PUT", "/watchers/orders/token", 200, json={"token": first.token})
    await live.resume()
    await live.seen("1", "2", "2")
    await live.stop()
    await run(RESTORE_STATE)
    await live.start()
    live.insert(3)
    found = await live.seen("1", "2", "2", "3")
    assert found[-1].id.endswith(":1")


async def test_a_state_database_from_before_another_stream_publishes_to_the_earlier_one_again(
    live: Live, tmp_path: Path
) -> None:
    run = shell(live, tmp_path)
    await run(BACK_UP)
    await live.put(sink={"stream": stream(live, "new")})
    live.insert(3)
    await live.seen("3", stream=stream(live, "new"))
    await live.stop()
    await run(RESTORE_STATE)
    await live.start()
    live.insert(4)
    await live.seen("1", "2", "3", "4")
    assert [each.short for each in await live.messages(stream(live, "new"))] == ["insert 3"]


async def test_older_positions_and_a_purged_stream_publish_again_what_came_between(
    mongo_uri: str, nats_url: str, unique: str, tmp_path: Path
) -> None:
    async with Live(mongo_uri, nats_url, unique) as live:
        await live.add(sink={"duplicate_window_seconds": 1})
        live.insert(1, 2)
        await live.seen("1", "2")
        await live.restart()
        run = shell(live, tmp_path)
        await run(BACK_UP)
        live.insert(3, 4)
        await live.seen("1", "2", "3", "4")
        forgotten = time.monotonic() + 2
        await live.stop()
        await run(RESTORE_STATE)
        await live.streams.api(f"STREAM.PURGE.{live.stream}")
        await until(lambda: time.monotonic() > forgotten)
        await live.start()
        live.insert(5)
        await live.seen("3", "4", "5")


# A stream.


@pytest.mark.parametrize("service", ["stopped", "runs"])
async def test_a_whole_stream_is_continued_and_an_older_one_where_its_last_message_says(
    live: Live, tmp_path: Path, service: str
) -> None:
    run = shell(live, tmp_path)
    await run(BACK_UP)
    for later in (3, 4):
        if service == "stopped":
            await live.stop()
        await run(RESTORE_STREAM)
        if service == "stopped":
            await live.start()
        live.insert(later)
        if later == 3:
            await live.seen("1", "2", "3")
    reason = (await live.reaches("FAILED"))["status"]["reason"]
    assert "recreated" in reason
    await shell(live, tmp_path / "complete")(COMPLETE)
    found = await live.seen("1", "2", "3", "4")
    assert [message.id.partition(":")[2] for message in found] == ["", "", "1", "1"]


async def test_a_stream_that_is_gone_is_created_where_somebody_says_to_begin(live: Live, tmp_path: Path) -> None:
    await live.streams.api(f"STREAM.DELETE.{live.stream}")
    live.insert(3)

    async def is_told() -> bool:
        status = (await live.get("/watchers/orders"))["status"]
        return status["state"] == "RETRYING" and "does not exist" in status["reason"]

    await until(is_told)
    assert await live.streams.config(live.stream) is None
    printed = await shell(live, tmp_path)(BEGIN_AGAIN)
    assert "done" in printed
    found = [each.short for each in await live.messages()]
    assert found[:3] == ["insert 1", "insert 2", "insert 3"]
    assert found[3:] == ["snapshot 1", "snapshot 2", "snapshot 3", "snapshot_done None"]


# MongoDB, and both.


class Both:
    """Servers of a test's own, whose directories are copied and put back while the service is stopped."""

    def __init__(self, mongo: MongoServer, server: NatsServer, live: Live, directory: Path) -> None:
        self.mongo, self.nats, self.live = mongo, server, live
        self._directory = directory

    async def save(self, *servers: Server) -> None:
        for server in servers:
            async with self._stopped(server) as data:
                copy(data, self._directory / server.program)

    async def put_back(self, *servers: Server) -> None:
        for server in servers:
            async with self._stopped(server) as data:
                copy(self._directory / server.program, data)

    @asynccontextmanager
    async def _stopped(self, server: Server) -> AsyncIterator[Path]:
        if server is self.nats:
            await self.live.streams.client.close()
        async with stopped(server) as data:
            yield data
        if server is self.nats:
            self.live.streams = Streams(await nats.connect(self.nats.url))

    async def writes(self, key: int) -> None:
        """Start the service, let it publish one more change, and stop it."""
        await self.live.start()
        self.live.insert(key)
        await self.live.seen(*map(str, range(1, key + 1)))
        await self.live.stop()


@pytest_asyncio.fixture
async def both(make_mongo: MakeMongo, make_nats: MakeNats, unique: str, tmp_path: Path) -> AsyncIterator[Both]:
    mongo, server = await make_mongo(args=["--syncdelay", "1"]), await make_nats()
    async with Live(mongo.uri, server.url, unique) as live:
        await live.add()
        live.insert(1)
        await live.seen("1")
        await live.stop()
        yield Both(mongo, server, live, tmp_path)
        await live.streams.client.close()


async def test_streams_from_before_a_backup_of_mongodb_are_completed(both: Both) -> None:
    live = both.live
    await both.save(both.nats)
    await both.writes(2)
    await both.save(both.mongo)
    await both.writes(3)
    await both.put_back(both.nats, both.mongo)
    await live.start()
    live.insert("after")
    await live.seen("1", "2", "after")


@pytest.mark.parametrize("restored", ["MongoDB alone", "both"])
async def test_a_stream_that_is_newer_than_mongodb_is_told_and_continued_where_somebody_says(
    both: Both, tmp_path: Path, restored: str
) -> None:
    live = both.live
    await both.save(both.mongo)
    await both.writes(2)
    await both.save(both.nats)
    if restored == "both":
        await both.put_back(both.nats)
    await both.put_back(both.mongo)
    await live.start()
    live.insert("other")
    reason = (await live.reaches("FAILED"))["status"]["reason"]
    assert "history" in reason or "future" in reason
    await shell(live, tmp_path / "shell")(MOVE)
    live.insert("after")

    async def arrived() -> bool:
        return (await live.messages())[-1].short == "insert after"

    await until(arrived)
    found = [each.short for each in await live.messages()]
    assert found[:2] == ["insert 1", "insert 2"]
    assert found[2:] == ["snapshot 1", "snapshot other", "snapshot_done None", "insert after"]


# Another deployment.


@pytest.mark.parametrize("streams", ["the same", "new"])
async def test_in_another_deployment_every_position_has_to_be_set(
    live: Live, own_mongo: MongoServer, own_nats: NatsServer, unique: str, tmp_path: Path, streams: str
) -> None:
    run = shell(live, tmp_path)
    await run(BACK_UP.text + BACK_UP.text.splitlines()[0].replace("--db changewire", f"--db {live.database}").replace(
        "changewire.archive", "documents.archive"))  # fmt: skip
    await live.stop()
    there = own_nats.url if streams == "new" else live.environ["NATS_URL"]
    async with Live(own_mongo.uri, there, unique, ready=False) as moved:
        await moved.stop()
        restore = shell(moved, tmp_path / "there")
        for archive in ("changewire.archive", "documents.archive"):
            (tmp_path / "there" / archive).write_bytes((tmp_path / archive).read_bytes())
            await restore(RESTORE_STATE.text.replace("changewire.archive", archive))
        await moved.start()
        await moved.reaches("RETRYING" if streams == "new" else "FAILED")
        await shell(moved, tmp_path / "begin")(MOVE)
        moved.insert("after")

        async def arrived() -> bool:
            return (await moved.messages())[-1].short == "insert after"

        await until(arrived)
        found = [each.short for each in await moved.messages()]
        before = ["insert 1", "insert 2"] if streams == "the same" else []
        assert found == [*before, "snapshot 1", "snapshot 2", "snapshot_done None", "insert after"]
