"""History about to be lost is said in time, of watchers that run and of those that are paused; never without need."""

import asyncio

import pytest
import pytest_asyncio

from app.control import health, server_probe
from app.control.registry import Registry
from app.domain.lifecycle import State
from tests.fakes import BEGIN
from tests.unit.deployment import Fakes, until, until_state, watcher


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Fakes:
    monkeypatch.setattr(health, "WATCH_SECONDS", 0.01)
    monkeypatch.setattr(server_probe, "INTERVAL_SECONDS", 0.01)
    monkeypatch.setattr(server_probe, "OPLOG_SECONDS", 0.0)
    return Fakes()


@pytest_asyncio.fixture
async def registry(registry: Registry) -> Registry:
    """The one of all, with a watcher that runs."""
    await registry.add(watcher("orders"))
    await until_state(registry, "orders", State.RUNNING)
    return registry


async def warnings(registry: Registry) -> tuple[str, ...]:
    health = await registry.health()
    assert health.components["watchers"].up
    return health.components["watchers"].warnings


async def until_warned(registry: Registry, wanted: bool) -> None:
    async with asyncio.timeout(10):
        while bool(await warnings(registry)) is not wanted:
            await asyncio.sleep(0.001)


async def test_a_young_oplog_is_no_reason_to_warn(fakes: Fakes, registry: Registry) -> None:
    fakes.oplog.happen()
    looked = 0

    async def counted() -> object:
        nonlocal looked
        looked += 1
        return await type(fakes.mongo).read_oplog(fakes.mongo)

    fakes.mongo.read_oplog = counted  # type: ignore[method-assign,assignment]
    await until(lambda: looked > 10)
    assert await warnings(registry) == ()


async def test_a_full_oplog_that_reaches_back_too_little_is_warned_of_and_nothing_goes_down(
    fakes: Fakes, registry: Registry
) -> None:
    fakes.mongo.full = True
    await until_warned(registry, True)
    (said,) = await warnings(registry)
    assert said.startswith("orders: ")
    assert "fewer than 3600" in said
    assert any("seconds of oplog are left" in note for note in (await registry.watcher("orders")).status.notes)
    registry.observe_positions()
    assert fakes.observers[-1].at_risk == {"orders": True}
    fakes.mongo.full = False
    await until_warned(registry, False)
    registry.observe_positions()
    assert fakes.observers[-1].at_risk == {"orders": False}
    assert (await registry.watcher("orders")).status.notes == ()


async def test_a_watcher_paused_before_this_process_began_is_warned_of(fakes: Fakes, registry: Registry) -> None:
    await registry.pause("orders")
    await until_state(registry, "orders", State.PAUSED)
    second = fakes.registry()
    second.start()
    try:
        await until_state(second, "orders", State.PAUSED)
        fakes.mongo.full = True
        await until_warned(second, True)
        second.observe_positions()
    finally:
        await second.close()


async def test_a_watcher_that_waits_for_events_has_no_lag_however_far_the_server_moves_on(
    fakes: Fakes, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def far() -> int:
        return BEGIN + 1000

    monkeypatch.setattr(fakes.mongo, "ping", far)
    await until(lambda: fakes.probes[-1].operation_time == BEGIN + 1000)
    async with asyncio.timeout(10):  # it is told once it waits
        while (waiting := (await registry.lag("orders")).seconds) is None or waiting >= 10:
            await asyncio.sleep(0.001)
    await registry.pause("orders")
    await until_state(registry, "orders", State.PAUSED)
    paused = (await registry.lag("orders")).seconds
    assert paused is not None
    assert paused > 900
