"""Snapshots where several instances share the watchers, and those that begin with their watcher: whatever dies, each
document comes once, at its exact place."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from tests.integration.service.test_snapshots import arrived, begin, fill, now, until_ended
from tests.service import Service, Stage, until
from tests.service.rows import check_rows


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
        assert (seen["run"], (await stage.owner()).name) == (run, other.name)
    assert check_rows(before, await arrived(stage, seen), await now(stage)) >= 30_000


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
