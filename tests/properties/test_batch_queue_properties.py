"""The batch queue under every interleaving of its two tasks, of turns, and of cancellations.

What was put and what was asked for comes out once, in the order of the calls. At most one batch waits while the encoder
holds another, and small ones are joined whenever both are there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from app.domain.events import Change
from app.pipeline.batch_queue import TOGETHER_BYTES, BatchQueue, Encoded, Settling, Turn

Step = Literal["put", "ask", "take", "turn of the loop", "cancel the put", "cancel the take"]
STEPS = st.lists(
    st.sampled_from(("put", "put", "ask", "take", "take", "turn of the loop", "cancel the put", "cancel the take")),
    max_size=80,
)
SIZES = st.lists(st.sampled_from((1, TOGETHER_BYTES // 2, TOGETHER_BYTES - 1, TOGETHER_BYTES)), min_size=1)


@dataclass
class Play:
    """One queue, at most one put and one take under way, and what went in and came out."""

    sizes: deque[int]
    queue: BatchQueue = field(default_factory=BatchQueue)
    called: list[str] = field(default_factory=list)
    """In the order of the calls."""
    given_up: set[str] = field(default_factory=set)
    """Put, and cancelled before the put had returned."""
    out: list[str] = field(default_factory=list)
    putting: asyncio.Task[None] | None = None
    taking: asyncio.Task[None] | None = None
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def do(self, step: Step) -> None:
        if step == "put" and (self.putting is None or self.putting.done()):
            name = f"batch {len(self.called)}"
            self.putting = asyncio.create_task(self._put(name), name=name)
            self.tasks.append(self.putting)
        elif step == "ask":
            self.called.append(f"turn {len(self.called)}")
            self.queue.ask(len(self.called) - 1)
        elif step == "take" and (self.taking is None or self.taking.done()):
            self.taking = asyncio.create_task(self._take())
            self.tasks.append(self.taking)
        elif step == "turn of the loop":
            await asyncio.sleep(0)
        elif step == "cancel the put" and self.putting is not None and self.putting.cancel():
            self.given_up.add(self.putting.get_name())
        elif step == "cancel the take" and self.taking is not None:
            self.taking.cancel()

    async def _put(self, name: str) -> None:
        self.called.append(name)
        change = Change(name, "insert", b"{}", 0.0, name)
        size = self.sizes[0]
        self.sizes.rotate(-1)
        await self.queue.put(Encoded([change], name, 0.0, size))
        waiting = {call for call in self.called if call.startswith("batch")} - set(self.out) - self.given_up
        assert waiting <= {name}, "a put returned though a batch before its own waits"

    async def _take(self) -> None:
        self._note(await self.queue.take())

    def _note(self, item: Encoded | Turn | Settling | None) -> None:
        assert not isinstance(item, Settling), "nobody has asked for it"
        if isinstance(item, Turn):
            self.out.append(f"turn {item.sequence}")
        elif item is not None:
            self.out += [change.token for change in item.changes]
            assert item.position == item.changes[-1].token
            assert len(item.changes) <= 2

    async def finish(self) -> None:
        """Let everything come out, and end."""
        if self.taking is not None:
            self.taking.cancel()
            await asyncio.wait([self.taking])
        await asyncio.sleep(0)  # a put that was just made, or cancelled, comes to it
        while self.putting is not None and not self.putting.done():
            self._note(await self.queue.take())
            await asyncio.sleep(0)
        self.queue.close()
        while (item := await self.queue.take()) is not None:
            self._note(item)
        for task in self.tasks:
            if not task.cancelled():
                await task  # raises what was found wrong in it


@settings(deadline=None, max_examples=300)
@given(steps=STEPS, sizes=SIZES)
def test_all_that_was_put_and_asked_for_comes_out_once_in_the_order_of_the_calls(
    steps: list[Step], sizes: list[int]
) -> None:
    async def scenario() -> None:
        play = Play(deque(sizes))
        for step in steps:
            await play.do(step)
        await play.finish()
        assert len(play.out) == len(set(play.out))
        missing = set(play.called) - set(play.out)
        assert missing <= play.given_up
        assert play.out == [call for call in play.called if call not in missing]

    asyncio.run(scenario())


@settings(deadline=None, max_examples=100)
@given(first=st.integers(1, 2 * TOGETHER_BYTES), second=st.integers(1, 2 * TOGETHER_BYTES), turn=st.booleans())
def test_the_batch_that_waits_and_the_one_held_are_joined_where_the_first_is_small(
    first: int, second: int, turn: bool
) -> None:
    async def scenario() -> None:
        queue = BatchQueue()
        await queue.put(Encoded([Change("1", "insert", b"{}", 0.0, "1")], "1", 0.0, first))
        if turn:
            queue.ask(7)
        holding = asyncio.create_task(queue.put(Encoded([Change("2", "insert", b"{}", 0.0, "2")], "2", 0.0, second)))
        await asyncio.sleep(0)
        item = await queue.take()
        assert isinstance(item, Encoded)
        joined = first < TOGETHER_BYTES and not turn
        assert [change.token for change in item.changes] == (["1", "2"] if joined else ["1"])
        assert item.size == (first + second if joined else first)
        await holding  # nothing is ahead of it any more

    asyncio.run(scenario())
