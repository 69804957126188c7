"""What is encoded and waits to be published: between the two tasks of a capture, in its order.

One batch waits here. The next one is held by the encoder, whose `put` returns only when the batch before it is taken.
Both are visible to `take`, which joins small ones: an atomic batch of fifty events costs nats-server hardly more than
one of two. Replays of dead letters take their turn here too.

Nothing awaits between looking at the queue and changing it. So a cancelled `take` has taken nothing, and the order is
that in which `put` and `ask` were called. How many bytes may be held is decided in `memory_budget.py`.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.dead_letters import Replay
from app.domain.errors import Unavailable
from app.domain.events import Change

TOGETHER_BYTES = 64 * 1024
"""Batches that wait are handed on together up to about so many bytes, as they were read."""


@dataclass(slots=True, eq=False)
class Encoded:
    """A batch, or several that follow one another."""

    changes: Sequence[Change]
    position: str
    """Where the change stream is after it."""
    read_at: float
    """The perf_counter() at which the first of it was read."""
    size: int
    """The bytes read, which are held until all of it is on the stream."""


@dataclass(slots=True, eq=False)
class Turn:
    """A dead letter whose replay waits until no batch is being published."""

    sequence: int
    done: asyncio.Future[Replay]

    def fail(self, error: Exception) -> None:
        """Tell the one who asked, unless it is done."""
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # read once: the one who asked may be gone


@dataclass(slots=True, eq=False)
class Settling:
    """Somebody waits until all that was put before is on the stream, or was not to be, and the stream's end was read:
    others may have published as well."""

    done: asyncio.Future[None]

    def fail(self, error: Exception) -> None:
        """Tell the one who waits, unless it is done."""
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()


class BatchQueue:
    """The queue of one capture. One task puts batches on it, one takes them off; turns may be asked for anywhere."""

    def __init__(self) -> None:
        self._items: deque[Encoded | Turn | Settling | None] = deque()
        self._came = asyncio.Event()
        self._first: asyncio.Future[None] | None = None
        """Done when no batch is ahead of the one that the encoder holds."""

    @property
    def waits(self) -> bool:
        """Whether `take` returns at once."""
        return bool(self._items)

    @property
    def more(self) -> bool:
        """Whether changes come next."""
        return bool(self._items) and isinstance(first := self._items[0], Encoded) and bool(first.changes)

    async def put(self, encoded: Encoded) -> None:
        """Add a batch, and return when it is the only one that waits, or is taken.

        Where this is cancelled, the batch is not added, unless it is taken already."""
        ahead = any(isinstance(item, Encoded) for item in self._items)
        self._add(encoded)
        if not ahead:
            return
        self._first = asyncio.get_running_loop().create_future()
        try:
            await self._first
        except asyncio.CancelledError:
            if encoded in self._items:
                self._items.remove(encoded)
            raise
        finally:
            self._first = None

    def ask(self, sequence: int) -> asyncio.Future[Replay]:
        """Add a turn, after what waits already."""
        turn = Turn(sequence, asyncio.get_running_loop().create_future())
        self._add(turn)
        return turn.done

    def settled(self) -> asyncio.Future[None]:
        """Return what is done once all that waits already is on the stream, or was not to be, and the stream's end was
        read; Unavailable at the end."""
        settling = Settling(asyncio.get_running_loop().create_future())
        self._add(settling)
        return settling.done

    def close(self) -> None:
        """Nothing more will be put."""
        self._add(None)

    async def take(self) -> Encoded | Turn | Settling | None:
        """Return what comes next, small batches that follow one another as one; None after the last."""
        while not self._items:
            self._came.clear()
            await self._came.wait()
        item = self._items.popleft()
        if not isinstance(item, Encoded):
            return item
        while item.size < TOGETHER_BYTES and self._items and isinstance(after := self._items[0], Encoded):
            self._items.popleft()
            item = Encoded([*item.changes, *after.changes], after.position, item.read_at, item.size + after.size)
        if self._first is not None and not self._first.done():
            self._first.set_result(None)
        return item

    def end_turns(self) -> None:
        """Tell everybody who still waits for a turn that there will be none."""
        for turn in self._items:
            if isinstance(turn, Turn | Settling):
                turn.fail(Unavailable("the watcher has stopped; nothing was published"))
        self._items.clear()

    def _add(self, item: Encoded | Turn | Settling | None) -> None:
        self._items.append(item)
        self._came.set()
