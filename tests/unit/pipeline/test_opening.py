"""Opening a watcher: the order in which things are read and written, and what that order is for."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from app.domain.errors import ScopeMismatch, Stale, StreamRefused
from app.domain.events import Change
from app.domain.position import Checkpoint, Tail
from app.domain.watcher import Start, StoredWatcher
from app.formats.extended_json import encode, identify, names_of, reduced
from app.pipeline.batch_encoder import Codec
from app.pipeline.capture import Capture
from app.pipeline.dependencies import Shared
from app.pipeline.run import Ports, Run
from app.pipeline.run_state import RunState
from app.pipeline.run_statistics import RunStatistics
from tests.fakes import (
    FakeBox,
    FakeCheckpoints,
    FakeLetters,
    FakeOplog,
    FakeRows,
    FakeSink,
    FakeSnapshots,
    FakeSource,
    FakeStream,
    NullObserver,
    event_token,
)
from tests.unit.deployment import ORDERS, until


class Deployment:
    """One watcher whose opening can be watched: something may happen before each of its reads and writes."""

    def __init__(self, stored: StoredWatcher | None = None) -> None:
        self.stored = stored or StoredWatcher(ORDERS)
        self.oplog, self.stream, self.place = FakeOplog(), FakeStream(), {}
        self.state, self.statistics, self.observer = RunState(), RunStatistics(), NullObserver()
        self.steps: list[str] = []
        self.before: dict[str, Callable[[], None]] = {}

    def step(self, name: str) -> None:
        self.steps.append(name)
        self.before.pop(name, lambda: None)()

    def run(self) -> Run:
        letters = FakeLetters(FakeBox(), ORDERS)
        ports = Ports(Source(self), Sink(self), letters, Checkpoints(self), FakeRows(), FakeSnapshots())
        shared = Shared(codec=Codec(encode, reduced, identify, names_of), observer=self.observer)
        return Run(self.stored, ports, shared, self.state, self.statistics)

    async def open_and_publish(self, count: int = 0) -> None:
        """Run a capture until it is opened, and the stream holds so many messages; then drain it."""
        capture, opened = Capture(self.run()), asyncio.Event()
        running = asyncio.create_task(capture.run(opened.set))
        await until(lambda: running.done() or (opened.is_set() and len(self.stream.messages) >= count))
        capture.stop()
        await running

    def publish_elsewhere(self, index: int) -> None:
        """Have another instance publish an event of the oplog."""
        change = encode(self.oplog.events[index][1])
        self.stream.store([(ORDERS.subject("insert"), change)], self.stream.last_sequence, ORDERS.space)


class Source(FakeSource):
    def __init__(self, deployment: Deployment) -> None:
        super().__init__(deployment.oplog, 10)
        self._deployment = deployment

    async def prepare(self, *, may_create: bool = True) -> int:
        self._deployment.step("operation time")
        return await super().prepare(may_create=may_create)

    async def locate(self, start: Start) -> str:
        self._deployment.step("locate")
        return await super().locate(start)

    async def has_event(self, token: str) -> bool | None:
        self._deployment.step("prove")
        return await super().has_event(token)

    async def open(self, after: str) -> None:
        self._deployment.step("open")
        await super().open(after)


class Sink(FakeSink):
    def __init__(self, deployment: Deployment) -> None:
        super().__init__(deployment.stream, ORDERS)
        self._deployment = deployment

    async def prepare(self, *, may_create: bool) -> None:
        self._deployment.step("stream")
        await super().prepare(may_create=may_create)

    async def tail(self, since: int = 0) -> Tail:
        self._deployment.step("end")
        return await super().tail(since)


class Checkpoints(FakeCheckpoints):
    def __init__(self, deployment: Deployment) -> None:
        super().__init__(deployment.place)
        self._deployment = deployment

    async def read(self) -> Checkpoint | None:
        self._deployment.step("checkpoint")
        return await super().read()

    async def create(self, checkpoint: Checkpoint) -> bool:
        self._deployment.step("create")
        return await super().create(checkpoint)

    async def uncount(self, epoch: int) -> None:
        self._deployment.step("uncount")
        await super().uncount(epoch)


@pytest.fixture
def deployment() -> Deployment:
    return Deployment()


async def test_a_first_start_is_stored_before_anything_is_read_from_the_change_stream(deployment: Deployment) -> None:
    await deployment.open_and_publish()
    assert deployment.steps[:7] == ["operation time", "checkpoint", "stream", "end", "locate", "create", "open"]


@pytest.mark.parametrize("moment", ["checkpoint", "stream", "end"])
async def test_the_streams_end_is_read_after_the_checkpoint_so_that_another_instance_makes_it_only_later(
    deployment: Deployment, moment: str
) -> None:
    """Whenever another instance publishes and stores, this one takes it over. It neither loses nor repeats it."""
    await deployment.open_and_publish()
    change = deployment.oplog.happen()

    def publish_and_store() -> None:
        deployment.publish_elsewhere(0)
        deployment.place["newest"] = replace(deployment.place["newest"], token=change, sequence=1)

    deployment.state = RunState()
    deployment.before[moment] = publish_and_store
    await deployment.open_and_publish(1)
    assert deployment.stream.published() == [change]
    assert deployment.statistics.published == 0


async def test_of_two_first_starts_the_later_one_gives_way(deployment: Deployment) -> None:
    other = Checkpoint(event_token(7), 0)
    deployment.before["create"] = lambda: deployment.place.update(newest=other)
    with pytest.raises(Stale, match="first position"):
        await deployment.open_and_publish()
    assert deployment.place["newest"] == other
    assert "open" not in deployment.steps


async def test_a_stream_that_was_seen_is_not_created_again(deployment: Deployment) -> None:
    await deployment.open_and_publish()
    deployment.stream.exists, deployment.state = False, RunState()
    with pytest.raises(StreamRefused, match="does not exist"):
        await deployment.open_and_publish()


async def test_a_position_is_proved_before_anything_is_written(deployment: Deployment) -> None:
    await deployment.open_and_publish()
    deployment.oplog.happen()
    raw, foreign = deployment.oplog.events[0][1], event_token(1, "B2" * 16)
    change: Change = replace(encode(raw), token=foreign, id=foreign)
    deployment.stream.store([(ORDERS.subject("insert"), change)], 0, ORDERS.space)
    before = deployment.place["newest"]
    deployment.oplog.moment += 1
    deployment.steps.clear()
    with pytest.raises(ScopeMismatch, match="another deployment"):
        await deployment.open_and_publish()
    assert deployment.steps[-1] == "prove"
    assert deployment.place["newest"] == before
    assert len(deployment.stream.messages) == 1


async def test_that_messages_can_no_longer_be_counted_is_stored_before_the_change_stream_is_read(
    deployment: Deployment,
) -> None:
    deployment.oplog.happen()
    await deployment.open_and_publish()
    assert deployment.place["newest"].counted
    deployment.stream.subjects = ["ORDERS.*", "OTHERS"]
    deployment.steps.clear()
    await deployment.open_and_publish()
    assert deployment.steps.index("uncount") < deployment.steps.index("open")
    assert not deployment.place["newest"].counted


@pytest.mark.parametrize("memory", [True, False])
async def test_what_a_shared_stream_lost_is_published_again_though_others_fill_its_place_while_the_end_is_read(
    deployment: Deployment, memory: bool
) -> None:
    deployment.stream.subjects = ["ORDERS.*", "OTHERS"]
    await deployment.open_and_publish()
    changes = [deployment.oplog.happen() for _ in range(3)]
    await deployment.open_and_publish(3)
    deployment.stream.lose_end(2)
    if not memory:
        deployment.state = RunState()

    def others_come_before_the_second_look() -> None:
        deployment.before["end"] = lambda: deployment.stream.neighbour("OTHERS", 2)

    deployment.before["end"] = others_come_before_the_second_look
    await deployment.open_and_publish(5)
    assert [token for token in deployment.stream.published() if token] == changes


async def test_a_start_of_when_the_watcher_was_added_is_not_resolved_again() -> None:
    oplog = FakeOplog()
    begin = oplog.happen()
    deployment = Deployment(StoredWatcher(ORDERS, new_start=True, begin=begin))
    deployment.oplog = oplog
    later = oplog.happen()
    await deployment.open_and_publish(1)
    assert deployment.stream.published() == [later]
    assert "locate" not in deployment.steps


async def test_messages_of_others_behind_ours_are_told(deployment: Deployment) -> None:
    deployment.oplog.happen()
    await deployment.open_and_publish()
    deployment.stream.neighbour(ORDERS.subject("insert"), 3)
    await deployment.open_and_publish()
    assert deployment.observer.skips["foreign"] == 3
