"""The capture's second producer: a snapshot's rows, put between the changes at their exact place.

Theory of operation
===================

The stream of changes comes to a *mark*: a position of a cluster time C at which all changes before C are read, and none
of C or later. Documents read as of the time just before C have the effects of all those changes, and of no others. So
their rows belong exactly there, and a consumer that applies messages in order has each document's true state: no row is
older than a change before it, none is newer than a change after it.

A *window* opens at a mark. Changes after it wait while chunks are read as of its time and put on the queue, for
`HOLD_SECONDS` at most once one waits. Then they go on, and the next window opens at a later mark. Where nothing comes,
a window lasts until the change stream says that time has passed. Where MongoDB's replies end in a mark, which they do
when nothing happens, no change ever waits for rows that are behind it. After a change, the mark of the next cluster
time is the place, once the stream has come to it: the next read is asked not to wait long.

Between two windows the changes pass that came during the first one. Where they are few, the next window opens at once,
so rows and changes take short turns. Where they are many, or old, the changes go first.

What is planned and what is sent
--------------------------------

Each row has a place that nothing else ever has: mark, epoch, run, chunk and row (`domain/tokens.RowPlace`). It compares
with tokens in the stream's order, so the ledger treats rows as changes, and after an unknown outcome reads back how far
they got. Before the first row of a chunk is sent, the chunk is planned: stored with its mark, and with the keys of all
its rows (`domain/snapshot.py`). Only who has seen the run's last version may plan.

    a crash                                    the next opening finds
    -----------------------------------------  -----------------------------------------------------------------------
    before a chunk is planned                  nothing of it: it is read as of a later time
    after that, before its last row            the chunk, and on the stream (or by its count) how many rows are there.
                                               When the changes have come to its mark again, it is read again as of the
                                               same time, and the rest is sent. Where MongoDB has that time no more, the
                                               chunk ends with its last row there, and the next begins after that key
    after its last row                         that its last row is there, or a later message is
    after the last chunk                       that the end is planned: the message that says so has its place too, or
                                               that it is not: it comes at a mark later than all that was read

Another writer that does not know of the run may publish changes past a mark at which rows are to come: its capture was
opened before the run began, and it was frozen meanwhile. The ledger raises Stale then, and the opening looks on the
stream how many of those rows are there (`snapshot_found.py`).
"""

import asyncio
import time
from bisect import bisect_left
from contextlib import suppress
from dataclasses import replace
from typing import Literal

import structlog

from app.domain.errors import MomentGone, PermanentError, SourceUnavailable, Stale, StoreUnavailable
from app.domain.position import Reached
from app.domain.snapshot import Chunk, Snapshot
from app.domain.tokens import cluster_time, is_mark, mark_after, mark_of
from app.pipeline.batch_encoder import BatchEncoder
from app.pipeline.batch_queue import BatchQueue, Encoded
from app.pipeline.checkpointer import Checkpointer
from app.pipeline.ledger import Ledger
from app.pipeline.memory_budget import Share
from app.pipeline.reader import Reader
from app.pipeline.run import Run
from app.pipeline.snapshot_found import other_than_planned
from app.pipeline.snapshot_record import RunEnded, SnapshotRecord
from app.pipeline.snapshot_rows import SnapshotRows

log = structlog.get_logger(__name__)

HOLD_SECONDS = 0.05
"""How long changes wait for rows, about, before they go on."""
FEW = 64
FEW_BYTES = 256 * 1024
FEW_SECONDS = 1
"""So few changes at once, and none older than that, are new ones and no backlog."""
BETWEEN_SECONDS = 0.5
"""The least time between two windows while there is a backlog."""
AGAIN_SECONDS = 1.0
"""The pause after rows could not be read, while the changes go on."""
TOO_OLD_TRIES = 20
"""So many times in a row that MongoDB does not have the time of a mark end the run: a good while, since a collection's
new index or name makes it so as well."""


class SnapshotProducer:
    """One capture's. One task weaves; another one stores what was published (`run`)."""

    def __init__(
        self, run: Run, ledger: Ledger, encoder: BatchEncoder, queue: BatchQueue, reader: Reader, share: Share,
        checkpointer: Checkpointer,
    ) -> None:  # fmt: skip
        self._run = run
        self._name = run.watcher.name
        self._limits = run.shared.snapshots
        self._ledger = ledger
        self._queue = queue
        self._share = share
        self._reader = reader
        self._record = SnapshotRecord(run, ledger, checkpointer)
        self._rows = SnapshotRows(run, self._record, ledger, encoder, queue, share)
        self._asked = False
        self._again: list[Chunk] = []
        """Planned chunks of which rows may be missing on the stream, in their order."""
        self._due: str | None = None
        """The mark at which the next window opens, once the changes have come to it."""
        self._not_before = 0.0
        self._retry: asyncio.TimerHandle | None = None
        self._window_ended = 0.0
        self._let_pass = True
        """Whether the changes that waited behind the last window have passed."""
        self._too_old = 0
        self._said = ""
        """The trouble that was logged last."""

    @property
    def active(self) -> bool:
        """Whether anything is to be done between changes."""
        return self._asked or self._record.now is not None

    def look(self) -> None:
        """The stored run was changed: it began, or is to end."""
        self._asked = True
        self._reader.nudge()

    def close(self) -> None:
        """Give up the run's place among those that read."""
        if self._retry is not None:
            self._retry.cancel()
        self._run.statistics.snapshot_waits = None
        self._limits.release(self._name)

    # What is left to be done

    async def gap_comes(self, position: str) -> None:
        """A gap is about to be marked after a position. A run with rows before it would say in the end that it is
        complete, though changes are missing: end it. Raises Stale, StoreUnavailable."""
        await self._record.load()
        run = self._record.known
        if run is None or not (run.running and run.begun) or (run.end_planned and run.finish <= position):
            return
        with suppress(RunEnded):
            await self._record.end("cancelled", "changes are missing on the stream since it began: a gap marks where")

    async def resume(self) -> None:
        """Find out at an opening what is left of a run, before anything is read. Raises StoreUnavailable, and what a
        sink raises."""
        reached = self._ledger.reached
        await self._record.load_if_needed(reached.token)
        if (run := self._record.known) is None or await self._moved_away(run):
            return
        with suppress(RunEnded):
            await self._take_up(run, reached)

    async def _take_up(self, run: Snapshot, reached: Reached) -> None:
        """Go on with a run. Raises as `resume`, and RunEnded."""
        if run.forgotten > reached.token:
            await self._record.end("failed", "the stream has lost rows that cannot be made again; begin another one")
            return
        if run.running and (found := await other_than_planned(self._run.ports, run, reached)) is not None:
            log.info("snapshot_overtaken", watcher=self._name, run=run.run, chunk=found[0], rows=found[1])
            await self._rows.cut(*found)
            run = self._record.run
            self._ledger.rows_end(next(run.end(chunk) for chunk in run.chunks if chunk.number == found[0]))
        self._again = [chunk for chunk in run.chunks if chunk.rows and run.end(chunk) > reached.token]
        if self._again and run.state == "done":
            log.warning("snapshot_lost_its_end", watcher=self._name, run=run.run, chunks=len(self._again))
            await self._record.move(Snapshot.reopened)
        elif run.running:  # a plan that is on its way from an earlier capture is refused from now on
            await self._record.move(Snapshot.touched)

    async def _look_again(self) -> None:
        """Somebody has begun a run, or ended it. Raises Stale, StoreUnavailable."""
        self._asked = False
        news = await self._record.load()
        self._due, self._not_before, self._too_old = None, 0.0, 0
        self._rows.look_again()
        run = self._record.now
        if news and run is not None and run.running and run.chunks:
            raise Stale("another instance has gone on with the snapshot")  # an opening finds out what it has sent
        if run is None or not run.running:
            self._limits.release(self._name)
        elif not await self._moved_away(run):
            self._keep_planned(run)

    def _keep_planned(self, run: Snapshot) -> None:
        """Leave out what is no longer planned."""
        again = {chunk.number for chunk in self._again}
        self._again = [chunk for chunk in run.chunks if chunk.number in again and chunk.rows]

    async def _moved_away(self, run: Snapshot) -> bool:
        """Whether a run is of an epoch that is over, and end it then."""
        if not run.begun or run.epoch == self._ledger.reached.epoch:
            return False
        if run.running:
            with suppress(RunEnded):
                await self._record.end(
                    "cancelled", "the watcher was moved to another position, or its stream recreated"
                )
        if run.open:
            await self._record.move(Snapshot.given_up, though_ended=True)
        return True

    # Weaving

    async def weave(self, encoded: Encoded, *, caught_up: bool) -> None:
        """Put a batch of changes on the queue, and rows before, behind or between them. `caught_up`: MongoDB had no
        more changes than these. Raises what a source, a sink and a store raise, and Stale."""
        if self._asked:
            await self._look_again()
        while self._again and encoded.position >= (mark := self._again[0].mark):
            encoded = await self._up_to(mark, encoded)
            await self._send_again()
        run = self._record.now
        if run is None or not run.running or self._again:
            await self._queue.put(encoded)
            return
        begun_at = self._reader.begun_at
        if self._due is not None and encoded.position >= self._due and self._may(encoded, caught_up=caught_up):
            mark, self._due = self._due, None
            encoded = await self._up_to(mark, encoded)
            self._share.give_back(encoded.size)  # else rows might wait for room that only these changes could give back
            await self._window(mark, waiting=bool(encoded.changes))
            self._share.take(encoded.size)
        await self._queue.put(encoded)
        end = encoded.position
        self._let_pass = self._let_pass or begun_at >= self._window_ended
        if not is_mark(end):
            await self._until_due(mark_after(end), waited=self._due is not None and not encoded.changes)
            return
        self._due = None  # the changes have come past an earlier one
        if self._may(encoded, caught_up=caught_up):
            await self._window(end, waiting=False)
            if self._awaits_its_end:
                self._reader.hurry()
        elif encoded.changes:
            self._reader.hurry()

    @property
    def _awaits_its_end(self) -> bool:
        """Whether all is read, and the run ends at a mark that is yet to come."""
        run = self._record.now
        return run is not None and run.running and run.read and not run.end_planned

    async def _until_due(self, mark: str | None, *, waited: bool) -> None:
        """Have the changes come to a mark soon. `waited`: they were asked for, and none came.

        Then nothing is written, so no time passes for MongoDB, unless the run itself is stored once more."""
        run = self._record.now
        if run is None or not run.running:
            return  # it has ended in the last window, and takes no place among those that read
        self._due = mark
        if time.monotonic() < self._not_before or not (run.read or self._limits.take(self._name)):
            return
        if waited:
            with suppress(RunEnded, StoreUnavailable):
                await self._record.move(Snapshot.touched)
        self._reader.hurry()

    async def _up_to(self, mark: str, encoded: Encoded) -> Encoded:
        """Put the changes before a mark on the queue, and return the rest."""
        changes = encoded.changes
        before = bisect_left(changes, mark, key=lambda change: change.token)
        await self._queue.put(Encoded(changes[:before], mark, encoded.read_at, 0))
        return replace(encoded, changes=changes[before:])

    async def _send_again(self) -> None:
        """Send the first planned chunk again, or end it, and with it those after it."""
        chunk = self._again[0]
        with suppress(RunEnded):
            rows = await self._rows.again(chunk)
            self._again.pop(0)
            if rows is not None:
                await self._queue.put(rows)
            self._keep_planned(self._record.run)

    def _may(self, encoded: Encoded, *, caught_up: bool) -> bool:
        """Whether rows may be read now: not while the changes lag, and not at once after a read that failed. Changes
        that have waited for rows pass before the next ones are read."""
        now = time.monotonic()
        if now < self._not_before or self._reader.stopping:
            return False
        if self._ledger.behind:
            return False  # a wrong count would take the rows for published
        if mark_of(encoded.position) is None:
            return self._wait("this MongoDB writes resume tokens in a form that is not known, which have no marks")
        if encoded.changes or not caught_up:
            lag = self._run.state.operation_time - cluster_time(encoded.position).seconds
            few = len(encoded.changes) <= FEW and encoded.size <= FEW_BYTES and lag <= FEW_SECONDS
            if (most := self._limits.max_lag_seconds) < lag:
                return self._wait(f"the changes are {lag:.0f} seconds behind, and rows wait from {most:g} on")
            if not (self._let_pass and (caught_up or few)) and now - self._window_ended < BETWEEN_SECONDS:
                return False
        if not self._record.run.read and not self._limits.take(self._name):
            return self._wait(f"other snapshots are being read, and {self._limits.at_once} at once is the most")
        self._run.statistics.snapshot_waits = None
        return True

    def _wait(self, why: str) -> Literal[False]:
        self._run.statistics.snapshot_waits = why
        return False

    async def _window(self, mark: str, *, waiting: bool) -> None:
        """Put chunks on the queue that are read as of a mark; `waiting` says that changes wait behind it. Rows that
        cannot be read end the window, and perhaps the run, but not the capture. That does a plan of which it is not
        known whether it is stored: no change may go past its mark, or it looks as if its rows had been sent."""
        try:
            await self._rows.begin()
            await self._chunks(mark, waiting=waiting)
        except RunEnded:
            log.info("snapshot_ended_elsewhere", watcher=self._name, run=self._record.run.run)
        except MomentGone as error:
            self._pause()
            self._too_old += 1
            if self._too_old > 1:  # the first time is nothing to look into
                self._wait(str(error))
            if self._too_old >= TOO_OLD_TRIES:
                await self._fail(f"{error} (minSnapshotHistoryWindowInSeconds says how far back it can)")
        except SourceUnavailable as error:
            self._pause()
            if self._said != str(error):  # else it was said with an earlier window
                log.warning("snapshot_delayed", watcher=self._name, run=self._record.run.run, reason=str(error))
            self._said = str(error)
            self._wait(str(error))
        except PermanentError as error:
            await self._fail(str(error))
        finally:
            self._window_ended, self._let_pass = time.monotonic(), False
        run = self._record.now
        if run is None or not run.running or run.read:
            self._limits.release(self._name)

    def _pause(self) -> None:
        """Let the changes go on for a while before rows are read again. A read that waits for changes then ends."""
        self._not_before = time.monotonic() + AGAIN_SECONDS
        if self._retry is not None:
            self._retry.cancel()
        self._retry = asyncio.get_running_loop().call_later(AGAIN_SECONDS, self._reader.hurry)

    async def _fail(self, reason: str) -> None:
        """End the run, unless somebody was faster. Raises Stale, StoreUnavailable."""
        with suppress(RunEnded):
            await self._record.end("failed", reason)

    async def _chunks(self, mark: str, *, waiting: bool) -> None:
        """Put chunks on the queue, each read while the one before is published, until changes have waited for long, or
        there are no more."""
        began = looked = time.monotonic()
        ahead = self._next(mark)
        try:
            while (rows := await ahead) is not None:
                self._too_old, self._said = 0, ""
                before, looked = looked, time.monotonic()
                # Not longer by another chunk: it would take as long as this one did.
                held = (waiting or self._reader.look()) and 2 * looked - before - began > HOLD_SECONDS
                last = held or self._reader.stopping or self._asked
                if not last:
                    ahead = self._next(mark)
                await self._queue.put(rows)
                if last:
                    return
        finally:
            ahead.cancel()
            await asyncio.gather(ahead, return_exceptions=True)

    def _next(self, mark: str) -> "asyncio.Task[Encoded | None]":
        return asyncio.create_task(self._rows.next(mark), name=f"rows:{self._name}")

    # What is stored

    def published(self) -> None:
        """Something was published."""
        self._record.published()

    async def run(self) -> None:
        """Store in the background how far the run came, indefinitely. Raises Stale, StoreUnavailable."""
        await self._record.keep()

    async def store(self) -> None:
        """Store how far the run came. Raises as `run`."""
        with suppress(RunEnded):
            await self._record.store()
