"""What is encoded and waits to be published: between the two tasks of a capture, in its order.

One batch waits, and the next one is held by whoever encoded it. Small ones that came meanwhile are handed on together:
an atomic batch of fifty events costs nats-server hardly more than one of two. Replays of dead letters take their turn
here too. Not its business: how many bytes may be held (`memory_budget.py`), and what is done with either
(`capture.py`).
"""

import asyncio
from collections import deque
from dataclasses import dataclass

from app.domain.dead_letters import Replay
from app.domain.errors import Unavailable
from app.domain.events import Change

TOGETHER_BYTES = 64 * 1024
"""Batches that wait are handed on together up to about so many bytes, as they were read."""


@dataclass(slots=True)
class Encoded:
    """A batch, or several that follow one another."""

    changes: list[Change]
    position: str
    """Where the change stream is behind it."""
    read_at: float
    """The perf_counter() at which the first of it was read."""
    size: int
    """The bytes read, which are held until all of it is on the stream."""


@dataclass(slots=True)
class Turn:
    """A dead letter whose replay waits until no batch is being published."""

    sequence: int
    done: asyncio.Future[Replay]

    def fail(self, error: Exception) -> None:
        """Tell whoever asked, unless it is done."""
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # read once: whoever asked may be gone


class BatchQueue:
    """The queue of one capture. One task puts batches on it, one takes them off; anybody may ask for a turn."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[Encoded | Turn | None] = asyncio.Queue()
        self._early: deque[Turn | None] = deque()
        """What was taken from the queue before its time."""
        self._room = asyncio.Semaphore()

    async def put(self, encoded: Encoded) -> None:
        """Add a batch as soon as there is room."""
        await self._room.acquire()
        self._queue.put_nowait(encoded)

    def ask(self, sequence: int) -> asyncio.Future[Replay]:
        """Add a turn, behind what waits already."""
        turn = Turn(sequence, asyncio.get_running_loop().create_future())
        self._queue.put_nowait(turn)
        return turn.done

    def close(self) -> None:
        """Nothing more will be put."""
        self._queue.put_nowait(None)

    async def take(self) -> Encoded | Turn | None:
        """What comes next; None behind the last."""
        item = self._early.popleft() if self._early else await self._queue.get()
        if not isinstance(item, Encoded):
            return item
        self._room.release()
        while item.size < TOGETHER_BYTES and self._room.locked():
            await asyncio.sleep(0)  # whoever waits for room comes in
            if self._queue.empty():
                break
            after = self._queue.get_nowait()
            if not isinstance(after, Encoded):
                self._early.append(after)
                break
            self._room.release()
            item = Encoded([*item.changes, *after.changes], after.position, item.read_at, item.size + after.size)
        return item

    def end_turns(self) -> None:
        """Tell everybody who still waits for a turn that there will be none."""
        while self._early or not self._queue.empty():
            turn = self._early.popleft() if self._early else self._queue.get_nowait()
            if isinstance(turn, Turn):
                turn.fail(Unavailable("the watcher has stopped; nothing was published"))
