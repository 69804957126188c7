"""What a watcher owes, by time: what makes /healthz DOWN whatever the state says, and what must not."""

import asyncio
from collections import deque

import pytest

from app.api.schemas.answers import watcher_health
from app.control.health import FleetHealth
from app.control.watcher_task import WatcherTask
from app.domain.errors import SinkUnavailable, SourceUnavailable
from app.domain.lifecycle import State
from app.domain.overdue import PATIENCE_SECONDS, Overdue
from app.domain.watcher import StoredWatcher
from tests.fakes import FakeSink, FakeSource
from tests.unit.deployment import Fakes, outrun, until, watcher

LONG = PATIENCE_SECONDS + 1


def test_what_waits_without_progress_is_overdue_and_a_backlog_that_moves_is_not() -> None:
    overdue = Overdue()
    assert overdue.problem(1000.0) is None, "nothing to do"
    for second in range(0, 600, 10):
        overdue.changes_read(float(second))
        overdue.progressed(second + 5.0)
        assert overdue.problem(second + 9.0) is None
    assert overdue.problem(595.0 + PATIENCE_SECONDS) is None
    assert "published nothing for 16 seconds" in (overdue.problem(595.0 + LONG) or "")
    overdue.nothing_waits(620.0)
    assert overdue.problem(10_000.0) is None, "idle"


def test_interruptions_without_progress_are_overdue_and_a_long_quiet_read_after_one_is_not() -> None:
    overdue = Overdue()
    for second in range(0, 20, 2):
        overdue.interrupted(float(second))
    assert "again and again" in (overdue.problem(18.0) or "")
    assert overdue.problem(18.0 + LONG) is None
    overdue.nothing_waits(40.0)
    overdue.interrupted(41.0)
    assert overdue.problem(50.0) is None, "a failover"


def test_what_waits_is_forgotten_by_who_is_to_do_nothing() -> None:
    overdue = Overdue()
    overdue.changes_read(0.0)
    overdue.interrupted(1.0)
    overdue.forget()
    assert overdue.problem(LONG) is None


class Clocked:
    """One watcher of a service whose clock is set by hand."""

    def __init__(self) -> None:
        self.fakes, self.now = Fakes(), 1_700_000_000.0
        dependencies = self.fakes.dependencies(clock=lambda: self.now, losses=1, silence_seconds=1000)
        self.task = self.fakes.task(StoredWatcher(watcher("orders")), dependencies)
        self.fleet_health = FleetHealth(dependencies, {"orders": self.task}, _Up())  # type: ignore[arg-type]

    @property
    def down(self) -> bool:
        """What /healthz says of the watchers, and the watcher's own health: both the same."""
        component = self.fleet_health.health(None).components["watchers"]
        own = watcher_health(self.task.status())["status"] == "DOWN"
        assert own is not component.up
        self.fleet_health.observe_positions()
        assert self.fakes.observers[0].overdues["orders"] is own
        if own:
            assert "orders" in (component.reason or "")
        return own


class _Up:
    mongo = nats = oplog = None
    operation_time = 0


@pytest.fixture
def clocked() -> Clocked:
    return Clocked()


async def running(clocked: Clocked) -> WatcherTask:
    clocked.task.start()
    await until(lambda: clocked.task.state is State.RUNNING)
    return clocked.task


async def test_a_watcher_that_runs_and_hears_nothing_of_what_it_published_is_down(
    clocked: Clocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await running(clocked)
    silent, asked = asyncio.Event(), asyncio.Event()

    async def unheard(*_: object) -> int:
        asked.set()
        await silent.wait()
        monkeypatch.undo()
        raise SinkUnavailable("no answer")

    monkeypatch.setattr(FakeSink, "publish", unheard)
    clocked.fakes.oplog.happen()
    await asked.wait()
    assert not clocked.down
    clocked.now += LONG
    assert task.state is State.RUNNING
    assert clocked.down
    silent.set()
    await until(lambda: clocked.fakes.stream().published() == clocked.fakes.oplog.tokens)
    await until(lambda: not clocked.down)
    await task.stop(2)


async def test_a_watcher_that_flaps_stays_down_until_it_has_published(clocked: Clocked) -> None:
    task = await running(clocked)
    clocked.fakes.stream().faults = deque(["refused"] * 10_000)
    clocked.fakes.oplog.happen()
    await until(lambda: task.state is State.RETRYING)
    clocked.now += LONG
    for state in (State.RUNNING, State.RETRYING, State.RUNNING):
        await until(lambda wanted=state: task.state is wanted)  # type: ignore[misc]
        assert clocked.down
    clocked.fakes.stream().faults.clear()
    await until(lambda: clocked.fakes.stream().published() == clocked.fakes.oplog.tokens)
    await until(lambda: not clocked.down)
    await task.stop(2)


async def test_a_watcher_that_opens_every_time_and_never_reads_is_down(
    clocked: Clocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = await running(clocked)
    real, began = FakeSource.read, clocked.now

    async def broken(self: FakeSource) -> object:
        clocked.now += 1
        raise SourceUnavailable("interrupted")

    monkeypatch.setattr("app.domain.backoff.LIMIT_SECONDS", 0.001)
    monkeypatch.setattr(FakeSource, "read", broken)
    await until(lambda: clocked.now > began + LONG + 2)
    assert clocked.down
    monkeypatch.setattr(FakeSource, "read", real)
    await until(lambda: not clocked.down)
    await task.stop(2)


async def test_who_is_paused_or_stands_by_or_has_nothing_to_do_is_not_down(clocked: Clocked) -> None:
    task = await running(clocked)
    clocked.now += 1000
    assert not clocked.down, "idle"
    clocked.fakes.stream().faults = deque(["refused"] * 10_000)
    clocked.fakes.oplog.happen()
    await until(lambda: task.state is State.RETRYING)
    await task.stop(1)
    clocked.now += 1000
    assert not clocked.down, "paused"
    clocked.fakes.stream().faults.clear()
    outrun(clocked.fakes)
    task.start()
    await until(lambda: task.state is State.FENCED)
    clocked.fakes.oplog.happen()
    clocked.now += 500
    assert not clocked.down, "standing by"
    await task.stop(1)


async def test_what_turns_out_to_be_on_the_stream_waits_no_longer(clocked: Clocked) -> None:
    task = await running(clocked)
    clocked.fakes.stream().faults = deque(["ack_lost", "late", "timeout"])
    clocked.fakes.oplog.happen()
    await until(lambda: clocked.fakes.stream().published() == clocked.fakes.oplog.tokens)
    clocked.now += 1000
    await until(lambda: not clocked.down)
    await task.stop(1)
