"""What is stored and what runs come to agree: after a cancelled request, after a task that ended by itself."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from app.control.registry import Registry
from app.domain.lifecycle import Desired, State
from app.domain.watcher import StoredWatcher
from tests.fakes import FakeSink
from tests.unit.deployment import Fakes, until, until_state, watcher

ORDERS = watcher("orders")
FEWER = replace(ORDERS, sink=replace(ORDERS.sink, operations=("insert",)))


class Drain:
    """Holds back what a watcher publishes, so that whoever stops it waits."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held, self.released = asyncio.Event(), asyncio.Event()
        publish = FakeSink.publish

        async def slow(*arguments: Any) -> int:
            self.held.set()
            await self.released.wait()
            return await publish(*arguments)

        monkeypatch.setattr(FakeSink, "publish", slow)


def stored_as(fakes: Fakes, expected: StoredWatcher | None) -> bool:
    now = fakes.watchers.stored.get("orders")
    if now is None or expected is None:
        return now is expected
    return (now.watcher, now.desired) == (expected.watcher, expected.desired)


@pytest.mark.parametrize(
    ("change", "afterwards"),
    [
        (lambda registry: registry.put(FEWER), StoredWatcher(FEWER)),
        (lambda registry: registry.pause("orders"), StoredWatcher(ORDERS, Desired.PAUSED)),
        (lambda registry: registry.restart("orders"), StoredWatcher(ORDERS)),
        (lambda registry: registry.remove("orders", delete_checkpoint=True), None),
    ],
    ids=["replace", "pause", "restart", "remove"],
)
async def test_a_request_that_is_cancelled_during_the_drain_leaves_no_half_of_a_change(
    fakes: Fakes,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[Registry], Awaitable[object]],
    afterwards: StoredWatcher | None,
) -> None:
    await registry.add(ORDERS)
    await until_state(registry, "orders", State.RUNNING)
    drain = Drain(monkeypatch)
    first = fakes.oplog.happen("insert")
    await drain.held.wait()
    request = asyncio.ensure_future(change(registry))
    for _ in range(20):  # it has come to the drain
        await asyncio.sleep(0.001)
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    drain.released.set()
    await until(lambda: stored_as(fakes, afterwards))
    if afterwards is None:
        async with asyncio.timeout(10):
            while await registry.watchers():
                await asyncio.sleep(0.001)
        await until(lambda: not any(fakes.mongo.places.values()))
        return
    await until_state(registry, "orders", State.PAUSED if afterwards.desired is Desired.PAUSED else State.RUNNING)
    if afterwards.desired is Desired.PAUSED:
        await registry.resume("orders")
    second = fakes.oplog.happen("insert")
    await until(lambda: fakes.stream().published() == [first, second])


async def test_a_service_that_stops_ends_the_changes_that_are_under_way(
    fakes: Fakes, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registry.add(ORDERS)
    await until_state(registry, "orders", State.RUNNING)
    asked, answered = asyncio.Event(), asyncio.Event()

    async def slow(*_: object, **__: object) -> StoredWatcher:
        asked.set()
        await answered.wait()
        raise AssertionError("it was cancelled")

    monkeypatch.setattr(fakes.watchers, "replace", slow)
    request = asyncio.ensure_future(registry.put(FEWER))
    await asked.wait()
    assert await registry.close()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert not [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith(("change:", "watcher:"))]
    assert fakes.watchers.stored["orders"].watcher == ORDERS


async def test_a_watchers_task_that_was_cancelled_by_nobody_who_may_runs_again(
    fakes: Fakes, registry: Registry
) -> None:
    await registry.add(ORDERS)
    await until_state(registry, "orders", State.RUNNING)
    (task,) = (task for task in asyncio.all_tasks() if task.get_name() == "watcher:orders")
    task.cancel()
    await asyncio.wait([task])
    token = fakes.oplog.happen()
    await until(lambda: fakes.stream().published() == [token])
