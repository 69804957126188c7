"""Fast ingest over a server in memory that loses, repeats, delays, forgets, refuses, and lets others write.

Two invariants. What a send reports is true: what it calls stored is on the stream in its place, and behind a refusal
nothing is. And with the protocol above it, what is on the stream is what happened, each change once, in order.
"""

import asyncio
import selectors
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.errors import (
    ChangewireError,
    FenceLost,
    OutcomeUnknown,
    PermanentError,
    SeenBefore,
    SinkUnavailable,
    StreamFull,
    StreamRefused,
)
from app.domain.events import Change
from app.jetstream.account import JetStream
from app.pipeline.run import Run
from tests.contract.sink.places import change
from tests.fakes import FakeOplog, FakeStream
from tests.fakes.nats_server import IngestDeed, Kept, MemoryNats, MemoryStream
from tests.properties.test_capture_properties import WATCHER, Writer, _first_start

ALL = get_args(IngestDeed)
STUCK = 20_000
"""Turns of the loop after which a capture that has not published everything never will."""
FLOWS = st.lists(st.integers(1, 12), max_size=12)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Each turn takes a millisecond, and where nothing is to be done it is the next timer's time at once."""

    def __init__(self) -> None:
        super().__init__(_Instant(self))
        self.ahead = 0.0

    def time(self) -> float:
        return super().time() + self.ahead


class _Instant(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        self._loop.ahead += max(0.001, timeout or 0.0)
        return super().select(0 if timeout is not None else None)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(3600):
            await scenario

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(bounded())


def script(at: int, deeds: list[IngestDeed]) -> deque[IngestDeed]:
    begin: list[IngestDeed] = ["ok"] * at
    return deque([*begin, *deeds])


@pytest.fixture(autouse=True)
def small_windows_and_little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.jetstream.publish.fast_ingest.FLOW", 12)
    monkeypatch.setattr("app.jetstream.publish.fast_ingest.ACK_SECONDS", 0.2)
    monkeypatch.setattr("app.jetstream.publish.sender.ACK_SECONDS", 0.2)
    monkeypatch.setattr("app.jetstream.publish.fast_ingest.GRACE_SECONDS", 0.05)


many = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@many
@given(
    sizes=st.lists(st.integers(1, 15), min_size=1, max_size=8),
    known=st.sampled_from([(0, 0), (1, 3), (4, 9), (1, 60), (20, 60)]),
    deeds=st.lists(st.sampled_from(ALL), max_size=60),
    at=st.integers(0, 40),
    flows=FLOWS,
    pauses=st.lists(st.booleans(), max_size=8),
)
def test_what_a_send_reports_is_true(
    sizes: list[int], known: tuple[int, int], deeds: list[IngestDeed], at: int, flows: list[int], pauses: list[bool]
) -> None:
    async def scenario() -> None:
        server = MemoryNats()
        server.connect()
        sink = JetStream(server.connection).sink(WATCHER)
        await sink.prepare(may_create=True)
        stream = server.streams["ORDERS"]
        if known[0]:
            await sink.publish([change(moment) for moment in range(*known)], 0)
            stream.messages.clear()
        base = fence = stream.last
        server.deeds, server.flows = script(at, deeds), deque(flows)
        sent: list[tuple[Sequence[Change], int, asyncio.Future[int]]] = []
        moment = 1
        for index, size in enumerate(sizes):
            unit = [change(n) for n in range(moment, moment + size)]
            await sink.ready(unit)
            if any(future.done() and future.exception() for _, _, future in sent):
                break
            sent.append((unit, fence, sink.send(unit, fence, more=index + 1 < len(sizes))))
            moment, fence = moment + size, fence + size
            if index < len(pauses) and pauses[index]:
                await asyncio.sleep(0.01)
        sink.settle()
        await asyncio.wait([future for _, _, future in sent])
        server.deeds.clear()
        await sink.tail()  # what is late arrives
        check(sent, stream, base, forgetful="forget_ids" in deeds)
        await sink.close()

    run(scenario())


def check(
    sent: Sequence[tuple[Sequence[Change], int, "asyncio.Future[int]"]],
    stream: MemoryStream,
    base: int,
    *,
    forgetful: bool,
) -> None:
    """Compare what was reported with all that was ever on the stream after `base`."""
    since = [one for one in stream.history if one.sequence > base]
    places = {one.sequence: one.id for one in since}
    before = {one.id for one in stream.history} - set(places.values())
    ours = [one.id for one in since if one.id]
    assert ours == sorted(set(ours)), "once, in order"
    ended = False
    for unit, fence, future in sent:
        error = future.exception()
        stored = len(unit) if error is None else getattr(error, "stored", 0)
        assert not (ended and stored), "nothing is stored behind what has failed"
        for index, one in enumerate(unit[:stored], 1):
            # One that was there before is known as a duplicate, and another message may have the place it would get.
            assert places.get(fence + index) == one.id or one.id in before, "in its place"
        if error is None:
            assert future.result() == fence + len(unit)
            continue
        ended = True
        assert isinstance(error, OutcomeUnknown | StreamRefused | SinkUnavailable), repr(error)
        if stored:
            assert isinstance(error, OutcomeUnknown | StreamFull)
            assert error.sequence == fence + stored
        if isinstance(error, FenceLost | SeenBefore | StreamRefused | SinkUnavailable):
            rest = {one.id for one in unit[stored:]}
            assert not [one for one in since if one.id in rest and not one.rival], "a refusal: nothing more is stored"


class Relay(Writer):
    """A writer whose sink is the real one, on the server in memory."""

    def __init__(self, oplog: FakeOplog, place: dict[str, Any], batch: int) -> None:
        super().__init__(oplog, FakeStream(), place, batch)
        self.server = MemoryNats()
        self.server.connect()

    def work(self, **shared: Any) -> Run:
        run = super().work(**shared)
        ports = run.ports
        sink = JetStream(self.server.connection).sink(WATCHER)
        return Run(
            run.stored,
            replace(ports, sink=sink),
            run.shared,
            run.state,
            run.statistics,
        )

    def there(self) -> list[Kept]:
        stream = self.server.streams.get("ORDERS")
        return [] if stream is None else [one for one in stream.history if one.id]

    def ours(self) -> list[str]:
        return [one.id for one in self.there()]

    async def live(self, steps: int | None = None) -> None:
        """Run one capture until all is published, it ends by itself, or dies after some steps."""
        mortal, steps = steps is not None, steps or STUCK
        self.opened += 1
        task = asyncio.create_task(self.capture().run(lambda: None))
        while not task.done() and not self.done() and steps > 0:
            await asyncio.sleep(0)
            steps -= 1
        task.cancel()
        await asyncio.wait([task])
        if steps <= 0:
            assert mortal, "it is stuck: what is missing never comes"
            self.die()
        if not task.cancelled() and (error := task.exception()) is not None:
            assert isinstance(error, ChangewireError), repr(error)
            assert not isinstance(error, PermanentError), repr(error)
            assert self.opened < 200, repr(error)


@many
@given(
    bursts=st.lists(st.integers(1, 40), min_size=1, max_size=5),
    batch=st.integers(1, 20),
    deeds=st.lists(st.sampled_from([deed for deed in ALL if deed not in ("purge", "full")]), max_size=60),
    at=st.integers(0, 40),
    flows=FLOWS,
    deaths=st.lists(st.integers(1, 80), max_size=4),
    lates=st.randoms(use_true_random=False),
)
def test_each_change_once_and_in_order_whatever_befalls_its_message(
    bursts: list[int], batch: int, deeds: list[IngestDeed], at: int, flows: list[int], deaths: list[int], lates: Any
) -> None:
    async def scenario() -> None:
        oplog = FakeOplog()
        writer = Relay(oplog, {}, batch)
        await _first_start(writer)
        writer.server.lateness = lambda: lates.random() < 0.5
        writer.server.deeds, writer.server.flows = script(at, deeds), deque(flows)
        mortal = deque(deaths)
        for burst in bursts:
            for _ in range(burst):
                oplog.happen()
            while not writer.done():
                await writer.live(mortal.popleft() if mortal else None)
        writer.server.lateness = lambda: True
        await JetStream(writer.server.connection).sink(WATCHER).tail()
        assert writer.ours() == oplog.tokens

    run(scenario())


@many
@given(
    bursts=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    batch=st.integers(1, 20),
    deeds=st.lists(st.sampled_from(["ok", "ok", "purge", "full", "mute", "hold", "forget", "cut"]), max_size=40),
    at=st.integers(0, 40),
)
def test_each_change_once_and_in_order_though_the_stream_is_purged_or_full_in_the_middle(
    bursts: list[int], batch: int, deeds: list[IngestDeed], at: int
) -> None:
    async def scenario() -> None:
        oplog = FakeOplog()
        writer = Relay(oplog, {}, batch)
        await _first_start(writer)
        writer.server.deeds = script(at, deeds)
        for burst in bursts:
            for _ in range(burst):
                oplog.happen()
            while not writer.done():
                await writer.live()
        assert writer.ours() == oplog.tokens

    run(scenario())
