"""Several instances on one state database and one stream: what each is asked reaches all, and costs nothing."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from app.control.fallback_store import FallbackStore
from app.control.instance import Instance
from app.control.registry import Registry
from app.domain.errors import Conflict, Unavailable
from app.domain.lifecycle import State
from app.domain.position import Checkpoint
from app.domain.watcher import Start, Watcher
from tests.fakes import BEGIN, event_token
from tests.unit.deployment import Fakes, until, until_state, watcher

ORDERS = watcher("orders")


@pytest.fixture
def fakes() -> Fakes:
    return Fakes()


@pytest_asyncio.fixture
async def pair(fakes: Fakes) -> AsyncIterator[tuple[Registry, Registry]]:
    """Two instances that have loaded; the second follows the store at its leisure."""
    one, other = fakes.registry(), fakes.registry()
    for registry in (one, other):
        registry.start()
        await until(lambda: registry.ready() is None)  # noqa: B023 - awaited in the same round
    yield one, other
    await asyncio.gather(one.close(), other.close())


def changed(**sink: Any) -> Watcher:
    return replace(ORDERS, sink=replace(ORDERS.sink, **sink))


async def test_two_that_overlap_are_not_taken_in_through_two_instances_at_once(
    fakes: Fakes, pair: tuple[Registry, Registry]
) -> None:
    rival = replace(watcher("items"), sink=ORDERS.sink)
    results = await asyncio.gather(pair[0].add(ORDERS), pair[1].add(rival), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Conflict", "WatcherView"]
    assert len(fakes.watchers.stored) == 1


async def test_one_that_was_removed_and_added_otherwise_is_so_everywhere(
    fakes: Fakes, pair: tuple[Registry, Registry]
) -> None:
    await pair[0].add(changed(operations=("delete",)))
    await until_state(pair[1], "orders", State.RUNNING, State.FENCED)
    await pair[0].remove("orders")
    await pair[0].add(ORDERS)
    for registry in pair:
        await until_state(registry, "orders", State.RUNNING, State.FENCED)
    assert fakes.watchers.stored["orders"].watcher == ORDERS
    tokens = [fakes.oplog.happen("insert") for _ in range(5)]
    await until(lambda: len(fakes.stream().messages) == 5)
    await pair[0].close()
    tokens += [fakes.oplog.happen("insert") for _ in range(5)]
    await until(lambda: len(fakes.stream().messages) == 10)
    assert fakes.stream().published() == tokens
    assert (await pair[1].watcher("orders")).stored.watcher == ORDERS
    assert fakes.watchers.stored["orders"].watcher == ORDERS


async def test_a_changed_selection_neither_misses_nor_doubles_while_another_still_runs_the_old_one(
    fakes: Fakes, pair: tuple[Registry, Registry]
) -> None:
    await pair[0].add(changed(operations=("insert",)))
    for registry in pair:
        await until_state(registry, "orders", State.RUNNING, State.FENCED)
    for _ in range(20):
        fakes.oplog.happen("insert")
        await asyncio.sleep(0.001)
    await pair[0].put(ORDERS)
    after = []
    for _ in range(40):
        after += [fakes.oplog.happen("insert"), fakes.oplog.happen("update", documentKey={"_id": 1})]
        await asyncio.sleep(0.005)
    await until(lambda: fakes.stream().published()[-1:] == after[-1:])
    published = fakes.stream().published()
    assert published == sorted(set(published))
    inserts = [token for token, raw in fakes.oplog.events if b"insert" in raw]
    assert set(inserts) <= set(published)
    # From the first update on that is there, every change is.
    first = min(token for token in published if token not in inserts)
    assert [token for token in after if token >= first] == [token for token in published if token >= first]


async def test_another_stream_gets_what_follows_and_nothing_twice(
    fakes: Fakes, pair: tuple[Registry, Registry]
) -> None:
    await pair[0].add(ORDERS)
    for registry in pair:
        await until_state(registry, "orders", State.RUNNING, State.FENCED)
    tokens = []
    for number in range(40):
        tokens.append(fakes.oplog.happen())
        if number == 20:
            await pair[0].put(changed(stream="SALES", subject="SALES.{operation}"))
        await asyncio.sleep(0.005)
    await until(lambda: fakes.stream("SALES").published()[-1:] == tokens[-1:])
    assert fakes.stream().published() + fakes.stream("SALES").published() == tokens


async def test_removed_with_its_position_and_added_on_another_stream_it_goes_on_there(fakes: Fakes) -> None:
    registry = fakes.registry()
    registry.start()
    await registry.add(ORDERS)
    await until_state(registry, "orders", State.RUNNING)
    before = [fakes.oplog.happen() for _ in range(3)]
    await until(lambda: len(fakes.stream().messages) == 3)
    await registry.remove("orders")
    after = [fakes.oplog.happen() for _ in range(3)]
    await registry.add(changed(stream="SALES", subject="SALES.{operation}"))
    await until(lambda: len(fakes.stream("SALES").messages) == 3)
    assert fakes.stream().published() == before
    assert fakes.stream("SALES").published() == after
    await registry.close()


async def test_what_is_acknowledged_and_not_yet_stored_goes_along_to_another_stream(fakes: Fakes) -> None:
    registry = fakes.registry()
    registry.start()
    await registry.add(ORDERS)
    await until_state(registry, "orders", State.RUNNING)
    before = [fakes.oplog.happen() for _ in range(5)]
    await until(lambda: len(fakes.stream().messages) == 5)
    place = fakes.mongo.places["resume-tokens.orders"]
    await registry.pause("orders")
    place["newest"] = replace(place["newest"], token=before[1], sequence=2)  # the writes since then failed
    fakes.stream().purge()
    await registry.put(changed(stream="SALES", subject="SALES.{operation}"))
    after = fakes.oplog.happen()
    await until(lambda: fakes.stream("SALES").messages)
    assert fakes.stream("SALES").published() == [after]
    await registry.close()


async def test_a_new_life_on_a_purged_stream_publishes_though_the_window_knows_the_old_ids(fakes: Fakes) -> None:
    registry = fakes.registry()
    registry.start()
    await registry.add(ORDERS)
    await until_state(registry, "orders", State.RUNNING)
    tokens = [fakes.oplog.happen() for _ in range(3)]
    await until(lambda: len(fakes.stream().messages) == 3)
    await registry.remove("orders", delete_checkpoint=True)
    fakes.stream().purge()
    await registry.add(replace(ORDERS, start=Start("earliest")), explicit_start=True)
    await until(lambda: len(fakes.stream().messages) == 3)
    assert fakes.stream().published() == tokens
    await registry.close()


async def test_a_position_that_another_instance_stored_just_before_it_followed_the_removal_is_deleted_too(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = fakes.registry()
    registry.start()
    await registry.add(ORDERS)
    await until_state(registry, "orders", State.RUNNING)
    delete = fakes.watchers.delete

    async def store_and_follow(name: str, **more: Any) -> int:
        """The other one writes after our first deletion, and has followed before anybody looks for it."""
        fakes.mongo.place(ORDERS)["newest"] = Checkpoint(event_token(1), epoch=0)
        return await delete(name, **more)

    monkeypatch.setattr(fakes.watchers, "delete", store_and_follow)
    await registry.remove("orders", delete_checkpoint=True)
    assert not any(fakes.mongo.places.values())
    await registry.close()


async def test_a_position_deleted_with_its_watcher_stays_deleted(fakes: Fakes, pair: tuple[Registry, Registry]) -> None:
    await pair[0].add(ORDERS)
    for registry in pair:
        await until_state(registry, "orders", State.RUNNING, State.FENCED)
    fakes.oplog.happen()
    await until(lambda: fakes.stream().messages)
    await pair[0].remove("orders", delete_checkpoint=True)
    async with asyncio.timeout(10):
        while await pair[1].watchers():
            await asyncio.sleep(0.001)
    assert not any(fakes.mongo.places.values())


async def test_a_move_waits_until_every_instance_stands_still(fakes: Fakes, pair: tuple[Registry, Registry]) -> None:
    await pair[0].add(ORDERS)
    for registry in pair:
        await until_state(registry, "orders", State.RUNNING, State.FENCED)
    tokens = [fakes.oplog.happen() for _ in range(5)]
    await until(lambda: len(fakes.stream().messages) == 5)
    await pair[0].pause("orders")
    await pair[0].set_token("orders", Start("timestamp", float(BEGIN + 3)))
    assert (await pair[1].watcher("orders")).status.state is State.PAUSED
    await pair[1].resume("orders")
    tokens.append(fakes.oplog.happen())
    await until(lambda: len(fakes.stream().messages) == 9)
    assert fakes.stream().published() == tokens[:5] + tokens[2:]


async def test_two_moves_through_two_instances_at_once_do_not_wait_for_each_other(
    fakes: Fakes, pair: tuple[Registry, Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.control.changes.FOLLOW_SECONDS", 5.0)
    tokens = [fakes.oplog.happen() for _ in range(3)]
    # Neither has ever run, so that each still has a start that a round would take back.
    await asyncio.gather(pair[0].add(watcher("orders"), paused=True), pair[1].add(watcher("items"), paused=True))
    views = await asyncio.gather(
        pair[0].set_token("orders", Start("token", tokens[0])), pair[1].set_token("items", Start("token", tokens[1]))
    )
    assert [view.token for view in views] == tokens[:2]


async def test_an_instance_that_never_follows_is_said(
    fakes: Fakes, pair: tuple[Registry, Registry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.control.changes.FOLLOW_SECONDS", 0.2)
    await pair[0].add(ORDERS)
    await pair[0].pause("orders")
    fakes.watchers.instances["frozen"] = 0
    with pytest.raises(Unavailable, match="has not followed the last change"):
        await pair[0].set_token("orders", Start("token", event_token(1)))
    del fakes.watchers.instances["frozen"]


async def test_one_refused_goes_as_soon_as_its_way_is_free(fakes: Fakes) -> None:
    rival = replace(watcher("rival"), sink=ORDERS.sink)
    one, other = fakes.registry(from_file=[ORDERS, rival]), fakes.registry(from_file=[ORDERS, rival])
    for registry in (one, other):
        registry.start()
    for registry in (one, other):
        await until_state(registry, "orders", State.RUNNING, State.FENCED)
        await until_state(registry, "rival", State.FAILED)
    await asyncio.gather(one.close(), other.close())
    left = fakes.registry(from_file=[rival])
    left.start()
    await until_state(left, "rival", State.RUNNING)
    await left.close()


async def test_a_start_that_is_changed_before_the_watcher_ever_ran_counts(fakes: Fakes) -> None:
    registry = fakes.registry()
    registry.start()
    tokens = [fakes.oplog.happen() for _ in range(3)]
    await registry.add(ORDERS, paused=True)
    await registry.put(replace(ORDERS, start=Start("earliest")), explicit_start=True)
    await until(lambda: len(fakes.stream().messages) == 3)
    assert fakes.stream().published() == tokens
    await registry.close()


async def test_a_surprise_while_replacing_leaves_the_old_one_running(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = fakes.registry()
    registry.start()
    await registry.add(ORDERS)
    await until_state(registry, "orders", State.RUNNING)

    async def explode(*_: object, **__: object) -> None:
        raise RuntimeError("boom")

    with monkeypatch.context() as patch:
        patch.setattr(fakes.watchers, "replace", explode)
        with pytest.raises(RuntimeError):
            await registry.put(changed(operations=("insert",)))
    await until_state(registry, "orders", State.RUNNING)
    with pytest.raises(Conflict):
        await registry.add(ORDERS)
    await registry.close()


async def test_watchers_go_on_and_are_stored_again_where_the_registry_was_dropped(
    fakes: Fakes, pair: tuple[Registry, Registry]
) -> None:
    await pair[0].add(ORDERS)
    for registry in pair:
        await until_state(registry, "orders", State.RUNNING, State.FENCED)
    was = fakes.watchers.stored["orders"]
    fakes.watchers.stored.clear()
    fakes.watchers.last = 0
    await until(lambda: "orders" in fakes.watchers.stored)
    assert replace(fakes.watchers.stored["orders"], new_start=False, begin=None) == replace(
        was, new_start=False, begin=None
    )
    tokens = [fakes.oplog.happen("insert") for _ in range(5)]
    await until(lambda: len(fakes.stream().messages) == 5)
    assert fakes.stream().published() == tokens
    for registry in pair:
        assert (await registry.watcher("orders")).status.state in (State.RUNNING, State.FENCED)
    await pair[1].remove("orders")
    await until(lambda: set(fakes.watchers.instances.values()) == {fakes.watchers.last})
    assert not fakes.watchers.stored  # what is removed as it should be stays so


async def test_a_wait_for_the_others_ends_where_the_restored_registry_counts_from_less(fakes: Fakes) -> None:
    fakes.watchers.last = 9
    fakes.watchers.instances["other"] = 5
    waiting = asyncio.ensure_future(Instance(FallbackStore(fakes.watchers, possible=False), "one").others_followed())
    done, _ = await asyncio.wait([waiting], timeout=0.05)
    assert not done
    fakes.watchers.last = fakes.watchers.instances["other"] = 6
    async with asyncio.timeout(5):
        assert await waiting


async def test_a_call_while_the_registry_is_gone_ends_no_watcher(fakes: Fakes) -> None:
    registry = fakes.registry()
    registry.start()
    await registry.add(ORDERS)
    await until_state(registry, "orders", State.RUNNING)
    await until(lambda: list(fakes.watchers.instances.values()) == [1])
    async with asyncio.timeout(10):
        while not (await registry.health()).up:  # a first round that has not ended takes the loss for a removal
            await asyncio.sleep(0.001)
    fakes.watchers.stored.clear()
    with pytest.raises(Unavailable):
        await registry.pause("orders")
    await until(lambda: fakes.watchers.stored)
    assert (await registry.watcher("orders")).status.state is State.RUNNING
    await registry.close()
