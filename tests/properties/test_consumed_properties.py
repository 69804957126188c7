"""The promise where messages are gone from the stream before anybody looks: consumed from a work queue, by interest.

What is published is counted then (`domain/counted.py`). One invariant: what was ever on the stream is what
happened, each change once, in the oplog's order.
"""

import asyncio
from collections import deque
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.domain.errors import Fenced
from app.pipeline.standby import Standby
from tests.fakes import Deed, FakeOplog, FakeStream
from tests.properties.test_capture_properties import Writer, _first_start, _only_passing_trouble, run

pytestmark = pytest.mark.usefixtures("both_modes")

DEEDS = st.lists(st.sampled_from(get_args(Deed)), max_size=20)


class Instance(Writer):
    """A writer that stands by when it is outrun, for as long as the other one publishes."""

    now = 0.0
    other: "Instance | None" = None
    alive = True

    def done(self) -> bool:
        return len(set(self.ours())) >= len(self.oplog.events)

    def standby(self) -> Standby:
        return Standby(self.work(clock=self.clock))

    def clock(self) -> float:
        """Silence is when the other one is dead: what it sent has arrived by then, and its checkpoint is written."""
        self.now += 5.0 if self.other is None or not self.other.alive else 0.0
        return self.now

    async def live(self, lives: deque[int] | None = None) -> None:
        """Publish until all is done; each life ends after so many steps, and it is not born again after the last."""
        mortal, lives = lives is not None, lives if lives is not None else deque()
        while not self.done():
            if mortal and not lives:
                break
            steps = lives.popleft() if lives else 1_000_000
            task = asyncio.create_task(self._run())
            while not task.done() and not self.done() and steps > 0:
                steps -= 1
                await asyncio.sleep(0)
            while not task.done():  # asyncio.wait_for, in the fake source, may miss one
                task.cancel()
                await asyncio.sleep(0)
            if task.cancelled():
                self.die()
            else:
                _only_passing_trouble(task)
        self.alive = False

    async def _run(self) -> None:
        try:
            await self.capture().run(lambda: None)
        except Fenced:
            await self.standby().until_silent()


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.pipeline.standby.LOOK_SECONDS", 0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 60),
    batches=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    later=st.integers(0, 40),
    keeps=st.integers(0, 3),
    deeds=DEEDS,
    deaths=st.one_of(st.none(), st.lists(st.integers(0, 80), max_size=4)),
)
def test_two_instances_publish_each_change_once_though_messages_are_consumed_at_once(
    count: int, batches: tuple[int, int], later: int, keeps: int, deeds: list[Deed], deaths: list[int] | None
) -> None:
    """One lives on; the other does too, or dies again and again, and for good then: nothing is lost then either, and
    what it had published since its last checkpoint may come twice, where the race was lost after that.
    """

    async def scenario() -> None:
        oplog, stream, place = FakeOplog(), FakeStream(), {}
        one, two = (Instance(oplog, stream, place, batch, losses=3) for batch in batches)
        one.other, two.other = two, one
        await _first_start(one)
        stream.before_publish = lambda: stream.consume(max(0, len(stream.messages) - keeps))
        stream.keeps, stream.faults = False, deque(deeds)
        for _ in range(count):
            oplog.happen()

        async def second() -> None:
            for _ in range(later):
                await asyncio.sleep(0)
            await two.live()

        await asyncio.gather(one.live(None if deaths is None else deque(deaths)), second())
        there = stream.published()
        assert list(dict.fromkeys(there)) == oplog.tokens
        if deaths is None:
            assert there == oplog.tokens

    run(scenario())
