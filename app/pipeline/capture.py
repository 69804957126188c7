"""The straight line every change takes: read, encode, publish, checkpoint.

One `Capture` is one run of one watcher. It is opened (`opening.py` finds where to go on), and then two tasks pass
batches along, so that reading and encoding the next one overlap with waiting for the last one's acknowledgement. A
third task writes checkpoints in the background. An error ends all of it, and the watcher's task in `control/` opens the
next one. How a batch gets onto the stream for certain is in `publisher.py`.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import structlog

from app.domain.dead_letters import Replay
from app.domain.errors import RegistryError, Stale, StoreUnavailable, Unavailable
from app.domain.position import Reached
from app.domain.tokens import id_suffix
from app.pipeline.batch_encoder import BatchEncoder
from app.pipeline.batch_queue import BatchQueue, Encoded, Turn
from app.pipeline.checkpointer import Checkpointer
from app.pipeline.in_flight import InFlight
from app.pipeline.ledger import Ledger
from app.pipeline.opening import Opening
from app.pipeline.publisher import Publisher
from app.pipeline.reader import Reader
from app.pipeline.replays import Replays
from app.pipeline.run import Run
from app.pipeline.snapshot import SnapshotProducer

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Capture:
    """One run of a watcher, from opening to stop or error. Use it once."""

    def __init__(self, run: Run, *, begun: Callable[[], Awaitable[None]] | None = None) -> None:
        """`begun` is told when a position is stored, and before the first event is read: `new_start` and `begin` of the
        stored watcher have done their part by then."""
        watcher, ports, shared = run.watcher, run.ports, run.shared
        self._run = run
        self._name = watcher.name
        self._begun = begun
        self._share = shared.memory_budget.share()
        self._reader = Reader(run, self._share)
        self._encoder = BatchEncoder(watcher, shared.codec, ports.sink, run.statistics, shared.observer)
        self._batch_queue = BatchQueue()
        self._ledger = Ledger(run)
        self._publisher = Publisher(run, self._ledger)
        self._in_flight = InFlight(run, self._ledger, self._publisher, self._published)
        self._replays = Replays(run, self._ledger, self._publisher)
        self._checkpointer = Checkpointer(
            ports.checkpoints, shared.observer, watcher=watcher.name, clock=shared.clock,
            # Such a watcher may be given back to mongodb-nats-connector, which reads the same checkpoint.
            prompt=run.stored.origin == "file", places=len(watcher.entries) or 1, quiet_pace=shared.quiet_pace,
        )  # fmt: skip
        self._snapshot = SnapshotProducer(
            run, self._ledger, self._encoder, self._batch_queue, self._reader, self._share, self._checkpointer
        )
        self._overdue = run.statistics.overdue
        self._ended = False

    def stop(self) -> None:
        """Ask for a drain: no further reads; what is read is published, acknowledged and checkpointed."""
        self._reader.stop()

    async def replay(self, sequence: int) -> Replay:
        """Publish a dead letter in its turn. Raises NotFound, Conflict, Unavailable."""
        if self._ended:
            raise Unavailable("the watcher is about to stop; nothing was published")
        return await self._batch_queue.ask(sequence)

    def look_at_snapshot(self) -> None:
        """The stored run of the snapshot was changed: one began, or this one is to end."""
        self._snapshot.look()

    async def run(self, opened: Callable[[], None]) -> None:
        """Open, tell `begun` and `opened`, and publish until stopped; returns only after a drain.

        Raises what ended it: TransientError, PermanentError, Fenced, Stale."""
        try:
            opening = Opening(self._run, self._ledger, self._publisher, self._checkpointer, self._snapshot.gap_comes)
            reached = await opening.open()
            if self._begun is not None:
                await self._begun()
            await self._snapshot.resume()
            self._run.statistics.reads = self._run.ports.source.reads  # known before the first reply comes
            opened()
            await self._follow(reached)
        finally:
            self._ended = True
            self._batch_queue.end_turns()
            self._snapshot.close()
            self._run.statistics.caught_up = False
            self._share.give_all_back()
            await self._run.ports.source.close()
            await self._run.ports.sink.close()

    async def _follow(self, reached: Reached) -> None:
        name = self._name
        failure: BaseException | None = None
        own = asyncio.current_task()
        asked = 0 if own is None else own.cancelling()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(unless_asked(self._read_and_encode(reached)), name=f"read:{name}")
                publishing = tasks.create_task(unless_asked(self._publish_and_checkpoint()), name=f"publish:{name}")
                writing = tasks.create_task(unless_asked(self._checkpointer.run()), name=f"checkpoint:{name}")
                storing = tasks.create_task(unless_asked(self._snapshot.run()), name=f"snapshot:{name}")
                publishing.add_done_callback(lambda _: (writing.cancel(), storing.cancel()))
        except BaseExceptionGroup as group:
            failure = group.exceptions[0]
            # Up to Python 3.12 the group leaves its own request to cancel this task standing. Python 3.11.2 then takes
            # every later timeout of the task for a cancellation, which would end the watcher without a word.
            if own is not None and own.cancelling() > asked:
                own.uncancel()
        if failure is not None:
            raise failure
        try:
            await self._checkpointer.flush()
            await self._snapshot.store()
        except StoreUnavailable as error:
            log.warning("last_checkpoint_not_written", watcher=name, reason=str(error))
        if self._encoder.failure is not None:
            raise self._encoder.failure
        if (overtaken := self._reader.overtaken) is not None:
            if self._run.watcher.on_history_lost == "fail":
                raise overtaken
            raise Stale(str(overtaken)) from overtaken

    async def _read_and_encode(self, reached: Reached) -> None:
        suffix, last, first = id_suffix(reached.epoch), reached.token, True
        try:
            while (batch := await self._reader.next()) is not None:
                read_at, caught_up = time.perf_counter(), batch.caught_up or not batch.events
                changes = await self._encoder.encode(batch, suffix, last)
                if changes:
                    self._overdue.changes_read(self._run.now())
                elif not first and self._share.held == batch.size:  # the first comes with the opening, mostly empty
                    self._overdue.nothing_waits(self._run.now())
                encoded = Encoded(changes, batch.position, read_at, batch.size)
                if self._snapshot.active:
                    await self._snapshot.weave(encoded, caught_up=caught_up)
                else:
                    await self._batch_queue.put(encoded)
                if self._encoder.failure is not None:
                    break
                last, first = batch.position, False
        finally:
            await self._reader.close()
        self._batch_queue.close()

    async def _publish_and_checkpoint(self) -> None:
        while True:
            if not self._batch_queue.waits:
                await self._in_flight.settle()
            encoded = await self._batch_queue.take()
            if isinstance(encoded, Encoded):
                await self._in_flight.put(encoded, more=self._batch_queue.more)
                continue
            await self._in_flight.settle()
            if encoded is None:
                return
            if isinstance(encoded, Turn):
                await self._take_turn(encoded)
            else:
                await self._ledger.read_back((), None)
                if not encoded.done.done():
                    encoded.done.set_result(None)

    def _published(self, encoded: Encoded) -> None:
        """All of a batch is on the stream, or was not to be."""
        self._ledger.come_to(encoded.position)
        if not self._ledger.behind:  # else a wrong count may still show, and what was passed over is needed
            checkpoint = self._run.checkpoint(self._ledger.reached)
            self._checkpointer.note(checkpoint, quiet=not encoded.changes, changes=len(encoded.changes))
        self._share.give_back(encoded.size)
        self._snapshot.published()
        if encoded.changes and not self._share.held:
            self._overdue.nothing_waits(self._run.now())
        if self._checkpointer.written_at is not None:
            self._run.statistics.checkpointed_at = self._checkpointer.written_at

    async def _take_turn(self, turn: Turn) -> None:
        try:
            await self._stop_counting()
            done = await self._replays.replay(turn.sequence)
        except RegistryError as error:
            turn.fail(error)
        except BaseException as error:
            turn.fail(Unavailable(f"the watcher was interrupted; ask again: {error}"))
            raise
        else:
            if not turn.done.done():
                turn.done.set_result(done)

    async def _stop_counting(self) -> None:
        """Say, before a message goes out that is no change in its turn, that those after the checkpoint are not to be
        counted as changes. Raises Unavailable."""
        if self._ledger.behind:
            raise Unavailable("the watcher is passing over what was published before; ask again")
        try:
            await self._checkpointer.flush()
            await self._run.ports.checkpoints.uncount(self._ledger.reached.epoch)
        except StoreUnavailable as error:
            raise Unavailable(f"{error} (nothing was published)") from error


async def unless_asked(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, and raise RuntimeError where it ends cancelled though no one asked for that.

    A driver's cancelled future does this. A task group would take it for a wish, and nothing would notice the end.
    """
    task = asyncio.current_task()
    asked = 0 if task is None else task.cancelling()
    try:
        return await work
    except asyncio.CancelledError as error:
        if task is None or task.cancelling() > asked:
            raise
        raise RuntimeError(f"{task.get_name()} was cancelled from within") from error
