"""What is stored and what runs come to agree: servers may be absent, requests cancelled, tasks ended meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from app.control.registry import Registry
from app.domain.errors import SourceUnavailable, Unavailable
from app.domain.lifecycle import Desired, State
from app.domain.status import WatcherView
from app.domain.watcher import Sink, StoredWatcher
from tests.fakes import FakeSink
from tests.unit.deployment import Fakes, kill, until, until_state, watcher

ORDERS = watcher("orders")
FEWER = replace(ORDERS, sink=replace(ORDERS.sink, operations=("insert",)))


class Drain:
    """Holds back what a watcher publishes, so that stopping it takes time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held, self.released = asyncio.Event(), asyncio.Event()
        publish = FakeSink.publish

        async def slow(*arguments: Any) -> int:
            self.held.set()
            await self.released.wait()
            return await publish(*arguments)

        monkeypatch.setattr(FakeSink, "publish", slow)


async def pausing(
    fakes: Fakes, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> tuple[Drain, asyncio.Future[WatcherView]]:
    """Add a watcher, and pause it: that is stored, and its drain held back."""
    await registry.add(ORDERS)
    await until_state(registry, "orders", State.RUNNING)
    drain = Drain(monkeypatch)
    fakes.oplog.happen("insert")
    await drain.held.wait()
    pause = asyncio.ensure_future(registry.pause("orders"))
    await until(lambda: fakes.watchers.stored["orders"].desired is Desired.PAUSED)
    return drain, pause


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


async def test_a_drain_holds_up_no_other_watcher_and_is_not_said_to_be_over(
    fakes: Fakes, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others go by what an instance says it has carried out: they may move the watcher then."""
    await registry.add(ORDERS)
    await registry.add(replace(watcher("items"), sink=Sink("ITEMS", operations=("delete",))))  # publishes nothing here
    for name in ("orders", "items"):
        await until_state(registry, name, State.RUNNING)
    drain = Drain(monkeypatch)
    fakes.oplog.happen("insert")
    await drain.held.wait()
    pause = asyncio.ensure_future(registry.pause("orders"))
    await until(lambda: fakes.watchers.stored["orders"].desired is Desired.PAUSED)
    for desired in (Desired.PAUSED, Desired.RUNNING):  # through another instance
        items = fakes.watchers.stored["items"]
        await fakes.watchers.replace(replace(items, desired=desired), expected_revision=items.revision)
        await until_state(registry, "items", State.PAUSED if desired is Desired.PAUSED else State.RUNNING)
    assert not pause.done()
    paused = fakes.watchers.stored["orders"].revision
    assert max(fakes.watchers.instances.values()) < paused
    drain.released.set()
    await pause
    await until(lambda: min(fakes.watchers.instances.values()) == fakes.watchers.last)


async def test_watchers_that_are_dropped_during_a_drain_are_stored_again(
    fakes: Fakes, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain, pause = await pausing(fakes, registry, monkeypatch)
    items = replace(watcher("items"), sink=Sink("ITEMS", operations=("delete",)))
    await fakes.watchers.insert(StoredWatcher(items))  # a round that sees this has seen the pause
    await until_state(registry, "items", State.RUNNING)
    fakes.watchers.stored.clear()  # the collection alone: the counter stays
    await until(lambda: fakes.watchers.stored)
    assert sorted(fakes.watchers.stored) == ["items", "orders"]
    drain.released.set()
    await pause
    assert [view.stored.name for view in await registry.watchers()] == ["items", "orders"]


async def test_watchers_that_a_restored_backup_brings_back_a_moment_later_are_followed(
    fakes: Fakes, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registry.add(ORDERS)
    await until_state(registry, "orders", State.RUNNING)
    backup = dict(fakes.watchers.stored)
    await registry.add(replace(watcher("added"), sink=Sink("ADDED")))
    await until_state(registry, "added", State.RUNNING)
    gone, load = 0, fakes.watchers.load

    async def restored() -> list[StoredWatcher]:
        nonlocal gone
        gone += not fakes.watchers.stored
        if gone == 2:
            fakes.watchers.stored.update(backup)
        return await load()

    monkeypatch.setattr(fakes.watchers, "load", restored)
    fakes.watchers.stored.clear()

    async def followed() -> bool:
        return [view.stored.name for view in await registry.watchers()] == ["orders"]

    await until(followed)
    assert list(fakes.watchers.stored) == ["orders"]


async def test_a_watcher_removed_elsewhere_during_a_drain_is_not_stored_again(
    fakes: Fakes, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    drain, pause = await pausing(fakes, registry, monkeypatch)
    looks, load = 0, fakes.watchers.load

    async def counted() -> list[StoredWatcher]:
        nonlocal looks
        looks += 1
        return await load()

    monkeypatch.setattr(fakes.watchers, "load", counted)
    await fakes.watchers.delete("orders")
    await until(lambda: looks >= 4)
    assert not fakes.watchers.stored
    drain.released.set()
    await asyncio.gather(pause, return_exceptions=True)
    await until(lambda: not fakes.watchers.stored)


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
    with pytest.raises(Unavailable, match="stopping"):
        await request
    assert not [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith(("change:", "watcher:"))]
    assert fakes.watchers.stored["orders"].watcher == ORDERS


def alive(prefix: str) -> list[str]:
    return [name for task in asyncio.all_tasks() if (name := task.get_name()).startswith(prefix)]


async def test_a_service_that_stops_drains_while_a_change_is_slow_to_end(
    fakes: Fakes, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A frozen MongoDB holds a change for five seconds after it is cancelled. What is stopped then stays so."""
    await registry.add(ORDERS)
    await registry.add(watcher("items"))
    for name in ("orders", "items"):
        await until_state(registry, name, State.RUNNING)
    asked, ended = asyncio.Event(), asyncio.Event()

    async def frozen(*_: object, **__: object) -> StoredWatcher:
        asked.set()
        try:
            return await asyncio.Future()
        finally:
            await ended.wait()

    monkeypatch.setattr(fakes.watchers, "replace", frozen)
    request = asyncio.ensure_future(registry.put(FEWER))
    await asked.wait()
    closing = asyncio.ensure_future(registry.close())
    await until(lambda: not alive("watcher:"))
    assert fakes.watchers.instances
    assert not closing.done()
    ended.set()
    assert await closing
    with pytest.raises(Unavailable, match="stopping"):
        await request
    assert not alive("watcher:")
    assert not fakes.watchers.instances


async def test_a_task_that_was_cancelled_without_an_order_runs_again(fakes: Fakes, registry: Registry) -> None:
    await registry.add(ORDERS)
    await until_state(registry, "orders", State.RUNNING)
    await kill()
    token = fakes.oplog.happen()
    await until(lambda: fakes.stream().published() == [token])


async def test_a_restart_of_the_service_restores_every_watcher_as_it_was(fakes: Fakes, registry: Registry) -> None:
    await registry.add(ORDERS)
    await until_state(registry, "orders", State.RUNNING)
    await registry.add(watcher("items"), paused=True)
    first = fakes.oplog.happen()
    await until(lambda: fakes.stream().messages)
    assert await registry.close()
    second = fakes.oplog.happen()
    again = fakes.registry()
    again.start()
    await until(lambda: len(fakes.stream().messages) == 2)
    assert fakes.stream().published() == [first, second]
    assert [view.stored.name for view in await again.watchers(State.PAUSED)] == ["items"]
    await again.close()


async def test_what_another_instance_changes_is_followed(fakes: Fakes, registry: Registry) -> None:
    other = fakes.registry()
    other.start()
    await until(lambda: other.ready() is None)
    await registry.add(ORDERS)
    await until_state(registry, "orders", State.RUNNING)
    await until_state(other, "orders", State.RUNNING, State.FENCED)
    await other.pause("orders")
    await until_state(registry, "orders", State.PAUSED)
    await other.resume("orders")
    await until_state(registry, "orders", State.RUNNING)
    await other.remove("orders")
    async with asyncio.timeout(10):
        while await registry.watchers():
            await asyncio.sleep(0.001)
    await other.close()


async def test_servers_absent_at_start_are_waited_for(fakes: Fakes) -> None:
    fakes.watchers.reachable = fakes.nats.up = False
    registry = fakes.registry()
    registry.start()
    await until(lambda: "connection refused" in str(registry.ready()))
    with pytest.raises(Unavailable, match=r"loaded"):
        await registry.add(ORDERS)
    assert not (await registry.health()).components["watchers"].up
    fakes.watchers.reachable = fakes.nats.up = True
    await until(lambda: registry.ready() is None)
    await registry.add(ORDERS)
    await until_state(registry, "orders", State.RUNNING)
    assert (await registry.health()).up
    await registry.close()


async def test_a_store_that_fails_later_is_said_and_survived(fakes: Fakes, registry: Registry) -> None:
    await registry.add(ORDERS)
    await until_state(registry, "orders", State.RUNNING)
    fakes.watchers.reachable = False
    with pytest.raises(Unavailable, match="connection refused"):
        await registry.pause("orders")
    token = fakes.oplog.happen()
    await until(lambda: fakes.stream().messages)
    assert fakes.stream().published() == [token]
    fakes.watchers.reachable = True


async def test_a_registry_that_cannot_be_read_is_said_once_and_only_where_mongodb_answers(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.control.server_probe.NOTICED_ATTEMPTS", 2)
    registry = fakes.registry()
    registry.start()
    await until(lambda: registry.ready() is None)
    with capture_logs() as logged:
        fakes.watchers.reachable = False
        await until(lambda: logged)
        await asyncio.sleep(0.2)  # some rounds more
    assert [(one["event"], one["log_level"]) for one in logged] == [("registry_unreachable", "warning")]
    fakes.watchers.reachable = True
    await until(lambda: registry.ready() is None)
    await registry.close()


async def test_a_registry_that_falls_with_mongodb_is_told_with_mongodb(fakes: Fakes) -> None:
    registry = fakes.registry()
    registry.start()
    await until(lambda: registry.ready() is None)
    with capture_logs() as logged:
        fakes.oplog.misfortune, fakes.watchers.reachable = SourceUnavailable("connection refused"), False
        await fakes.probes[-1].look()
        await asyncio.sleep(0.2)
        fakes.oplog.misfortune, fakes.watchers.reachable = None, True
        await fakes.probes[-1].look()
    assert [one["event"] for one in logged] == ["server_unreachable", "server_reachable"]
    await registry.close()


async def test_a_call_right_after_the_start_waits_for_the_watchers_instead_of_refusing(fakes: Fakes) -> None:
    fakes.watchers.put(StoredWatcher(ORDERS))
    registry = fakes.registry()
    registry.start()
    assert [view.stored.name for view in await registry.watchers()] == ["orders"]
    await registry.close()
    registry = fakes.registry()
    registry.start()
    assert (await registry.pause("orders")).status.state is State.PAUSED
    await registry.close()


async def test_watchers_that_are_not_loaded_are_not_said_to_be_absent(fakes: Fakes) -> None:
    fakes.watchers.put(StoredWatcher(ORDERS))
    fakes.watchers.reachable = False
    registry = fakes.registry()
    registry.start()
    for asked in (registry.watchers(), registry.watcher("orders"), registry.lag("orders"), registry.lags()):
        with pytest.raises(Unavailable, match="connection refused"):
            await asked
    fakes.watchers.reachable = True
    await until_state(registry, "orders", State.RUNNING)
    fakes.watchers.reachable = False  # what was known stays known
    assert [view.stored.name for view in await registry.watchers()] == ["orders"]
    await registry.close()


async def test_what_nobody_expected_stops_neither_the_probes_nor_following_the_store(fakes: Fakes) -> None:
    fakes.watchers.put(StoredWatcher(ORDERS))
    fakes.watchers.misfortune = fakes.oplog.misfortune = RuntimeError("boom")
    registry = fakes.registry()
    registry.start()
    await until(lambda: "inside Changewire" in str(registry.ready()))
    assert "boom" not in str((await registry.health()).components["watchers"].reason)
    fakes.watchers.misfortune = fakes.oplog.misfortune = None
    await fakes.probes[-1].look()
    await until_state(registry, "orders", State.RUNNING)
    await registry.close()
