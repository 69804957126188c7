"""Changes at a steady rate while instances come and go, and when each of them is on its stream.

One thread writes, in turns over the places; another one hears the streams by push consumers. Both tell what they know
while they go on, so that a step can wait for it. What is looked for here are tenths of a second: shorter latencies are
measured by processes of their own (`ends.py`).
"""

import asyncio
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Self

from bench.listen import END
from bench.stage import Incomplete, Place, Stage
from bench.wire import Wire
from bench.workload import number_of
from bench.write import inserter

LOOK_SECONDS = 0.05
LATE_SECONDS = 1.0
"""A writer that is late by more gives up what it missed."""


class Traffic:
    """Writer and listener. Use it as an async context manager: it begins and ends with the block.

    Times are those of `time.perf_counter`. The change with number n is made in the collection of place n modulo their
    number."""

    def __init__(self, stage: Stage, places: Sequence[Place], rate: float, patience: float, first: int = 0) -> None:
        """`rate`: changes/s over all places. `patience`: seconds in which what is waited for has to come. `first`: what
        is added to the numbers of the changes as they are written, where the places have others already."""
        self.acknowledged: list[float] = []
        """When MongoDB acknowledged each change, by its number."""
        self.arrived: dict[int, float] = {}
        """When each number was first delivered from its stream."""
        self._stage, self._places, self._rate, self._patience = stage, places, rate, patience
        self._first = first
        self._over = threading.Event()
        self._inbox = stage.bus.new_inbox()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        wire = await asyncio.to_thread(Wire, self._stage.nats.url, 600)
        await asyncio.to_thread(wire.subscribe, self._inbox)
        self._tasks.append(asyncio.create_task(asyncio.to_thread(self._hear, wire), name="listener"))
        try:
            for place in self._places:
                await self._stage.deliver(place, self._inbox, only="insert")
        except BaseException:
            await self._end()
            raise
        self._tasks.append(asyncio.create_task(asyncio.to_thread(self._write), name="writer"))
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._over.set()
        try:
            if kind is None:
                await asyncio.wait_for(self._tasks[1], self._patience)
                await self.all_here()
        finally:
            await self._end()

    async def _end(self) -> None:
        self._over.set()
        await self._stage.bus.publish(self._inbox, END)
        await self._stage.bus.flush()
        await asyncio.gather(*self._tasks)

    def _hear(self, wire: Wire) -> None:
        with wire:
            for at, _, body in wire.messages():
                if body == END:
                    return
                self.arrived.setdefault(number_of(body) - self._first, at)

    def _write(self) -> None:
        put = inserter(self._stage.mongo.uri)
        number, due = 0, time.perf_counter()
        while not self._over.wait(max(0.0, due - time.perf_counter())):
            place = self._places[number % len(self._places)]
            written = self._first + number
            at = put([place.database, place.collection], range(written, written + 1))
            self.acknowledged.append(at)
            number += 1
            due = max(due + 1 / self._rate, at - LATE_SECONDS)

    async def all_here(self) -> None:
        """Wait until every change that is acknowledged by now is on its stream. Raises Incomplete."""
        count = len(self.acknowledged)
        missing = set(range(count))

        def here() -> bool:
            missing.difference_update(self.arrived.copy())
            return not missing

        await self._until(here, lambda: f"{len(missing):,} of {count:,} changes have not arrived")

    async def again(self, indices: Iterable[int], since: float) -> float:
        """Wait until each of the places with these indices has a change on its stream that was made after a moment;
        return how many seconds after that moment the last of them had. Raises Incomplete."""
        # The change that was on its way at that moment is not counted: it may have been published before.
        after = bisect_right(self.acknowledged, since) + 1
        several = len(self._places)
        numbers = [after + (index - after) % several for index in indices]
        await self._until(
            lambda: all(number in self.arrived for number in numbers),
            lambda: f"{sum(number not in self.arrived for number in numbers)} watchers publish nothing",
        )
        return max((self.arrived[number] for number in numbers), default=since) - since

    def worst(self, since: float) -> float:
        """The longest delay in seconds, from acknowledgement to arrival, of what has arrived since a moment."""
        arrived = [(number, at) for number, at in self.arrived.copy().items() if at >= since]
        # A message can arrive before the writer has been told that its change is acknowledged.
        known = len(self.acknowledged)
        return max((at - self.acknowledged[number] for number, at in arrived if number < known), default=0.0)

    async def _until(self, good: Callable[[], bool], what: Callable[[], str]) -> None:
        deadline = time.monotonic() + self._patience
        while not good():
            for task in self._tasks:
                if task.done() and (task.get_name() == "listener" or not self._over.is_set()):
                    task.result()
                    raise Incomplete(f"the {task.get_name()} of the bench has ended")
            if time.monotonic() > deadline:
                raise Incomplete(f"{what()} after {self._patience:g} s")
            await asyncio.sleep(LOOK_SECONDS)
