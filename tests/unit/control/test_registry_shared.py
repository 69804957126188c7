"""Several instances over one set of fake servers: each watcher runs at its owner alone, and moves without a loss."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
import pytest_asyncio

from app.control.registry import Registry
from app.domain.errors import Elsewhere, Unavailable
from app.domain.instances import GONE_SECONDS, Owners
from app.domain.lifecycle import State
from tests.unit.control.processes import ended
from tests.unit.deployment import Fakes, until, until_state, watcher

ORDERS = watcher("orders")


class Instances:
    """Registries by name, on the same fakes."""

    def __init__(self, fakes: Fakes) -> None:
        self.fakes = fakes
        self.running: dict[str, Registry] = {}

    async def start(self, name: str) -> Registry:
        registry = self.running[name] = self.fakes.registry(instance=name)
        registry.start()
        await until(lambda: registry.ready() is None)
        return registry

    async def end(self, name: str) -> bool:
        return await self.running.pop(name).close()

    def owner(self, watcher: str = "orders") -> str | None:
        """The instance that has a watcher; None while it is on its way."""
        owner = self.fakes.members.owners.of.get(watcher)
        return None if owner is None or owner.leaving else owner.by


@pytest_asyncio.fixture
async def instances(fakes: Fakes) -> AsyncIterator[Instances]:
    instances = Instances(fakes)
    yield instances
    for name in list(instances.running):
        await instances.end(name)


async def add(registry: Registry) -> None:
    await registry.add(ORDERS)
    await until_state(registry, "orders", State.RUNNING)


async def test_a_watcher_runs_at_its_owner_and_is_refused_at_the_others(instances: Instances) -> None:
    one, other = await instances.start("a"), await instances.start("b")
    await add(one)
    await until(lambda: instances.owner() == "a")
    await until(lambda: other.share.owner("orders") == "a")
    assert [view.stored.name for view in await one.watchers()] == ["orders"]
    await until(lambda: "orders" in other._watchers)
    assert await other.watchers() == []
    for change in (other.pause("orders"), other.remove("orders"), other.restart("orders")):
        with pytest.raises(Elsewhere, match="orders is run by the instance a; nothing was changed"):
            await change


async def test_a_watcher_moves_from_one_that_stops_and_nothing_is_lost_or_doubled(
    fakes: Fakes, instances: Instances
) -> None:
    one = await instances.start("a")
    await add(one)
    other = await instances.start("b")
    tokens = [fakes.oplog.happen() for _ in range(3)]
    await until(lambda: len(fakes.stream().messages) == 3)
    assert await instances.end("a")
    assert instances.owner() == "b", "before it has ended"
    tokens += [fakes.oplog.happen() for _ in range(3)]
    await until_state(other, "orders", State.RUNNING)
    await until(lambda: len(fakes.stream().messages) == 6)
    assert fakes.stream().published() == tokens


async def test_what_one_that_was_cut_off_owned_is_taken_over_and_let_go_of_once_it_is_back(
    fakes: Fakes, instances: Instances
) -> None:
    one = await instances.start("a")
    await add(one)
    other = await instances.start("b")
    fakes.instances["a"].reachable = False
    tokens = [fakes.oplog.happen() for _ in range(3)]
    fakes.members.now += GONE_SECONDS + 1
    await until(lambda: instances.owner() == "b")
    await until_state(other, "orders", State.RUNNING)
    tokens += [fakes.oplog.happen() for _ in range(3)]
    fakes.instances["a"].reachable = True
    await until(lambda: one.share.owner("orders") == "b")
    async with asyncio.timeout(10):
        while await one.watchers():
            await asyncio.sleep(0.001)
    await until(lambda: len(fakes.stream().messages) == 6)
    assert fakes.stream().published() == tokens


async def test_a_watcher_that_is_to_move_on_before_it_was_started_is_let_go_of(
    fakes: Fakes, instances: Instances
) -> None:
    """Nothing drains there, so no end of a drain tells that it may go."""
    runs = await instances.start("a")
    await add(runs)
    await until(lambda: instances.owner() == "a")
    idle = await instances.start("b")
    await until(lambda: "orders" in idle._watchers)
    record = fakes.members.owners
    fakes.members.owners = Owners(record.revision + 1, {"orders": replace(record.of["orders"], by="b", to="a")})
    await until(lambda: instances.owner() == "a")
    await until_state(runs, "orders", State.RUNNING)
    token = fakes.oplog.happen()
    await until(lambda: fakes.stream().published() == [token])


async def test_a_paused_watcher_is_paused_at_its_next_owner(instances: Instances) -> None:
    one = await instances.start("a")
    await add(one)
    other = await instances.start("b")
    await one.pause("orders")
    await instances.end("a")
    await until_state(other, "orders", State.PAUSED)


async def test_removed_at_its_owner_and_added_at_another_one_it_runs_there_or_here(
    fakes: Fakes, instances: Instances
) -> None:
    one, other = await instances.start("a"), await instances.start("b")
    await add(one)
    await until(lambda: "orders" in other._watchers)
    await one.remove("orders")
    await other.add(ORDERS)
    token = fakes.oplog.happen()
    await until(lambda: fakes.stream().published() == [token])
    await until(lambda: instances.owner() is not None)
    await until_state(instances.running[instances.owner() or ""], "orders", State.RUNNING)


async def test_one_that_takes_the_place_of_a_killed_one_does_not_wait_until_that_has_followed(
    fakes: Fakes, instances: Instances
) -> None:
    """The killed one had not said yet that it had carried out the last change."""
    one = await instances.start("a")
    await add(one)
    before = fakes.members.members["a"]
    await one.close()
    fakes.members.members["a"] = replace(before, process=ended(), seen=fakes.members.now, stopping=False)
    fakes.watchers.instances[before.session] = fakes.watchers.last - 1
    await instances.start("a")
    token = fakes.oplog.happen()
    await until(lambda: fakes.stream().published() == [token])
    assert before.session not in fakes.watchers.instances


async def test_a_second_one_of_a_live_name_runs_nothing_and_says_why(fakes: Fakes, instances: Instances) -> None:
    one = await instances.start("a")
    await add(one)
    member = fakes.members.members["a"]
    fakes.members.members["a"] = replace(member, process="")  # on another machine
    twin = fakes.registry(instance="a")
    twin.start()

    async def time_goes_on() -> None:
        while not twin.share.name_taken.is_set():
            fakes.members.now += 0.1
            await asyncio.sleep(0.02)

    async with asyncio.timeout(10):
        await time_goes_on()
    await until(lambda: "another live instance has the name a" in (twin.ready() or ""))
    with pytest.raises(Unavailable, match="another live instance has the name a"):
        await twin.pause("orders")
    assert await twin.close()
    assert instances.owner() == "a"
    token = fakes.oplog.happen()
    await until(lambda: fakes.stream().published() == [token])


async def test_one_stops_in_time_where_the_owners_cannot_be_stored(fakes: Fakes, instances: Instances) -> None:
    one = await instances.start("a")
    await add(one)
    await instances.start("b")
    fakes.instances["a"].reachable = False
    one.share.let_go("orders")
    assert await instances.end("a")
    fakes.members.now += GONE_SECONDS + 1
    await until(lambda: instances.owner() == "b")
