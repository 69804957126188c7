"""Servers that are frozen or slow, an oplog that runs out, and stops at bad moments.

Tests that hold a server up have servers of their own.
"""

import asyncio
import re
import signal
from pathlib import Path

import httpx
import pytest

from app.devservers.servers import MongoServer, NatsServer
from tests import oplog
from tests.conftest import MakeMongo
from tests.faults.proxy import Link, Proxy
from tests.service import Change, Stage, staged, until

pytestmark = pytest.mark.long

MEGABYTE = 1024 * 1024
ENDED = (0, 128 + signal.SIGTERM, -signal.SIGTERM)
"""How a start may end by SIGTERM: in good order, with one line, or before there was anything of ours in the process."""


# Frozen servers


@pytest.mark.parametrize("component", ["mongo", "nats"])
async def test_a_frozen_server_is_noticed_by_the_watcher_and_by_healthz_and_nothing_is_lost(
    own_mongo: MongoServer, own_nats: NatsServer, tmp_path: Path, unique: str, component: str
) -> None:
    server = own_mongo if component == "mongo" else own_nats
    async with staged(own_mongo.uri, own_nats.url, tmp_path, unique) as stage:
        service = await stage.service().start()
        await stage.add(service, duplicate_window_seconds=1)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stage.write_through_failures(1500))
            await stage.until_length(200)
            server.freeze()
            await service.until_state(stage.watcher, "RETRYING")

            async def said() -> bool:
                parts = (await service.call("GET", "/healthz")).json()["components"]
                return bool(parts[component]["status"] == "DOWN" and parts[component]["reason"])

            await until(said, f"/healthz says that {component} is DOWN", within=40)
            server.thaw()
            await until(service.up, "/healthz is UP again", within=40)
        await stage.check()


# Bounded memory


async def test_large_events_that_a_slow_link_holds_up_are_read_no_further_than_the_memory_budget(
    mongo_uri: str, own_nats: NatsServer, tmp_path: Path, unique: str
) -> None:
    """60 MB wait while NATS takes 5 MB a second: most of it waits in the oplog."""
    link = Link()
    proxy = Proxy(link, lambda: own_nats.port)
    await proxy.listen()
    try:
        async with staged(mongo_uri, own_nats.url, tmp_path, unique) as stage:
            service = await stage.service(nats_url=f"nats://127.0.0.1:{proxy.port}").start()
            await stage.add(service)
            await stage.write(100)
            await stage.until_length(100)
            await service.call("PUT", f"/watchers/{stage.watcher}/pause", status=202)
            await service.until_state(stage.watcher, "PAUSED")
            before = most = service.resident
            for n in range(1001, 1121):
                await stage.collection.insert_one({"_id": n, "n": n, "text": "x" * (MEGABYTE // 2)})
                stage.written.append(Change("insert", n, n))
            link.rate = 5.0 * MEGABYTE
            await service.call("PUT", f"/watchers/{stage.watcher}/resume", status=202)

            async def half_way() -> bool:
                nonlocal most
                most = max(most, service.resident)
                return await stage.length() >= 160

            await until(half_way, "half of them are on the stream", within=60)
            link.heal()
            assert most - before < 60 * MEGABYTE, f"{before:,} bytes before, {most:,} while 60 MB waited"
            await stage.check(within=60)
    finally:
        await proxy.close()


# History about to be lost


async def test_healthz_warns_before_history_is_lost_and_stays_up(
    make_mongo: MakeMongo, nats_url: str, tmp_path: Path, unique: str
) -> None:
    mongo = await make_mongo(oplog_mb=20, args=["--syncdelay", "1"])
    async with staged(mongo.uri, nats_url, tmp_path, unique) as stage:
        service = await stage.service().start()
        await stage.add(service)
        await stage.write(10)
        await stage.until_length(10)
        assert "warnings" not in (await service.call("GET", "/healthz", status=200)).json()["components"]["watchers"]
        await asyncio.to_thread(oplog.outgrow, mongo.uri)

        async def warned() -> list[str]:
            parts = (await service.call("GET", "/healthz", status=200)).json()["components"]
            return list(parts["watchers"].get("warnings", []))

        (said,) = await until(warned, "/healthz warns", within=40)
        assert re.match(rf"{stage.watcher}: \d+ seconds of oplog are left .* fewer than 3600: ", said)
        assert any("seconds of oplog are left" in note for note in (await service.status(stage.watcher))["notes"])
        await stage.check()


# Bad moments to stop


async def test_a_drain_that_cannot_finish_gives_up_at_its_deadline_with_a_message_and_the_next_start_recovers(
    mongo_uri: str, own_nats: NatsServer, tmp_path: Path, unique: str
) -> None:
    async with staged(mongo_uri, own_nats.url, tmp_path, unique) as stage:
        service = await stage.service(drain_seconds=1).start()
        await stage.add(service, duplicate_window_seconds=1)
        async with stage.load():
            await stage.until_length(200)
            own_nats.freeze()
            written = len(stage.written)
            await until(lambda: len(stage.written) >= written + 8, "changes are in flight, never acknowledged")
            assert await service.terminate() == 1
        assert "batches were still in flight after 1 seconds" in service.log_tail()
        own_nats.thaw()
        await service.start()
        await stage.check()


@pytest.mark.parametrize(("backlog", "tenths"), [(0, range(1, 13, 2)), (3000, range(2, 13, 2))], ids=["0", "3000"])
async def test_sigterm_at_any_moment_of_the_start_leaves_nothing_half_made(
    mongo_uri: str, nats_url: str, tmp_path: Path, unique: str, backlog: int, tenths: range
) -> None:
    """Starts are ended at moments from the first import to the first batches; the last one is left alone."""
    async with staged(mongo_uri, nats_url, tmp_path, unique) as stage:
        service = await stage.service().start()
        await stage.add(service, duplicate_window_seconds=1)
        assert await service.terminate() == 0
        for tenth in tenths:
            await stage.write(20 + backlog // len(tenths))
            service.spawn()
            await asyncio.sleep(tenth / 10)  # the scenario: a moment of the start
            assert await service.terminate() in ENDED, service.log_tail()
        assert "Traceback" not in service.log.read_text()
        await service.start()
        assert len((await service.call("GET", "/watchers", status=200)).json()) == 1
        await stage.check()


async def test_sigterm_while_a_watcher_is_added_leaves_it_added_whole_or_not_at_all(stage: Stage) -> None:
    """The client may not hear which; adding it again says so, and from then on nothing is missing."""
    service = await stage.service().start()
    await until(lambda: stage.takes(service), "the service takes changes")
    for hundredth in range(0, 24, 4):
        asking = asyncio.create_task(service.call("POST", "/watchers", stage.described()))
        await asyncio.sleep(hundredth / 100)  # the scenario: a moment of the adding
        assert await service.terminate() == 0, service.log_tail()
        try:
            answered: int | None = (await asking).status_code
        except httpx.TransportError:
            answered = None
        await service.start()
        await until(lambda: stage.takes(service), "the service takes changes")
        there = (await service.call("GET", f"/watchers/{stage.watcher}")).status_code
        assert there in ((200,) if answered == 201 else (200, 404))
        if there == 200:
            await service.until_state(stage.watcher, "RUNNING")
            await service.call("DELETE", f"/watchers/{stage.watcher}?checkpoint=delete", status=204)
    await stage.add(service)
    await stage.write(50)
    await stage.check()
