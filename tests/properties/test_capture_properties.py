"""The promise, over servers that lose acks, time out, tear batches, deliver late and are shared with another writer.

One invariant is checked throughout: what is on the stream is what happened, each change once, in the oplog's order.
"""

import asyncio
import random
from collections import deque
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.errors import ChangewireError, PermanentError, PositionUndecidable, ScopeMismatch, Stale
from app.domain.watcher import Source, StoredWatcher, Watcher
from app.formats.extended_json import encode, identify, names_of, reduced
from app.pipeline.batch_encoder import Codec
from app.pipeline.capture import Capture
from app.pipeline.dependencies import Shared, Tuning
from app.pipeline.run import Ports, Run
from app.pipeline.run_state import RunState
from app.pipeline.run_statistics import RunStatistics
from tests.fakes import (
    Deed,
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
)

pytestmark = pytest.mark.usefixtures("both_modes")

WATCHER = Watcher("orders", Source("shop", "orders")).with_defaults()
DEEDS = st.lists(st.sampled_from(get_args(Deed)), max_size=30)


class Writer:
    """One instance of the service: opens captures until all is published, with a memory of its own like a process."""

    def __init__(self, oplog: FakeOplog, stream: FakeStream, place: dict, batch: int, losses: int = 3) -> None:
        self.oplog, self.stream, self.place, self.batch, self.losses = oplog, stream, place, batch, losses
        self.run_state, self.statistics = RunState(), RunStatistics()
        self.box = FakeBox()
        self.opened = 0

    def work(self, **shared: Any) -> Run:
        """What one of its captures, or its standby, works on; see `Shared` for the options."""
        ports = Ports(
            FakeSource(self.oplog, self.batch),
            FakeSink(self.stream, WATCHER),
            FakeLetters(self.box, WATCHER),
            FakeCheckpoints(self.place),
            FakeRows(),
            FakeSnapshots(),
        )
        options = Shared(
            codec=Codec(encode, reduced, identify, names_of),
            observer=NullObserver(),
            tuning=Tuning(losses=self.losses),
            **shared,
        )
        return Run(StoredWatcher(WATCHER), ports, options, self.run_state, self.statistics)

    def capture(self) -> Capture:
        return Capture(self.work())

    async def until_done(self) -> None:
        while not self.done():
            self.opened += 1
            task = asyncio.create_task(self.capture().run(lambda: None))
            while not task.done() and not self.done():
                await asyncio.sleep(0)
            if not task.done():
                task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                _only_passing_trouble(task)

    async def until_drained(self) -> None:
        """Publish everything by one capture, and stop it in good order. Raises what ended it instead."""
        capture = self.capture()
        task = asyncio.create_task(capture.run(lambda: None))
        while not task.done() and not self.done():
            await asyncio.sleep(0)
        capture.stop()
        await task

    def ours(self) -> list[str]:
        """The tokens on the stream, without what neighbours published."""
        return [token for token in self.stream.published() if token]

    def done(self) -> bool:
        return len(self.ours()) >= len(self.oplog.events)

    def die(self) -> None:
        self.run_state, self.statistics = RunState(), RunStatistics()


async def _first_start(writer: Writer) -> None:
    """Let the watcher store its start position: what happens from here on is to be published."""
    task = asyncio.create_task(writer.capture().run(lambda: None))
    while "newest" not in writer.place and not task.done():
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


def _only_passing_trouble(task: asyncio.Task[None]) -> None:
    """A run may end by what the script did to it; anything else is a mistake of the capture."""
    error = task.exception()
    if error is not None and (not isinstance(error, ChangewireError) or isinstance(error, PermanentError)):
        raise error


def run(coroutine) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await coroutine

    asyncio.run(bounded())


@given(count=st.integers(0, 60), batch=st.integers(1, 20), deeds=DEEDS, lates=st.randoms(use_true_random=False))
def test_each_change_once_and_in_order_whatever_publishing_comes_to(
    count: int, batch: int, deeds: list[Deed], lates: random.Random
) -> None:
    async def scenario() -> None:
        oplog, stream = FakeOplog(), FakeStream()
        writer = Writer(oplog, stream, {}, batch)
        await _first_start(writer)
        stream.faults, stream.lateness = deque(deeds), lambda: lates.random() < 0.5
        for _ in range(count):
            oplog.happen(lates.choice(("insert", "update", "replace", "delete")))
        await writer.until_done()
        stream.lateness = lambda: True
        stream.arrive_late()
        assert stream.published() == oplog.tokens

    run(scenario())


@given(
    count=st.integers(1, 60),
    batch=st.integers(1, 20),
    deeds=DEEDS,
    deaths=st.lists(st.integers(0, 60), max_size=10),
    window=st.booleans(),
)
def test_each_change_once_and_in_order_though_the_process_dies_at_any_step(
    count: int, batch: int, deeds: list[Deed], deaths: list[int], window: bool
) -> None:
    async def scenario() -> None:
        oplog, stream = FakeOplog(), FakeStream()
        writer = Writer(oplog, stream, {}, batch)
        await _first_start(writer)
        stream.faults = deque(deeds)
        for _ in range(count):
            oplog.happen()
        for steps in deaths:
            task = asyncio.create_task(writer.capture().run(lambda: None))
            for _ in range(steps):
                if task.done():
                    break
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                _only_passing_trouble(task)
            writer.die()
            if not window:
                stream.forget_ids()
        await writer.until_done()
        assert stream.published() == oplog.tokens

    run(scenario())


@given(
    count=st.integers(1, 80),
    batches=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    deeds=DEEDS,
    window=st.booleans(),
    later=st.integers(0, 40),
)
def test_each_change_once_and_in_order_though_two_instances_publish(
    count: int, batches: tuple[int, int], deeds: list[Deed], window: bool, later: int
) -> None:
    async def scenario() -> None:
        oplog, stream, place = FakeOplog(), FakeStream(), {}
        one, two = (Writer(oplog, stream, place, batch, losses=1_000) for batch in batches)
        await _first_start(one)
        stream.faults = deque(deeds)
        if not window:
            stream.before_publish = stream.forget_ids
        for _ in range(count):
            oplog.happen()

        async def second() -> None:
            for _ in range(later):
                await asyncio.sleep(0)
            await two.until_done()

        await asyncio.gather(one.until_done(), second())
        assert stream.published() == oplog.tokens

    run(scenario())


@given(before=st.integers(1, 20), after=st.integers(1, 20), window=st.booleans(), memory=st.booleans())
def test_nothing_comes_again_after_the_stream_was_purged(before: int, after: int, window: bool, memory: bool) -> None:
    async def scenario() -> None:
        oplog, stream = FakeOplog(), FakeStream()
        writer = Writer(oplog, stream, {}, 5)
        await _first_start(writer)
        for _ in range(before):
            oplog.happen()
        await writer.until_drained()
        stream.purge()
        if not window:
            stream.forget_ids()
        if not memory:
            writer.die()
        first = [oplog.happen() for _ in range(after)]
        oplog.events = oplog.events[before:]
        await writer.until_done()
        assert stream.published() == first

    run(scenario())


@given(
    published=st.integers(1, 30),
    behind=st.integers(1, 30),
    foreign=st.integers(0, 60),
    known=st.integers(0, 40),
    memory=st.booleans(),
)
def test_nothing_is_doubled_behind_messages_of_others_though_the_checkpoint_lags(
    published: int, behind: int, foreign: int, known: int, memory: bool
) -> None:
    """Either our last message is found behind them, or the watcher says that it cannot be."""

    async def scenario() -> None:
        oplog, stream = FakeOplog(), FakeStream()
        writer = Writer(oplog, stream, {}, 5)
        await _first_start(writer)
        stream.neighbour("ORDERS.insert", known)
        lag = writer.place["newest"]
        for count in (published, behind):
            lag = writer.place["newest"]
            for _ in range(count):
                oplog.happen()
            await writer.until_drained()
        writer.place["newest"] = lag
        stream.neighbour("ORDERS.insert", foreign)
        stream.forget_ids()
        if not memory:
            writer.die()
        oplog.happen()
        try:
            await writer.until_done()
        except PositionUndecidable:
            assert foreign > 40
        assert writer.ours() == oplog.tokens[: len(writer.ours())]

    FakeSink.look_back, before = 40, FakeSink.look_back
    try:
        run(scenario())
    finally:
        FakeSink.look_back = before


@given(before=st.integers(2, 20), lost=st.integers(1, 19), memory=st.booleans())
def test_what_the_stream_lost_at_its_end_is_published_again(before: int, lost: int, memory: bool) -> None:
    async def scenario() -> None:
        oplog, stream = FakeOplog(), FakeStream()
        writer = Writer(oplog, stream, {}, 3)
        await _first_start(writer)
        for _ in range(before):
            oplog.happen()
        await writer.until_drained()
        stream.lose_end(min(lost, before - 1))
        if not memory:
            writer.die()
        await writer.until_done()
        assert stream.published() == oplog.tokens

    run(scenario())


@given(
    before=st.integers(2, 20),
    lost=st.integers(1, 19),
    neighbours=st.tuples(st.integers(0, 30), st.integers(0, 30)),
    deaths=st.lists(st.integers(0, 40), max_size=6),
    memory=st.booleans(),
    after=st.integers(0, 5),
)
def test_what_a_shared_stream_lost_is_published_again_though_a_neighbour_went_on_first(
    before: int, lost: int, neighbours: tuple[int, int], deaths: list[int], memory: bool, after: int
) -> None:
    async def scenario() -> None:
        oplog, stream = FakeOplog(), FakeStream(subjects=["ORDERS.*", "OTHERS"])
        writer = Writer(oplog, stream, {}, 3)
        await _first_start(writer)
        for _ in range(before):
            oplog.happen()
        await writer.until_drained()
        stream.lose_end(min(lost, before - 1))
        for _ in range(after):
            oplog.happen()
        for steps, count in zip([*deaths, 0], (*neighbours, *([0] * len(deaths))), strict=False):
            stream.neighbour("OTHERS", count)
            if not memory:
                writer.die()
            task = asyncio.create_task(writer.capture().run(lambda: None))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
        await writer.until_done()
        assert writer.ours() == oplog.tokens

    run(scenario())


def test_a_relay_that_stays_up_notices_what_a_shared_stream_lost() -> None:
    async def scenario() -> None:
        oplog, stream = FakeOplog(), FakeStream(subjects=["ORDERS.*", "OTHERS"])
        writer = Writer(oplog, stream, {}, 3)
        task = asyncio.create_task(writer.capture().run(lambda: None))
        while "newest" not in writer.place:
            await asyncio.sleep(0)
        for _ in range(10):
            oplog.happen()
        while not writer.done():
            await asyncio.sleep(0)
        stream.lose_end(4)
        stream.neighbour("OTHERS", 6)
        oplog.happen()
        await asyncio.wait([task])
        assert isinstance(task.exception(), Stale)
        await writer.until_done()
        assert writer.ours() == oplog.tokens

    run(scenario())


@pytest.mark.parametrize("publish", ["ack_lost", "timeout", "late", "torn"])
def test_the_checkpoint_never_passes_an_unacknowledged_event(publish: Deed) -> None:
    async def scenario() -> None:
        oplog, stream, place = FakeOplog(), FakeStream(), {}
        writer = Writer(oplog, stream, place, 4)
        await _first_start(writer)
        stream.faults = deque([publish] * 8)
        for _ in range(20):
            oplog.happen()
        task = asyncio.create_task(writer.capture().run(lambda: None))
        while not writer.done() and not task.done():
            stored = place["newest"].token
            assert {token for token in oplog.tokens if token <= stored} <= set(stream.published())
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])

    run(scenario())


def test_late_batches_of_our_own_are_no_races_lost() -> None:
    """A slow server: each batch arrives only when it is sent again, and nobody else is there."""

    async def scenario() -> None:
        oplog, stream = FakeOplog(), FakeStream()
        writer = Writer(oplog, stream, {}, 1)
        await _first_start(writer)
        looks = 0

        def every_other_look() -> bool:
            nonlocal looks
            looks += 1
            return looks % 2 == 0

        for _ in range(8):
            oplog.happen()
        task = asyncio.create_task(writer.capture().run(lambda: None))
        stream.lateness, stream.faults = every_other_look, deque(["late", "ok"] * 8)
        while not writer.done() and not task.done():
            await asyncio.sleep(0)
        assert not task.done(), task.exception()
        assert stream.published() == oplog.tokens
        task.cancel()
        await asyncio.wait([task])

    run(scenario())


@given(
    count=st.integers(1, 60),
    batch=st.integers(1, 20),
    deeds=DEEDS,
    deaths=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=10),
    eager=st.booleans(),
)
def test_each_change_once_and_in_order_though_messages_are_consumed_and_the_process_dies(
    count: int, batch: int, deeds: list[Deed], deaths: list[tuple[int, int]], eager: bool
) -> None:
    """On a work queue: what is consumed is gone from the stream, and no duplicate window helps."""
    deeds = [deed for deed in deeds if deed != "late"]  # nothing tells such a batch from somebody else's

    async def scenario() -> None:
        oplog, stream = FakeOplog(), FakeStream()
        writer = Writer(oplog, stream, {}, batch)
        await _first_start(writer)
        stream.keeps, stream.faults = False, deque(deeds)
        if eager:
            stream.before_publish = lambda: stream.consume(len(stream.messages))
        for _ in range(count):
            oplog.happen()
        for steps, consumed in deaths:
            task = asyncio.create_task(writer.capture().run(lambda: None))
            for _ in range(steps):
                if task.done():
                    break
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                _only_passing_trouble(task)
            writer.die()
            stream.consume(consumed)
        await writer.until_done()
        assert stream.published() == oplog.tokens

    run(scenario())


@given(
    counts=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    batches=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    order=st.randoms(use_true_random=False),
    deaths=st.lists(st.integers(0, 60), max_size=6),
)
def test_another_deployments_writer_never_makes_a_change_of_ours_disappear(
    counts: tuple[int, int], batches: tuple[int, int], order: random.Random, deaths: list[int]
) -> None:
    """Each deployment's changes are on the stream once and in order, up to where its watcher is FAILED, if it is."""

    async def scenario() -> None:
        stream = FakeStream()
        one, two = (FakeOplog(uuid=uuid * 16) for uuid in ("A1", "B2"))
        writers = [
            Writer(oplog, stream, {}, batch, losses=1_000) for oplog, batch in zip((one, two), batches, strict=True)
        ]
        await _first_start(writers[0])
        await _first_start(writers[1])
        left = [one] * counts[0] + [two] * counts[1]
        order.shuffle(left)
        for oplog in left:
            other = two if oplog is one else one
            oplog.moment = max(one.moment, two.moment)
            oplog.happen()
            other.moment = oplog.moment
        one.moment = two.moment = one.moment + 1  # the clocks of both go on
        ended: list[BaseException | None] = [None, None]

        def ours(index: int) -> list[str]:
            oplog = (one, two)[index]
            return [token for token in stream.published() if token in oplog.tokens]

        def done(index: int) -> bool:
            return ended[index] is not None or len(ours(index)) >= len((one, two)[index].tokens)

        async def write(index: int) -> None:
            writer, mortal = writers[index], deque(deaths)
            while not done(index):
                task = asyncio.create_task(writer.capture().run(lambda: None))
                steps = mortal.popleft() if mortal else 1_000_000
                while not task.done() and not done(index) and steps > 0:
                    steps -= 1
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                error = None if task.cancelled() else task.exception()
                if isinstance(error, PermanentError):
                    ended[index] = error
                elif steps <= 0:
                    writer.die()

        await asyncio.gather(write(0), write(1))
        for index, oplog in enumerate((one, two)):
            there = ours(index)
            assert there == oplog.tokens[: len(there)]
            if ended[index] is None:
                assert there == oplog.tokens
            else:
                assert isinstance(ended[index], ScopeMismatch), ended[index]

    run(scenario())
