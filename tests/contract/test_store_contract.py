"""What every checkpoint store and every watcher store keeps, also while others write at the same moment."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pymongo
import pytest
import pytest_asyncio

from app.domain.checkpoint_place import CheckpointPlace
from app.domain.errors import Conflict, NotFound
from app.domain.lifecycle import Desired
from app.domain.position import Checkpoint, OwnMessage
from app.domain.snapshot import first_run
from app.domain.tokens import MessageId
from app.domain.watcher import Source, Start, StoredWatcher, Watcher
from app.mongodb.deployment import MongoDeployment
from app.ports import CheckpointStore, SnapshotStore, WatcherStore
from tests.fakes import FakeCheckpoints, FakeSnapshots, FakeWatchers, event_token

Open = Callable[[], CheckpointStore]


def at(moment: int, epoch: int | None = 0, **more: Any) -> Checkpoint:
    return Checkpoint(event_token(moment), epoch=epoch, **more)


@pytest_asyncio.fixture(params=["fake", "mongo", "mongo capped", "mongo bulk"])
async def open_store(request: pytest.FixtureRequest, mongo_uri: str, database: str) -> AsyncIterator[Open]:
    """Opens the same place again, as another process would."""
    if request.param == "fake":
        shared: dict[str, Checkpoint] = {}
        yield lambda: FakeCheckpoints(shared)
        return
    place = CheckpointPlace(database, "orders", capped=request.param == "mongo capped", size_in_bytes=8192)
    watcher = Watcher("w", Source("shop", "orders"), checkpoint=None if request.param == "mongo bulk" else place)
    deployment = MongoDeployment(mongo_uri, state_database=database)
    yield lambda: deployment.checkpoints(watcher)
    deployment.close()
    with pymongo.MongoClient[dict[str, Any]](mongo_uri) as client:
        client.drop_database(database)


@pytest.fixture
def checkpoints(open_store: Open) -> CheckpointStore:
    return open_store()


async def reached(store: CheckpointStore) -> Checkpoint:
    found = await store.read()
    assert found is not None
    return found


async def test_nothing_is_read_where_nothing_was_stored(checkpoints: CheckpointStore) -> None:
    assert await checkpoints.read() is None


async def test_a_place_is_fit_before_and_after_it_holds_positions(open_store: Open) -> None:
    await open_store().check()
    await open_store().begin(at(1))
    await open_store().check()


async def test_every_field_comes_back_to_another_process(open_store: Open) -> None:
    stored = at(
        5, 2, sequence=7, stream_created="2026-01-01T00:00:00Z", scope="rs0/shop.orders", watcher="w", updated_at=1e9,
        own=OwnMessage(6, MessageId(event_token(4), 2)),
    )  # fmt: skip
    await open_store().begin(stored)
    assert await open_store().read() == stored


async def test_of_two_that_create_at_once_one_wins(open_store: Open) -> None:
    stores = [open_store() for _ in range(6)]
    won = await asyncio.gather(*(store.create(at(moment + 1)) for moment, store in enumerate(stores)))
    assert won.count(True) == 1
    assert (await reached(open_store())).token == event_token(won.index(True) + 1)


async def test_create_leaves_what_is_there(checkpoints: CheckpointStore) -> None:
    await checkpoints.begin(at(5))
    assert not await checkpoints.create(at(9))
    assert (await reached(checkpoints)).token == event_token(5)


async def test_advance_creates_where_there_is_none(checkpoints: CheckpointStore) -> None:
    assert await checkpoints.advance(at(3))
    assert (await reached(checkpoints)).token == event_token(3)


async def test_advance_moves_forwards_only(checkpoints: CheckpointStore) -> None:
    await checkpoints.create(at(1))
    assert await checkpoints.advance(at(5))
    assert not await checkpoints.advance(at(5))
    assert not await checkpoints.advance(at(4))
    assert (await reached(checkpoints)).token == event_token(5)


async def test_a_thawed_writer_cannot_undo_a_rewind(open_store: Open) -> None:
    thawed, mover = open_store(), open_store()
    await thawed.create(at(5, 0))
    await mover.begin(at(2, 1))
    assert not await thawed.advance(at(6, 0))
    assert (await reached(mover)) == at(2, 1)
    assert await mover.advance(at(3, 1))
    assert (await reached(thawed)) == at(3, 1)


async def test_a_position_of_an_earlier_epoch_put_back_from_a_backup_is_replaced(open_store: Open) -> None:
    backup, writer = open_store(), open_store()
    await backup.begin(at(9, 1))
    assert await writer.advance(at(3, 2))
    assert not await writer.advance(at(3, 2))
    assert not await backup.advance(at(12, 1))
    assert (await reached(backup)) == at(3, 2)


UNSETTLED = (OwnMessage(7, MessageId(event_token(4), 1)), OwnMessage(8, MessageId(event_token(5), 1)))


async def test_a_doubt_stays_with_the_position_until_it_is_settled_or_the_position_moved(open_store: Open) -> None:
    writer, other = open_store(), open_store()
    await writer.keep_unsettled(UNSETTLED, 1)
    assert await writer.read() is None
    await writer.create(at(5, 1))
    await writer.keep_unsettled(UNSETTLED, 1)
    assert await other.read() == at(5, 1, unsettled=UNSETTLED)
    assert await other.advance(at(6, 1))
    assert await other.read() == at(6, 1, unsettled=UNSETTLED)
    await writer.keep_unsettled((), 1)
    assert await other.read() == at(6, 1)
    await writer.keep_unsettled(UNSETTLED[:1], 1)
    await other.begin(at(2, 2))
    assert await other.read() == at(2, 2)
    await writer.keep_unsettled(UNSETTLED, 1)  # the position has moved since
    assert await other.read() == at(2, 2)


async def test_many_writers_at_once_leave_the_greatest_position(open_store: Open) -> None:
    stores = [open_store() for _ in range(4)]
    await stores[0].create(at(1))
    await asyncio.gather(*(stores[n % 4].advance(at(n)) for n in (9, 3, 12, 5, 7, 11, 2, 10)))
    assert (await reached(open_store())).token == event_token(12)


async def test_deleted_is_forgotten_and_may_begin_again(checkpoints: CheckpointStore) -> None:
    await checkpoints.delete()
    await checkpoints.begin(at(5))
    await checkpoints.advance(at(6))
    await checkpoints.delete()
    assert await checkpoints.read() is None
    assert await checkpoints.create(at(1))
    assert (await reached(checkpoints)).token == event_token(1)


# Watchers


PIPELINE = ({"$match": {"fullDocument.total": {"$gt": 10}, "a": {"$oid": "6" * 24}}},)


@pytest_asyncio.fixture(params=["fake", "mongo"])
async def both(
    request: pytest.FixtureRequest, mongo_uri: str, database: str
) -> AsyncIterator[tuple[WatcherStore, SnapshotStore]]:
    """The watchers, and the runs of their snapshots."""
    if request.param == "fake":
        watchers, runs = FakeWatchers(), FakeSnapshots()
        watchers.runs = runs.runs
        yield watchers, runs
        return
    deployment = MongoDeployment(mongo_uri, state_database=database)
    yield deployment.watchers(), deployment.snapshots()
    deployment.close()
    with pymongo.MongoClient[dict[str, Any]](mongo_uri) as client:
        client.drop_database(database)


@pytest.fixture
def watchers(both: tuple[WatcherStore, SnapshotStore]) -> WatcherStore:
    return both[0]


@pytest.fixture
def runs(both: tuple[WatcherStore, SnapshotStore]) -> SnapshotStore:
    return both[1]


def stored(name: str = "shop.orders", **more: Any) -> StoredWatcher:
    watcher = Watcher(name, Source("shop", "orders", pipeline=PIPELINE), start=Start("timestamp", 1_700_000_000.0))
    return StoredWatcher(watcher.with_defaults(), **more)


async def test_a_watcher_comes_back_with_dots_in_its_name_and_dollars_in_its_pipeline(watchers: WatcherStore) -> None:
    one = await watchers.insert(stored(desired=Desired.PAUSED, new_start=True, begin=event_token(1), origin="file"))
    assert one.watcher == stored().watcher
    assert (one.desired, one.new_start, one.begin, one.origin) == (Desired.PAUSED, True, event_token(1), "file")
    assert await watchers.get("shop.orders") == one
    assert await watchers.load() == [one]


async def test_watchers_are_loaded_in_the_order_they_were_added(watchers: WatcherStore) -> None:
    first = await watchers.insert(stored("b"))
    for name in ("c", "a"):
        await watchers.insert(stored(name))
    await watchers.replace(first, expected_revision=first.revision)
    assert [one.name for one in await watchers.load()] == ["b", "c", "a"]
    assert first.added == first.revision


async def test_a_taken_name_is_a_conflict_and_keeps_the_first(watchers: WatcherStore) -> None:
    first = await watchers.insert(stored())
    with pytest.raises(Conflict):
        await watchers.insert(stored(new_start=True))
    assert await watchers.get("shop.orders") == first


async def test_every_change_has_a_revision_of_its_own_whatever_it_changes(watchers: WatcherStore) -> None:
    assert await watchers.revision() == 0
    one = await watchers.insert(stored())
    two = await watchers.replace(stored(added=one.added), expected_revision=one.revision)
    gone = await watchers.delete("shop.orders")
    again = await watchers.insert(stored())
    assert one.revision < two.revision < gone < again.revision == await watchers.revision()
    assert (one.added, two.added) == (one.revision, one.revision)
    assert again.added == again.revision


async def test_of_two_that_replace_one_revision_one_wins(watchers: WatcherStore) -> None:
    one = await watchers.insert(stored())
    results = await asyncio.gather(
        watchers.replace(stored(desired=Desired.PAUSED), expected_revision=one.revision),
        watchers.replace(stored(new_start=True), expected_revision=one.revision),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == ["Conflict", "StoredWatcher"]


async def test_changes_at_once_come_one_after_another_and_each_sees_all_before_it(watchers: WatcherStore) -> None:
    seen: list[int] = []

    def look(number: int) -> Callable[[Any], None]:
        def check(others: Any) -> None:
            if len(others) >= 3:
                raise Conflict("there is no room for more")
            seen.append(number)

        return check

    results = await asyncio.gather(
        *(watchers.insert(stored(f"w{number}"), look(number)) for number in range(6)), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in results) == ["Conflict"] * 3 + ["StoredWatcher"] * 3
    loaded = await watchers.load()
    assert len(loaded) == 3
    assert len({one.revision for one in loaded}) == 3


async def test_what_a_check_refuses_changes_nothing(watchers: WatcherStore) -> None:
    def refuse(_: Any) -> None:
        raise Conflict("no")

    one = await watchers.insert(stored())
    with pytest.raises(Conflict, match="no"):
        await watchers.insert(stored("other"), refuse)
    with pytest.raises(Conflict, match="no"):
        await watchers.replace(stored(new_start=True), expected_revision=one.revision, check=refuse)
    assert await watchers.load() == [one]
    assert await watchers.revision() == one.revision


async def test_what_only_the_first_opening_needs_is_taken_back_from_that_revision_alone(watchers: WatcherStore) -> None:
    one = await watchers.insert(stored(new_start=True, begin=event_token(1)))
    two = await watchers.replace(one, expected_revision=one.revision)
    await watchers.began("shop.orders", one.revision)
    assert await watchers.get("shop.orders") == two
    await watchers.began("shop.orders", two.revision)
    assert await watchers.get("shop.orders") == replace(two, new_start=False, begin=None)
    await watchers.began("nobody", 1)


async def test_an_instance_is_behind_until_it_has_followed_or_left(watchers: WatcherStore) -> None:
    assert await watchers.behind("a", 5) == 0
    await watchers.attend("a", 0)
    await watchers.attend("b", 4)
    await watchers.attend("c", 7)
    assert await watchers.behind("a", 5) == 1
    assert await watchers.behind("b", 5) == 1
    assert await watchers.behind("c", 5) == 2
    await watchers.attend("b", 5)
    assert await watchers.behind("a", 5) == 0
    await watchers.leave("a")
    await watchers.leave("a")
    assert await watchers.behind("c", 5) == 0


async def test_what_is_not_there_is_not_found(watchers: WatcherStore) -> None:
    assert await watchers.get("nobody") is None
    with pytest.raises(NotFound):
        await watchers.replace(stored("nobody"), expected_revision=1)
    with pytest.raises(NotFound):
        await watchers.delete("nobody")


async def test_deleted_is_gone(watchers: WatcherStore) -> None:
    await watchers.insert(stored())
    await watchers.delete("shop.orders")
    assert await watchers.load() == []


async def test_a_run_comes_and_goes_with_its_watcher(watchers: WatcherStore, runs: SnapshotStore) -> None:
    run = first_run("shop.orders", 1_700_000_000.0)
    await watchers.insert_all([stored(), stored("shop.items")], runs=[run])
    assert await runs.read("shop.orders") == run
    assert {name: (each.run, each.open) for name, each in (await runs.all()).items()} == {"shop.orders": (run, True)}
    await watchers.delete("shop.orders")
    assert await runs.all() == {}


async def test_a_watcher_that_is_refused_leaves_no_run(watchers: WatcherStore, runs: SnapshotStore) -> None:
    await watchers.insert(stored())
    with pytest.raises(Conflict):
        await watchers.insert_all([stored("a"), stored()], runs=[first_run("a", 1.0), first_run("shop.orders", 1.0)])
    assert await runs.all() == {}


async def test_a_watcher_that_is_added_finds_no_run_of_an_earlier_one(
    watchers: WatcherStore, runs: SnapshotStore
) -> None:
    assert await runs.put(first_run("shop.orders", 1.0), None)
    await watchers.insert(stored())
    assert await runs.read("shop.orders") is None


async def test_restored_watchers_are_as_they_were_and_counted_once(watchers: WatcherStore) -> None:
    one, two = stored(revision=3, added=2), stored("shop.items", revision=7, added=7)
    assert await watchers.restore([one, two], 7)
    assert await watchers.load() == [one, two]
    assert await watchers.revision() == 8
    assert not await watchers.restore([stored("shop.others")], 7)  # another instance was faster
    assert (await watchers.insert(stored("shop.new"))).revision == 9


async def test_what_is_restored_is_counted_higher_than_any_change_of_it(watchers: WatcherStore) -> None:
    """An instance may hold a change that it has not yet counted as carried out."""
    restored = stored(revision=9, added=3)
    assert await watchers.restore([restored], 7)
    assert await watchers.revision() > restored.revision


async def test_nothing_is_restored_where_the_last_watcher_was_removed(watchers: WatcherStore) -> None:
    one = await watchers.insert(stored())
    await watchers.delete(one.name)
    assert not await watchers.restore([one], one.revision)
    assert await watchers.load() == []


async def test_what_is_said_of_the_messages_behind_a_position_holds_until_the_next_one(open_store: Open) -> None:
    store = open_store()
    await store.uncount(0)
    assert await store.read() is None
    await store.begin(at(5, 2))
    await store.uncount(1)
    assert (await reached(open_store())).counted, "a later epoch is not the earlier writer's to change"
    await store.uncount(2)
    assert not (await reached(open_store())).counted
    assert await store.advance(at(6, 2))
    assert (await reached(open_store())).counted
