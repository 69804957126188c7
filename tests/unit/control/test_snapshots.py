"""Snapshots begun and ended, with and without a word of the user's, and what is known of them, over fakes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from app.control.registry import Registry
from app.domain.errors import Conflict, Invalid, NotFound, StoreUnavailable, Unavailable
from app.domain.lifecycle import State
from app.domain.snapshot import Part, Snapshot, first_run
from app.domain.status import SnapshotView
from app.domain.watcher import Source, StoredWatcher, Watcher
from tests.unit.deployment import Fakes, until, until_state, watcher

ORDERS = watcher("orders")
SHOP = Watcher("orders", Source("shop")).with_defaults()


async def view(registry: Registry, name: str = "orders") -> SnapshotView | None:
    return (await registry.watcher(name)).status.snapshot


async def found(registry: Registry, name: str = "orders") -> SnapshotView:
    seen = await view(registry, name)
    assert seen is not None
    return seen


def begun(run: Snapshot, **more: Any) -> Snapshot:
    """A run that has begun to read, as the capture stores it."""
    return replace(run, epoch=0, started_at=1.0, parts=(Part("shop.orders"),), version=run.version + 1, **more)


def ready(registry: Registry) -> bool:
    return registry.ready() is None


async def again(fakes: Fakes, registry: Registry) -> Registry:
    """The next process."""
    await registry.close()
    after = fakes.registry()
    after.start()
    await until(lambda: after.ready() is None)
    return after


@pytest.mark.parametrize("wanted", ["initial", "only"])
async def test_a_run_begins_when_its_watcher_is_added_and_waits_while_that_is_paused(
    fakes: Fakes, registry: Registry, wanted: Any
) -> None:
    added = await registry.add(replace(ORDERS, snapshot=wanted), paused=True)
    run = fakes.mongo.runs["orders"]
    assert (run.kind, run.state, run.wanted, run.filter) == ("initial", "running", (), None)
    assert added.status.snapshot == SnapshotView(run, "the watcher is PAUSED")


async def test_none_begins_where_none_is_wanted_or_later_by_a_change(fakes: Fakes, registry: Registry) -> None:
    await registry.add(ORDERS, paused=True)
    await registry.put(replace(ORDERS, snapshot="initial"), paused=True)
    assert fakes.mongo.runs == {}
    await registry.add(replace(watcher("items"), snapshot="initial"), paused=True, dry_run=True)
    assert fakes.mongo.runs == {}
    assert await view(registry) is None


async def test_a_watcher_whose_snapshot_cannot_be_taken_is_not_added(
    fakes: Fakes, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: object) -> None:
        raise Conflict("it needs a later MongoDB")

    monkeypatch.setattr("tests.fakes.FakeRows.check", refuse)
    with pytest.raises(Invalid) as refused:
        await registry.add(replace(ORDERS, snapshot="only"))
    assert [each.field for each in refused.value.problems] == ["snapshot"]
    assert fakes.mongo.runs == {}
    assert fakes.watchers.stored == {}
    await registry.add(ORDERS)


async def test_one_runs_at_a_time_and_the_next_one_has_a_greater_name(fakes: Fakes, registry: Registry) -> None:
    await registry.add(ORDERS, paused=True)
    first = await registry.snapshots.begin("orders", filter_={"n": {"$gt": 1}})
    assert (first.run.kind, first.run.filter, first.waits) == (
        "on_demand",
        '{"n": {"$gt": 1}}',
        "the watcher is PAUSED",
    )
    with pytest.raises(Conflict, match="is running already"):
        await registry.snapshots.begin("orders")
    ended = await registry.snapshots.cancel("orders")
    assert (ended.run.state, ended.run.reason, ended.waits) == ("cancelled", "somebody has cancelled it", None)
    with pytest.raises(Conflict, match="no snapshot of orders is running"):
        await registry.snapshots.cancel("orders")
    assert (await registry.snapshots.begin("orders")).run.run > first.run.run


async def test_a_failed_watcher_takes_none(fakes: Fakes, registry: Registry) -> None:
    fakes.stream().subjects = ["OTHER.*"]
    fakes.stream().exists = True
    await registry.add(ORDERS)
    await until_state(registry, "orders", State.FAILED)
    with pytest.raises(Conflict, match="orders is FAILED: "):
        await registry.snapshots.begin("orders")
    assert fakes.mongo.runs == {}


async def test_one_of_several_entries_takes_none(fakes: Fakes, registry: Registry) -> None:
    entries = (watcher("orders"), watcher("orders", include=()))
    fakes.watchers.put(StoredWatcher(replace(ORDERS, entries=entries), origin="file"))
    with pytest.raises(Conflict, match="several entries of the configuration file"):
        await registry.snapshots.begin("orders")


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        ("shop", "must be database.collection"), (".orders", "must be database.collection"),
        ("shop.", "must be database.collection"), ("local.orders", "a system database"),
        ("shop.a$b", "not a collection's name"), ("shop.\ud800", "Unicode"), ("shop." + "x" * 300, "is too long"),
        ("shop.a", "named twice"),
    ],
)  # fmt: skip
async def test_collections_that_cannot_be_are_refused_by_their_place(
    fakes: Fakes, registry: Registry, wanted: str, problem: str
) -> None:
    await registry.add(SHOP, paused=True)
    with pytest.raises(Invalid) as refused:
        await registry.snapshots.begin("orders", wanted=["shop.a", wanted])
    assert [each.field for each in refused.value.problems] == ["collections.1"]
    assert problem in refused.value.problems[0].problem
    assert fakes.mongo.runs == {}


async def test_javascript_needs_leave(fakes: Fakes, registry: Registry) -> None:
    await registry.add(ORDERS, paused=True)
    for filter_ in ({"$where": "1"}, {"$expr": {"$function": {}}}, {"$and": [{"a": 1}, {"$where": "1"}]}):
        with pytest.raises(Invalid) as refused:
            await registry.snapshots.begin("orders", filter_=filter_)
        assert [each.field for each in refused.value.problems] == ["filter"]
    assert fakes.mongo.runs == {}


async def test_a_subject_that_is_too_long_for_rows_alone_is_a_conflict(fakes: Fakes, registry: Registry) -> None:
    subject = "ORDERS.{operation}." + "x" * (4000 - len("ORDERS.replace."))
    long = replace(ORDERS, sink=replace(ORDERS.sink, subject=subject))
    await registry.add(long, paused=True)
    with pytest.raises(Conflict, match=r"cannot take a snapshot: sink.subject makes subjects of up to 4,006 bytes"):
        await registry.snapshots.begin("orders")
    with pytest.raises(Invalid):
        await registry.add(replace(long, name="other", snapshot="initial"))


async def test_a_cancellation_that_meets_steps_of_the_run_is_made_after_them(
    fakes: Fakes, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registry.add(ORDERS, paused=True)
    await registry.snapshots.begin("orders")
    read = registry.snapshots._store.read
    steps: list[int] = []

    async def stepping(name: str) -> Snapshot | None:
        run = await read(name)
        if run is not None and len(steps) < 50:
            steps.append(1)
            fakes.mongo.runs[name] = replace(run, version=run.version + 1, documents=run.documents + 10)
        return run

    monkeypatch.setattr(registry.snapshots._store, "read", stepping)
    with monkeypatch.context() as impatient:
        impatient.setattr("app.control.snapshots.CANCEL_SECONDS", 0.0)
        with pytest.raises(Unavailable, match="faster than it can be cancelled"):
            await registry.snapshots.cancel("orders")
    ended = await registry.snapshots.cancel("orders")
    assert (ended.run.state, ended.run.documents) == ("cancelled", 500)
    assert fakes.mongo.runs["orders"] == ended.run


async def test_a_change_of_what_is_published_ends_a_run_that_has_begun(fakes: Fakes, registry: Registry) -> None:
    await registry.add(ORDERS, paused=True)
    await registry.snapshots.begin("orders")
    changed = replace(ORDERS, sink=replace(ORDERS.sink, operations=("insert",)))
    await registry.put(changed, paused=True)
    assert (await found(registry)).run.running, "it has not read anything yet, and reads by the new definition"
    fakes.mongo.runs["orders"] = begun(fakes.mongo.runs["orders"])
    registry = await again(fakes, registry)
    await registry.put(changed, paused=True)
    await registry.put(replace(changed, on_history_lost="latest"), paused=True)
    assert (await found(registry)).run.running, "nothing was changed of what is published"
    replaced, _ = await registry.put(ORDERS, paused=True)
    assert replaced.status.snapshot is not None
    run = replaced.status.snapshot.run
    assert (run.state, run.reason) == ("cancelled", "the watcher was replaced, and publishes something else")
    assert fakes.mongo.runs["orders"] == run
    await registry.close()


async def test_a_move_ends_a_run_that_has_begun(fakes: Fakes, registry: Registry) -> None:
    await registry.add(ORDERS, paused=True)
    await registry.snapshots.begin("orders")
    await registry.reset_token("orders")
    assert (await found(registry)).run.running
    fakes.mongo.runs["orders"] = begun(fakes.mongo.runs["orders"])
    registry = await again(fakes, registry)
    await registry.reset_token("orders")
    run = (await found(registry)).run
    assert (run.state, run.reason) == ("cancelled", "the watcher was moved to another position")
    await registry.close()


async def test_a_replacement_is_made_though_the_end_cannot_be_stored(fakes: Fakes, registry: Registry) -> None:
    await registry.add(ORDERS, paused=True)
    await registry.snapshots.begin("orders")
    fakes.mongo.runs["orders"] = begun(fakes.mongo.runs["orders"])
    registry = await again(fakes, registry)
    await registry.watcher("orders")
    registry.snapshots._store.faults.append(StoreUnavailable("away"))  # type: ignore[attr-defined]  # a port, behind which is the fake
    await registry.put(replace(ORDERS, sink=replace(ORDERS.sink, operations=("insert",))), paused=True)
    assert fakes.watchers.stored["orders"].watcher.sink.operations == ("insert",)
    assert fakes.mongo.runs["orders"].running, "the next opening finds that the epoch is another one"
    await registry.close()


async def test_a_removed_watcher_leaves_no_run_and_one_of_its_name_finds_none(fakes: Fakes, registry: Registry) -> None:
    await registry.add(replace(ORDERS, snapshot="initial"), paused=True)
    await registry.remove("orders")
    assert fakes.mongo.runs == {}
    fakes.mongo.runs["orders"] = first_run("orders", 1.0)  # of a process that was frozen while it began one
    await registry.add(ORDERS, paused=True)
    assert fakes.mongo.runs == {}
    assert await view(registry) is None


async def test_one_that_begins_while_another_instance_removes_the_watcher_leaves_nothing(
    fakes: Fakes, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    await registry.add(ORDERS, paused=True)
    put = registry.snapshots._store.put

    async def slow(run: Snapshot, before: Snapshot | None) -> bool:
        await fakes.watchers.delete("orders")
        return await put(run, before)

    monkeypatch.setattr(registry.snapshots._store, "put", slow)
    with pytest.raises(NotFound):
        await registry.snapshots.begin("orders")
    assert fakes.mongo.runs == {}


# What is known


async def test_after_a_restart_all_runs_are_known_from_one_question(
    fakes: Fakes, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        await registry.add(watcher(name), paused=True)
    for name in ("a", "b"):
        await registry.snapshots.begin(name)
    registry = await again(fakes, registry)
    asked, everything = [0], registry.snapshots._store.all

    async def counted() -> Any:
        asked[0] += 1
        return await everything()

    monkeypatch.setattr(registry.snapshots._store, "all", counted)
    for _ in range(3):
        seen = {each.stored.name: each.status.snapshot for each in await registry.watchers()}
        assert {name: None if each is None else each.waits for name, each in seen.items()} == {
            "a": "the watcher is PAUSED", "b": "the watcher is PAUSED", "c": None,
        }  # fmt: skip
    assert asked == [1]
    await registry.close()


async def test_what_cannot_be_looked_up_keeps_no_answer_waiting_and_is_looked_up_later(
    fakes: Fakes, registry: Registry
) -> None:
    await registry.add(ORDERS, paused=True)
    await registry.snapshots.begin("orders")
    registry = await again(fakes, registry)
    registry.snapshots._store.faults.append(StoreUnavailable("away"))  # type: ignore[attr-defined]  # a port, behind which is the fake
    assert await view(registry) is None
    assert (await found(registry)).run.running
    await registry.close()


async def test_the_observer_is_told_which_watchers_take_a_snapshot(
    fakes: Fakes, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.control.snapshots.LOOK_SECONDS", 0.01)
    for name in ("a", "b", "c"):
        await registry.add(watcher(name), paused=True)
    for name in ("a", "b"):
        await registry.snapshots.begin(name)
    await registry.snapshots.cancel("b")
    registry = await again(fakes, registry)
    own, observer = registry._own, fakes.observers[-1]
    await until(lambda: all(each.statistics.snapshot_known for each in own.values()))
    registry.observe_positions()
    assert observer.snapshots == {"a": True, "b": False}
    await registry.close()


async def test_a_watcher_of_another_instance_is_looked_up_each_time() -> None:
    fakes = Fakes()
    a, b = fakes.registry(instance="a"), fakes.registry(instance="b")
    for each in (a, b):
        each.start()
        await until(partial(ready, each))
    await a.add(ORDERS, paused=True)
    await a.snapshots.begin("orders")
    async with asyncio.timeout(10):
        while "orders" not in await b.names():
            await asyncio.sleep(0.01)
    assert (await found(b)).run.running
    await a.snapshots.cancel("orders")
    assert (await found(b)).run.state == "cancelled"
    for each in (a, b):
        await each.close()
