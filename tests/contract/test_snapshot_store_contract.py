"""What every store of a snapshot's runs keeps, also while several instances move one run on at the same moment."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import bson
import pymongo
import pytest
import pytest_asyncio

from app.domain.snapshot import Chunk, Part, Snapshot
from app.mongodb.deployment import MongoDeployment
from app.ports import SnapshotStore
from tests.fakes import FakeSnapshots, mark_token

Open = Callable[[], SnapshotStore]


@pytest_asyncio.fixture(params=["fake", "mongo"])
async def open_store(request: pytest.FixtureRequest, mongo_uri: str, database: str) -> AsyncIterator[Open]:
    """Opens the same place again, as another process would."""
    if request.param == "fake":
        shared: dict[str, Snapshot] = {}
        yield lambda: FakeSnapshots(shared)
        return
    deployments = [MongoDeployment(mongo_uri, state_database=database) for _ in range(3)]
    opened = 0

    def open_() -> SnapshotStore:
        nonlocal opened
        opened += 1
        return deployments[opened % 3].snapshots()

    yield open_
    for each in deployments:
        each.close()
    with pymongo.MongoClient[dict[str, Any]](mongo_uri) as client:
        client.drop_database(database)


@pytest.fixture
def store(open_store: Open) -> SnapshotStore:
    return open_store()


def asked_for(watcher: str = "orders", run: str = "0000000003e8") -> Snapshot:
    return Snapshot(watcher, run, "on_demand", 12.5, filter='{"n": {"$gt": 1}}', wanted=("shop.a", "shop.b"))


def begun() -> Snapshot:
    return asked_for().begin(3, [Part("shop.a", "aa" * 16), Part("shop.b", None, capped=True)], 1_000, 13.5)


def chunk(run: Snapshot, *keys: Any, until: bytes | None = None) -> Chunk:
    encoded = tuple(bson.encode({"_id": key}) for key in keys)
    return Chunk(run.next, mark_token(5), run.part, run.after, until, encoded, 7, len(encoded))


async def test_nothing_is_there_before_a_run_is_asked_for(store: SnapshotStore) -> None:
    assert await store.read("orders") is None
    assert await store.all() == {}
    assert await store.running() == {}
    await store.delete("orders")


async def test_every_field_comes_back_to_another_instance(open_store: Open) -> None:
    steps = [asked_for(), begun()]
    keys: tuple[Any, ...] = (1, "two", None, {"a": [1, 2]}, b"\x00\x01", 2.5, True)
    steps.append(steps[-1].planned(chunk(steps[-1], *keys, until=bson.encode({"_id": "z"}))))
    steps.append(steps[-1].planned(chunk(steps[-1], bson.MinKey())))
    steps.append(steps[-1].renamed("shop.c"))
    steps.append(steps[-1].also([Part("shop.d", "dd" * 16)]))
    steps.append(steps[-1].without())
    steps.append(steps[-1].cut(0, 2))
    steps.append(steps[-1].planned(chunk(steps[-1], "after the cut", until=None)))
    steps.append(steps[-1].acknowledged(steps[-1].last))
    steps.append(steps[-1].ended("failed", 99.5, "why"))
    assert await open_store().put(steps[0], None)
    for before, after in itertools.pairwise(steps):
        assert await open_store().change(before, after)
        assert await open_store().read("orders") == after


async def test_a_list_of_all_runs_says_which_are_open_and_leaves_their_chunks_out(open_store: Open) -> None:
    one = open_store()
    planned = begun().planned(chunk(begun(), 1))
    over = planned.acknowledged(planned.last).ended("done", 5.0)
    for name, run in {"open": planned.ended("cancelled", 5.0), "over": over, "asked": asked_for()}.items():
        assert await one.put(replace(run, watcher=name), None)
    found = await open_store().all()
    assert {name: summary.open for name, summary in found.items()} == {"open": True, "over": False, "asked": True}
    assert {summary.run.chunks for summary in found.values()} == {()}
    assert found["over"].run.state == "done"
    assert await one.running() == {"asked": asked_for().run}


async def test_of_several_that_move_a_run_on_at_once_one_does(open_store: Open) -> None:
    stores = [open_store() for _ in range(6)]
    run = begun()
    assert await stores[0].put(run, None)
    wanted = [run.planned(chunk(run, number)) for number in range(6)]
    moved = await asyncio.gather(*(one.change(run, after) for one, after in zip(stores, wanted, strict=True)))
    assert moved.count(True) == 1
    assert await stores[0].read("orders") == wanted[moved.index(True)]


async def test_of_several_that_begin_at_once_one_does(open_store: Open) -> None:
    stores = [open_store() for _ in range(6)]
    wanted = [asked_for(run=f"{number:012x}") for number in range(1, 7)]
    began = await asyncio.gather(*(one.put(run, None) for one, run in zip(stores, wanted, strict=True)))
    assert began.count(True) == 1
    before = wanted[began.index(True)]
    later = [asked_for(run=f"{number:012x}") for number in range(11, 17)]
    again = await asyncio.gather(*(one.put(run, before) for one, run in zip(stores, later, strict=True)))
    assert again.count(True) == 1
    assert await stores[0].read("orders") == later[again.index(True)]


async def test_a_version_that_is_over_moves_nothing(open_store: Open) -> None:
    one, other = open_store(), open_store()
    run = begun()
    assert await one.put(run, None)
    ended = run.ended("cancelled", 4.0)
    assert await other.change(run, ended)
    assert not await one.change(run, run.planned(chunk(run, 1)))
    assert await one.read("orders") == ended


async def test_a_new_run_takes_the_place_of_the_last_one_as_it_is_known(open_store: Open) -> None:
    one, other = open_store(), open_store()
    first = begun()
    assert await one.put(first, None)
    assert not await other.put(asked_for(run="0000000003e9"), None)
    ended = first.ended("cancelled", 4.0)
    assert await one.change(first, ended)
    assert not await other.put(asked_for(run="0000000003e9"), first)
    assert await other.put(asked_for(run="0000000003e9"), ended)
    assert not await one.change(ended, ended.given_up())
    assert await one.read("orders") == asked_for(run="0000000003e9")


async def test_what_is_deleted_is_gone_and_moves_no_more(open_store: Open) -> None:
    one, other = open_store(), open_store()
    run = begun()
    assert await one.put(run, None)
    assert await one.put(replace(run, watcher="other"), None)
    await other.delete("orders")
    assert not await one.change(run, run.planned(chunk(run, 1)))
    assert await one.read("orders") is None
    assert (await one.all()).keys() == {"other"}
