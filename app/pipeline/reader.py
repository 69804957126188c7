"""Reading the change stream batch by batch, within the memory budget, until asked to stop.

While a large batch is encoded, the server already looks for the next one. After a small one that would only be in the
way of publishing it. How many bytes may be held is decided in `memory_budget.py`.
"""

import asyncio

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
        self._stopping = asyncio.Event()
        self._stop_asked: asyncio.Task[bool] | None = None
        self._ahead: asyncio.Task[SourceBatch] | None = None
        self.overtaken: HistoryLost | None = None
        """Why there is no next batch, where the oplog has moved on over the position. It is raised once what was read
        is published: that cannot be read again."""

    def stop(self) -> None:
        """Ask for no further reads. What the server has not brought by now stays in the oplog."""
        self._stopping.set()

    async def next(self) -> SourceBatch | None:
        """Return the next batch; None where a stop was asked for, or the oplog has moved on. Raises as a source."""
        if self._stopping.is_set():
            return None
        if self._ahead is None:
            await self._share.until_room()
            self._ahead = self._read()
        if self._stop_asked is None:
            self._stop_asked = asyncio.create_task(self._stopping.wait(), name=f"stopping:{self._run.watcher.name}")
        await asyncio.wait((self._ahead, self._stop_asked), return_when=asyncio.FIRST_COMPLETED)
        if not self._ahead.done():
            return None
        try:
            batch = self._ahead.result()
        except HistoryLost as error:
            self.overtaken = error
            return None
        self._share.take(batch.size)
        large = batch.size > YIELD_BYTES and self._share.room and not self._stopping.is_set()
        self._ahead = self._read() if large else None
        self._run.state.replied(batch.operation_time)
        self._run.statistics.caught_up = batch.caught_up or not batch.events
        reads = self._run.statistics.reads = self._source.reads
        self._run.statistics.note("source", reads.note)
        return batch

    async def close(self) -> None:
        """Cancel what is under way. The source is good for `close` only after that."""
        for task in (self._ahead, self._stop_asked):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._ahead = self._stop_asked = None

    def _read(self) -> asyncio.Task[SourceBatch]:
        return asyncio.create_task(self._source.read(), name=f"batch:{self._run.watcher.name}")
