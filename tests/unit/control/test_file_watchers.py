"""Watchers of the configuration file: what it says is stored at each start, and wins."""

from dataclasses import replace

import pytest

from app.domain.checkpoint_place import CheckpointPlace
from app.domain.errors import (
    Conflict,
    NotAuthorised,
    SinkUnavailable,
    Unavailable,
)
from app.domain.lifecycle import Desired, State
from app.domain.position import Checkpoint
from app.domain.watcher import Start, StoredWatcher
from tests.fakes import FakeSource, mark_token
from tests.unit.deployment import Fakes, until, until_state, watcher

ORDERS = watcher("orders")


async def test_the_file_wins_over_the_store_and_its_former_watchers_go(fakes: Fakes) -> None:
    gone = StoredWatcher(watcher("gone"), origin="file")
    edited = StoredWatcher(ORDERS, desired=Desired.PAUSED, origin="file", revision=4)
    fakes.watchers.put(gone, edited, StoredWatcher(watcher("kept")))
    changed = replace(ORDERS, sink=replace(ORDERS.sink, operations=("insert",)))
    registry = fakes.registry(from_file=[changed, watcher("new")])
    registry.start()
    await until(lambda: registry.ready() is None)
    assert [view.stored.name for view in await registry.watchers()] == ["kept", "new", "orders"]
    view = await registry.watcher("orders")
    assert view.stored.watcher == changed
    assert view.status.state is State.PAUSED
    for refused in (registry.remove("orders"), registry.put(ORDERS)):
        with pytest.raises(Conflict, match="configuration file"):
            await refused
    await registry.close()


async def test_of_two_in_the_file_that_overlap_one_runs_and_one_says_why_not(fakes: Fakes) -> None:
    rival = replace(watcher("rival"), sink=ORDERS.sink)
    registry = fakes.registry(from_file=[ORDERS, rival])
    registry.start()
    await until_state(registry, "orders", State.RUNNING)
    status = (await registry.watcher("rival")).status
    assert status.state is State.FAILED
    assert "which watcher orders uses" in str(status.reason)
    assert "Give it a streamName of its own, such as 'SHOP_RIVAL'" in str(status.reason)
    assert "sink." not in str(status.reason)
    await registry.restart("orders")
    await until_state(registry, "orders", State.RUNNING)
    assert not (await registry.health()).up
    await registry.close()


async def test_a_watcher_of_the_file_begins_when_it_is_stored_though_nats_comes_later(fakes: Fakes) -> None:
    fakes.oplog.happen()
    fakes.nats.up = False
    fakes.stream().misfortune = SinkUnavailable("connection refused")
    registry = fakes.registry(from_file=[ORDERS])
    registry.start()
    await until_state(registry, "orders", State.RETRYING)
    tokens = [fakes.oplog.happen() for _ in range(3)]
    fakes.stream().misfortune = None
    await until(lambda: len(fakes.stream().messages) == 3)
    assert fakes.stream().published() == tokens
    await registry.close()


async def test_a_start_in_the_file_is_fixed_though_the_account_is_refused_for_a_moment(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NotAuthorised, "confirm_seconds", 60.0)
    refusals, real = [NotAuthorised("being replaced")], FakeSource.locate

    async def locate(self: FakeSource, start: Start) -> str:
        if refusals:
            raise refusals.pop()
        return await real(self, start)

    monkeypatch.setattr(FakeSource, "locate", locate)
    fakes.stream().misfortune = SinkUnavailable("connection refused")
    registry = fakes.registry(from_file=[ORDERS])
    registry.start()
    await until_state(registry, "orders", State.RETRYING)
    tokens = [fakes.oplog.happen() for _ in range(3)]
    fakes.stream().misfortune = None
    await until(lambda: len(fakes.stream().messages) == 3)
    assert fakes.stream().published() == tokens
    await registry.close()


async def test_a_watcher_that_the_file_sends_to_another_stream_goes_on_there(fakes: Fakes) -> None:
    before = fakes.registry(from_file=[ORDERS])
    before.start()
    await until_state(before, "orders", State.RUNNING)
    published = [fakes.oplog.happen() for _ in range(3)]
    await until(lambda: len(fakes.stream().messages) == 3)
    await before.close()
    missed = [fakes.oplog.happen() for _ in range(2)]
    moved = replace(ORDERS, sink=replace(ORDERS.sink, stream="SALES", subject="SALES.{operation}"))
    after = fakes.registry(from_file=[moved])
    fakes.stream().misfortune = SinkUnavailable("connection refused")
    after.start()
    await until_state(after, "orders", State.RETRYING)
    fakes.stream().misfortune = None
    await until(lambda: len(fakes.stream("SALES").messages) == 2)
    assert fakes.stream().published() == published
    assert fakes.stream("SALES").published() == missed
    await after.close()


async def test_one_watcher_of_the_file_that_cannot_be_stored_holds_back_no_other(fakes: Fakes) -> None:
    moved = replace(ORDERS, checkpoint=CheckpointPlace("resume-tokens", "taken"))
    fakes.watchers.put(StoredWatcher(ORDERS, origin="file"))
    fakes.mongo.places = {
        "resume-tokens.orders": {"newest": Checkpoint(mark_token(1), watcher="orders")},
        "resume-tokens.taken": {"newest": Checkpoint(mark_token(1), watcher="another")},
    }
    registry = fakes.registry(from_file=[moved, watcher("items")])
    registry.start()
    await until_state(registry, "items", State.RUNNING)
    assert "orders, of the configuration file: resume-tokens.taken holds a position" in str(registry.ready())
    assert not (await registry.health()).up
    with pytest.raises(Unavailable, match="of the configuration file"):
        await registry.resume("orders")
    assert [view.stored.name for view in await registry.watchers()] == ["items"]
    fakes.mongo.places["resume-tokens.taken"].clear()
    await until_state(registry, "orders", State.RUNNING)
    assert registry.ready() is None
    await registry.close()
