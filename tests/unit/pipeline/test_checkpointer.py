"""Checkpoints written behind: the latest wins, quiet ones seldom, and an error ends the run only where it stays."""

import asyncio
import time
from collections import deque

import pytest

from app.domain.errors import (
    NotAuthorised,
    Stale,
    StoreUnavailable,
)
from app.domain.position import Checkpoint
from app.pipeline import checkpointer
from app.pipeline.checkpointer import Checkpointer, Pace
from tests.fakes import FakeCheckpoints, NullObserver, event_token
from tests.unit.deployment import until


def checkpoint(moment: int, epoch: int = 0) -> Checkpoint:
    return Checkpoint(event_token(moment), epoch)


async def test_of_many_positions_the_latest_is_written() -> None:
    store, observer = FakeCheckpoints(), NullObserver()
    writer = Checkpointer(store, observer, watcher="orders", clock=lambda: 100.0)
    for moment in range(1, 50):
        writer.note(checkpoint(moment))
    await writer.flush()
    await writer.flush()
    assert store.place["newest"] == checkpoint(49)
    assert observer.checkpoints == 1


async def test_a_quiet_position_is_written_only_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpointer, "BUSY_SECONDS", 0.0)
    now = 100.0
    store = FakeCheckpoints()
    writer = Checkpointer(store, NullObserver(), watcher="orders", clock=lambda: now)
    run = asyncio.create_task(writer.run())
    writer.note(checkpoint(1), quiet=True)
    await until(lambda: store.place.get("newest") == checkpoint(1))
    now = 105.0
    writer.note(checkpoint(2), quiet=True)
    for _ in range(100):
        await asyncio.sleep(0)
    assert store.place["newest"] == checkpoint(1)
    now = 111.0
    writer.note(checkpoint(3), quiet=True)
    await until(lambda: store.place["newest"] == checkpoint(3))
    run.cancel()


async def test_a_prompt_position_is_written_with_each_change_while_these_are_few(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpointer, "PROMPT_SECONDS", 3600.0)
    now = 100.0
    store = FakeCheckpoints()
    writer = Checkpointer(store, NullObserver(), watcher="orders", clock=lambda: now, prompt=True)
    run = asyncio.create_task(writer.run())
    for moment in range(1, 401):  # 200 a second
        now += 0.005
        noted = checkpoint(moment)
        writer.note(noted)
        await until(lambda: store.place.get("newest") == noted)  # noqa: B023 - called within the round
    writer.note(checkpoint(500), changes=100_000)
    await until(lambda: store.place["newest"] == checkpoint(500))
    writer.note(checkpoint(501))
    for _ in range(100):
        await asyncio.sleep(0)
    assert store.place["newest"] == checkpoint(500)  # many: some time has to pass
    run.cancel()


def test_a_burst_is_over_a_second_after_it_has_ended() -> None:
    pace = Pace()
    pace.add(1_000_000, 100.0)
    assert not pace.few(100.1)
    for step in range(1, 201):
        pace.add(1, 100.0 + step / 200)
    assert pace.few(101.0)
    pace.add(1, 50.0)  # the clock was set back
    assert pace.few(51.0)


async def test_a_checkpoint_that_cannot_be_written_waits_and_does_not_stop_the_relay() -> None:
    store = FakeCheckpoints()
    store.faults = deque([StoreUnavailable("no primary")])
    writer = Checkpointer(store, NullObserver(), watcher="orders", clock=lambda: 1.0)
    run = asyncio.create_task(writer.run())
    writer.note(checkpoint(1))
    await until(lambda: "newest" in store.place)
    run.cancel()


async def test_a_checkpoint_of_another_epoch_ends_the_run_and_a_later_one_does_not() -> None:
    store = FakeCheckpoints({"newest": checkpoint(9)})
    writer = Checkpointer(store, NullObserver(), watcher="orders", clock=lambda: 1.0)
    writer.note(checkpoint(1))
    await writer.flush()
    assert store.place["newest"] == checkpoint(9)
    store.place["newest"] = checkpoint(2, epoch=1)
    writer.note(checkpoint(3))
    with pytest.raises(Stale, match="epoch 1"):
        await writer.flush()
    store.place["newest"] = checkpoint(9, epoch=1)
    writer.note(checkpoint(4, epoch=2))
    await writer.flush()  # what a backup has put back is no news
    assert store.place["newest"] == checkpoint(4, epoch=2)


@pytest.mark.parametrize("passes", [True, False])
async def test_a_right_that_is_missing_for_a_moment_delays_a_checkpoint_and_for_longer_ends_the_run(
    passes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.pipeline.checkpointer.BUSY_SECONDS", 0.01)
    monkeypatch.setattr("app.pipeline.checkpointer.backoff.LIMIT_SECONDS", 0.01)
    monkeypatch.setattr(NotAuthorised, "confirm_seconds", 10.0 if passes else 0.1)
    store = FakeCheckpoints()
    store.faults = deque([NotAuthorised("not allowed")] * (3 if passes else 1000))
    writer = Checkpointer(store, NullObserver(), watcher="orders", clock=time.time)
    run = asyncio.create_task(writer.run())
    writer.note(checkpoint(1))
    if passes:
        await until(lambda: store.place.get("newest") == checkpoint(1))
        run.cancel()
    else:
        with pytest.raises(NotAuthorised) as refused:
            await run
        assert refused.value.confirm_seconds == 0.0
