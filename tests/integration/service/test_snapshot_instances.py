"""Snapshots where several instances share the watchers, and those that begin with their watcher: whatever dies, each
document comes once, at its exact place."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest
import pytest_asyncio

from app.domain.snapshot import Snapshot, next_run
from app.mongodb.deployment import MongoDeployment
from app.ports import SnapshotStore
from tests.integration.service.test_snapshots import arrived, begin, fill, now, until_ended
from tests.service import Service, Stage, until
from tests.service.rows import check_rows

pytestmark = pytest.mark.long


async def two(stage: Stage) -> list[Service]:
    """Two instances that share the watchers, ready."""
    services = [await stage.service(name).start() for name in ("one", "other")]
    for each in services:
        await until(partial(stage.takes, each), f"{each.name} is ready")
    return services


@pytest.mark.parametrize("end", ["drain", "kill"])
async def test_a_run_goes_on_at_the_instance_that_the_watcher_moves_to(stage: Stage, end: str) -> None:
    before = await fill(stage, 30_000)
    stage._alive.extend(before)
    services = await two(stage)
    await stage.add(services[0])
    owner = await stage.owner()
    other = next(each for each in services if each is not owner)
    async with stage.load():
        run = await begin(stage, other)
        await stage.until_length(2_000, within=60)
        if end == "kill":
            owner.kill()
        else:
            await owner.call("PUT", f"/instances/{owner.name}/drain", status=202)
        seen = await until_ended(stage, other, within=100)
        assert seen["run"] == run

        async def moved() -> bool:
            return (await stage.owners()).get(stage.watcher) == other.name

        await until(moved, "the other one owns the watcher")
    assert check_rows(before, await arrived(stage, seen), await now(stage)) >= 30_000


@pytest_asyncio.fixture
async def store(stage: Stage) -> AsyncIterator[SnapshotStore]:
    """The stored runs, as an instance has them that was frozen, and does not know yet that it was replaced."""
    deployment = MongoDeployment(stage.mongo_uri, state_database=stage.state_database)
    yield deployment.snapshots()
    deployment.close()


@pytest.mark.parametrize("paused", [False, True])
async def test_a_run_is_taken_up_that_another_instance_began_when_the_watcher_was_not_its_own_any_more(
    stage: Stage, store: SnapshotStore, paused: bool
) -> None:
    before = await fill(stage, 3_000)
    stage._alive.extend(before)
    service = await stage.service().start()
    await stage.add(service)
    await begin(stage, service)
    first = await until_ended(stage, service)
    if paused:
        await service.call("PUT", f"/watchers/{stage.watcher}/pause", status=202)
    there = await store.read(stage.watcher)
    assert there is not None
    run = Snapshot(stage.watcher, next_run(there, time.time()), "on_demand", time.time())
    assert await store.put(run, there)

    async def known() -> bool:
        seen = (await service.status(stage.watcher))["snapshot"]
        return bool(seen["run"] == run.run and (paused or seen["state"] == "done"))

    await until(known, "the service knows the run", within=30)
    if paused:
        await service.call("PUT", f"/watchers/{stage.watcher}/resume", status=202)
    seen = await until_ended(stage, service)
    seen["documents"] += first["documents"] + 1
    messages = await arrived(stage, seen)
    assert check_rows(before, messages[first["documents"] + 1 :], await now(stage), run=run.run) == 3_000


async def test_a_run_that_waits_ends_where_another_instance_has_ended_it(stage: Stage, store: SnapshotStore) -> None:
    service = await stage.service().start()
    await stage.add(service)
    await service.call("PUT", f"/watchers/{stage.watcher}/pause", status=202)
    await begin(stage, service)
    there = await store.read(stage.watcher)
    assert there is not None
    assert await store.change(there, there.ended("cancelled", time.time(), "somebody has cancelled it"))
    assert "somebody" in (await until_ended(stage, service, "cancelled"))["reason"]


async def test_a_run_that_begins_with_its_watcher_begins_once_though_the_service_dies_at_once(stage: Stage) -> None:
    before = await fill(stage, 5_000)
    stage._alive.extend(before)
    service = await stage.service().start()
    await until(lambda: stage.takes(service), "it is ready")
    definition: dict[str, Any] = stage.described() | {"snapshot": "initial"}
    run = (await service.call("POST", "/watchers", definition, status=201)).json()["status"]["snapshot"]["run"]
    service.kill()
    async with stage.load():
        for _ in range(2):
            await service.start()
            service.kill()
        await service.start()
        seen = await until_ended(stage, service)
    assert (seen["run"], seen["kind"]) == (run, "initial")
    service.kill()
    await service.start()
    await service.until_state(stage.watcher, "RUNNING")
    check_rows(before, await arrived(stage, seen), await now(stage), run=run)
