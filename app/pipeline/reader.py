"""Reading the change stream batch by batch, within the memory budget, until asked to stop.

While a large batch is encoded, the server already looks for the next one. After a small one that would only be in the
way of publishing it. How many bytes may be held is decided in `memory_budget.py`.
"""

import asyncio
import time

from app.domain.errors import HistoryLost
from app.pipeline.batch_encoder import YIELD_BYTES
from app.pipeline.memory_budget import Share
from app.pipeline.run import Run
from app.ports import SourceBatch


class Reader:
    """One capture's reads. What `next` returns is held in the share until it is given back there."""

    def __init__(self, run: Run, share: Share) -> None:
        self._run = run
        self._source = run.ports.source
        self._share = share
        self._ahead: asyncio.Task[SourceBatch] | None = None
        self._woken = asyncio.Event()
        self._until_woken: asyncio.Task[bool] | None = None
        self._position: str | None = None
        self._begun_at = 0.0
        self.begun_at = 0.0
        """When the read of the last batch was begun (`time.monotonic`)."""
        self.stopping = False
        """Whether a stop was asked for."""
        self.overtaken: HistoryLost | None = None
        """Why there is no next batch, where the oplog has moved on over the position. It is raised once what was read
        is published: that cannot be read again."""

    def stop(self) -> None:
        """Ask for no further reads. What the server has not brought by now stays in the oplog."""
        self.stopping = True
        self._woken.set()

    def nudge(self) -> None:
        """Have `next` return without waiting for changes: there is something else to be done."""
        self._woken.set()

    def hurry(self) -> None:
        """Have the next batch come within a moment, with a newer position where there are no changes."""
        self._source.hurry()

    def look(self) -> bool:
        """Read on where there is room, and return whether the next batch is there."""
        if self._ahead is None and self._share.room and not self.stopping:
            self._ahead = self._read()
        return self._ahead is not None and self._ahead.done()

    async def next(self) -> SourceBatch | None:
        """Return the next batch, an empty one after a nudge; None where a stop was asked for, or the oplog has moved
        on. Raises as a source."""
        if self.stopping:
            return None
        if self._ahead is None:
            await self._share.until_room()
            self._ahead = self._read()
        while not await self._came(self._ahead):
            if self.stopping:
                return None
            self._woken.clear()
            if self._position is not None:
                return SourceBatch((), self._position, self._run.state.operation_time, 0)
        try:
            batch = self._ahead.result()
        except HistoryLost as error:
            self.overtaken = error
            return None
        self._position, self.begun_at = batch.position, self._begun_at
        self._share.take(batch.size)
        large = batch.size > YIELD_BYTES and self._share.room and not self.stopping
        self._ahead = self._read() if large else None
        self._run.state.replied(batch.operation_time)
        self._run.statistics.caught_up = batch.caught_up or not batch.events
        reads = self._run.statistics.reads = self._source.reads
        self._run.statistics.note("source", reads.note)
        return batch

    async def close(self) -> None:
        """Cancel what is under way. The source is good for `close` only after that."""
        tasks = [task for task in (self._ahead, self._until_woken) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._ahead = self._until_woken = None

    async def _came(self, ahead: "asyncio.Task[SourceBatch]") -> bool:
        """Wait for a batch, or to be woken; return whether the batch is there."""
        if self._until_woken is None or self._until_woken.done():
            self._until_woken = asyncio.create_task(self._woken.wait(), name=f"woken:{self._run.watcher.name}")
        await asyncio.wait((ahead, self._until_woken), return_when=asyncio.FIRST_COMPLETED)
        return ahead.done()

    def _read(self) -> asyncio.Task[SourceBatch]:
        self._begun_at = time.monotonic()
        return asyncio.create_task(self._source.read(), name=f"batch:{self._run.watcher.name}")
