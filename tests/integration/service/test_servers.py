"""The servers go away and come back, are not there at the start, or break for one watcher alone.

Tests that stop a server have servers of their own.
"""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from nats.js.api import DiscardPolicy

from app.devservers.servers import MongoServer, NatsServer
from tests.conftest import MakeMongo, MakeNats
from tests.service import Change, Service, Stage, assert_same, staged, until

MEGABYTE = 1024 * 1024


async def down(service: Service, component: str) -> None:
    """Wait until /healthz says DOWN, and names the component."""

    async def said() -> bool:
        answer = await service.call("GET", "/healthz")
        parts: dict[str, Any] = answer.json()["components"]
        return answer.status_code == 503 and parts[component]["status"] == "DOWN" and bool(parts[component]["reason"])

    await until(said, f"/healthz says that {component} is DOWN", within=40)
    assert (await service.call("GET", "/livez")).status_code == 200
    assert (await service.call("GET", "/readyz")).status_code == 503


async def end(server: MongoServer | NatsServer, how: str) -> None:
    if how == "SIGKILL":
        await asyncio.to_thread(server.kill)
    else:
        await server.stop()


# Servers that stop and start under load


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
async def test_nats_stopped_and_started_under_load_loses_doubles_and_reorders_nothing(
    mongo_uri: str, own_nats: NatsServer, tmp_path: Path, unique: str, how: str
) -> None:
    async with staged(mongo_uri, own_nats.url, tmp_path, unique) as stage:
        service = await stage.service().start()
        await stage.add(service, duplicate_window_seconds=1)
        async with stage.load():
            await stage.until_length(200)
            await end(own_nats, how)
            await down(service, "nats")
            await own_nats.start()
            await until(service.up, "/healthz is UP again", within=40)
        await stage.check()


async def test_a_watcher_without_changes_does_not_say_running_while_nats_is_down(
    mongo_uri: str, own_nats: NatsServer, tmp_path: Path, unique: str
) -> None:
    async with staged(mongo_uri, own_nats.url, tmp_path, unique) as stage:
        service = await stage.service().start()
        await stage.add(service)
        await end(own_nats, "SIGKILL")
        await down(service, "nats")
        status = await service.until_state(stage.watcher, "RETRYING")
        assert "NATS" in status["reason"]
        assert (
            f'changewire_watcher_state{{state="RUNNING",watcher="{stage.watcher}"}} 0'
            in (await service.call("GET", "/metrics")).text
        )
        await own_nats.start()
        assert (await service.until_state(stage.watcher, "RUNNING"))["restarts"] == 0


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
async def test_mongod_stopped_and_started_under_load_loses_doubles_and_reorders_nothing(
    own_mongo: MongoServer, nats_url: str, tmp_path: Path, unique: str, how: str
) -> None:
    async with staged(own_mongo.uri, nats_url, tmp_path, unique) as stage:
        service = await stage.service().start()
        await stage.add(service, duplicate_window_seconds=1)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stage.write_through_failures(2000))
            await stage.until_length(200)
            await end(own_mongo, how)
            await down(service, "mongo")
            await own_mongo.start()
            await until(service.up, "/healthz is UP again", within=40)
        await stage.check()


async def test_both_servers_killed_a_few_times_in_quick_succession_under_load(
    own_mongo: MongoServer, own_nats: NatsServer, tmp_path: Path, unique: str
) -> None:
    async with staged(own_mongo.uri, own_nats.url, tmp_path, unique) as stage:
        service = await stage.service().start()
        await stage.add(service, duplicate_window_seconds=1)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(stage.write_through_failures(2000))
            for server in (own_nats, own_mongo, own_nats):
                await stage.until_length(min(await stage.length() + 100, 2000))
                await end(server, "SIGKILL")
                await server.start()
        await stage.check(within=60)


async def test_a_frozen_nats_server_is_told_and_what_waited_follows(
    mongo_uri: str, own_nats: NatsServer, tmp_path: Path, unique: str
) -> None:
    async with staged(mongo_uri, own_nats.url, tmp_path, unique) as stage:
        service = await stage.service().start()
        await stage.add(service, duplicate_window_seconds=1)
        async with stage.load():
            await stage.until_length(200)
            own_nats.freeze()
            await down(service, "nats")
            own_nats.thaw()
            await until(service.up, "/healthz is UP again", within=40)
        await stage.check()


# Servers that are not there yet


async def test_servers_absent_at_the_start_are_waited_for_and_caught_up_with(
    make_mongo: MakeMongo, make_nats: MakeNats, tmp_path: Path, unique: str
) -> None:
    mongo, nats = await asyncio.gather(make_mongo(), make_nats())
    async with staged(mongo.uri, nats.url, tmp_path, unique) as stage:
        service = await stage.service().start()
        await stage.add(service)
        service.kill()
        await stage.write(300)
        await end(mongo, "SIGKILL")
        await end(nats, "SIGKILL")

        await service.start()
        assert (await service.call("GET", "/livez")).status_code == 200
        answer = await service.call("GET", "/readyz", status=503)
        assert "MongoDB" in answer.text
        refused = await service.call("POST", "/watchers", stage.described(), status=503)
        assert refused.headers["content-type"].startswith("application/problem+json")
        await nats.start()
        await down(service, "mongo")
        assert await service.state(stage.watcher) is None
        await mongo.start()
        await until(service.up, "/healthz is UP", within=40)
        assert (await service.call("GET", "/readyz")).status_code == 200
        await stage.write(100)
        await stage.check()


# Waiting events and memory


@pytest.mark.long
async def test_memory_stays_flat_while_nats_is_down_and_events_wait(
    mongo_uri: str, own_nats: NatsServer, tmp_path: Path, unique: str
) -> None:
    """56 MB wait: more than the service may take for them."""
    count, most = 4_000, 0
    async with staged(mongo_uri, own_nats.url, tmp_path, unique) as stage:
        service = await stage.service().start()
        await stage.add(service)
        await stage.collection.insert_many([{"_id": -n, "n": -n, "text": "x" * 1400} for n in range(1000, 0, -1)])
        await stage.until_length(1000)
        before = service.resident
        await end(own_nats, "SIGKILL")
        for first in range(1, count + 1, 200):
            await stage.collection.insert_many(
                [{"_id": n, "n": n, "text": f"{n:014000}"} for n in range(first, first + 200)]
            )
            most = max(most, service.resident)
        await down(service, "nats")
        for _ in range(20):
            await asyncio.sleep(0.1)  # the scenario: time in which a reader without bounds would go on reading
            most = max(most, service.resident)
        assert most - before < 40 * MEGABYTE, f"{before:,} bytes before, {most:,} while {count:,} events waited"
        await own_nats.start()
        stage.written = [Change("insert", n, n) for n in (*range(-1000, 0), *range(1, count + 1))]
        await stage.until_length(len(stage.written), within=60)
        assert service.resident - before < 60 * MEGABYTE, "after they were published"
        await stage.check()


# One watcher's trouble


async def beside(stage: Stage, service: Service) -> dict[str, Any]:
    """Add the watcher that is to break, of the collection `broken`; the stage's own is the healthy one."""
    await stage.add(service)
    broken = stage.described()
    broken["name"], broken["source"]["collection"], broken["checkpoint"]["collection"] = "broken", "broken", "broken"
    broken["sink"]["stream"] = f"{stage.stream}_BROKEN"
    await service.call("POST", "/watchers", broken, status=201)
    await service.until_state("broken", "RUNNING")
    await stage.mongo[stage.database]["broken"].insert_one({"_id": 1, "n": 1})
    await stage.until_length(1, stream=broken["sink"]["stream"])
    return broken


async def test_a_watcher_whose_stream_is_deleted_retries_alone_and_says_why(stage: Stage) -> None:
    service = await stage.service().start()
    broken = await beside(stage, service)
    async with stage.load():
        await (await stage.nats()).jetstream().delete_stream(broken["sink"]["stream"])
        await stage.mongo[stage.database]["broken"].insert_one({"_id": 2, "n": 2})
        status = await service.until_state("broken", "RETRYING", "FAILED")
        assert broken["sink"]["stream"] in status["reason"], status
        await stage.until_length(await stage.length() + 200)
    assert (await service.status(stage.watcher))["restarts"] == 0
    assert await service.state(stage.watcher) == "RUNNING"
    assert await stage.length(broken["sink"]["stream"]) == 0, "recreated without the user's knowledge"
    await stage.check()


async def test_a_watcher_whose_collection_becomes_a_view_fails_alone_and_says_why(stage: Stage) -> None:
    service = await stage.service().start()
    await beside(stage, service)
    database = stage.mongo[stage.database]
    async with stage.load():
        await database["broken"].drop()
        await database.create_collection("broken", viewOn="things", pipeline=[])
        await service.call("POST", "/watchers/broken/restart", status=202)
        status = await service.until_state("broken", "FAILED")
        assert "view" in status["reason"], status
        await stage.until_length(await stage.length() + 200)
    assert (await service.status(stage.watcher))["restarts"] == 0
    assert await service.state(stage.watcher) == "RUNNING"
    health = await service.call("GET", "/healthz", status=503)
    assert "broken" in health.json()["components"]["watchers"]["reason"]
    await stage.check()


async def test_a_watcher_whose_stream_is_full_waits_alone_and_goes_on_where_it_was(stage: Stage) -> None:
    """A stream that takes no more (`max_bytes`, discard new) holds its own watcher up, in order, and nobody else."""
    service = await stage.service().start()
    jetstream = (await stage.nats()).jetstream()
    await beside(stage, service)
    name = f"{stage.stream}_BROKEN"
    full = (await jetstream.stream_info(name)).config
    full.max_msgs, full.discard = 3, DiscardPolicy.NEW
    await jetstream.update_stream(full)
    async with stage.load():
        await stage.mongo[stage.database]["broken"].insert_many([{"_id": n, "n": n} for n in range(2, 11)])
        await service.until_state("broken", "RETRYING")
        await stage.until_length(await stage.length() + 200)
    assert await stage.length(name) <= 3
    full.max_msgs = -1
    await jetstream.update_stream(full)
    await stage.until_length(10, stream=name)
    assert_same([Change("insert", n, n) for n in range(1, 11)], [each.change for each in await stage.messages(name)])
    assert (await service.status(stage.watcher))["restarts"] == 0
    await stage.check()


async def test_a_watcher_whose_stream_is_sealed_stops_alone_says_so_and_skips_nothing(stage: Stage) -> None:
    """Sealing is permanent: what comes after it waits in the oplog until the watcher is given another stream."""
    service = await stage.service().start()
    broken = await beside(stage, service)
    name = broken["sink"]["stream"]
    jetstream = (await stage.nats()).jetstream()
    sealed = (await jetstream.stream_info(name)).config
    sealed.sealed, sealed.deny_delete, sealed.deny_purge = True, True, True
    async with stage.load():
        await jetstream.update_stream(sealed)
        await stage.mongo[stage.database]["broken"].insert_one({"_id": 2, "n": 2})
        status = await service.until_state("broken", "RETRYING", "FAILED")
        assert "sealed" in status["reason"], status
        await stage.until_length(await stage.length() + 200)
    broken["sink"]["stream"] = f"{name}_2"
    await service.call("PUT", "/watchers/broken", broken, status=200)
    await stage.until_length(1, stream=broken["sink"]["stream"])
    assert [each.change for each in await stage.messages(broken["sink"]["stream"])] == [Change("insert", 2, 2)]
    assert await stage.held(name) == 1
    await stage.check()


# What the service keeps, dropped under it


async def test_a_registry_that_is_dropped_under_load_is_stored_again_and_nothing_is_missed(
    stage: Stage, unique: str
) -> None:
    service = await stage.service().start()
    await stage.add(service)
    state = stage.mongo[f"state_{unique}"]
    async with stage.load():
        await stage.until_length(100)
        for name in ("watchers", "registry", "instances", "members"):
            await state.drop_collection(name)
        await until(lambda: state["watchers"].find_one({"_id": stage.watcher}), "the watcher is stored again")
        assert await service.state(stage.watcher) == "RUNNING"
        await stage.service("other").start()
        assert await service.terminate() == 0, service.log_tail()
        other = await stage.owner()  # by what was stored again
        await other.until_state(stage.watcher, "RUNNING")
        await stage.until_length(await stage.length() + 100)
    await stage.check()
