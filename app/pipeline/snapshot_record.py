"""A snapshot's run as one capture knows it, and as it is stored.

Two tasks change it: the one that reads and plans, and the one that stores what was published. Each says how it moves
on, and the moves come one after another. A run that somebody else has moved on meanwhile ends the capture (Stale): the
next opening finds what there is.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from app.domain.errors import Stale, StateOutOfReach, StoreUnavailable
from app.domain.snapshot import Snapshot, State
from app.pipeline.checkpointer import Checkpointer
from app.pipeline.ledger import Ledger
from app.pipeline.run import Run

log = structlog.get_logger(__name__)

STORE_SECONDS = 0.5
"""How often what was published is stored, about."""


class RunEnded(Exception):
    """The run was ended meanwhile, by a person or another instance. What was about to be stored is not."""


Move = Callable[[Snapshot], Snapshot]


class SnapshotRecord:
    """One capture's. `load` comes first."""

    def __init__(self, run: Run, ledger: Ledger, checkpointer: Checkpointer) -> None:
        self._name = run.watcher.name
        self._store = run.ports.snapshots
        self._statistics = run.statistics
        self._clock = run.now
        self._ledger = ledger
        self._checkpointer = checkpointer
        self._now: Snapshot | None = None
        self._open = self._unstored = False
        """What these say of `_now`, which has thousands of chunks: every batch of changes asks."""
        self._stored: Snapshot | None = None
        self._moving = asyncio.Lock()
        self._published = asyncio.Event()

    @property
    def now(self) -> Snapshot | None:
        """The run, as far as it came; None where nothing is left to be done about any."""
        return self._now if self._open else None

    @property
    def known(self) -> Snapshot | None:
        """The run, also where it is over; None where there is none, or `load` was not needed."""
        return self._stored

    @property
    def run(self) -> Snapshot:
        """The run. There has to be one."""
        assert self._now is not None, "there is a run"
        return self._now

    async def load(self) -> bool:
        """Read what is stored, and return whether that is news. Raises StoreUnavailable."""
        async with self._moving:
            known, there = self._stored, await self._store.read(self._name)
            self._take(there)
            self._stored = there
            return there is not None and (known is None or (known.run, known.version) != (there.run, there.version))

    async def load_if_needed(self, position: str) -> None:
        """The same at an opening at a position, where most watchers have nothing to read: a run that is over is read
        only where the stream has lost rows of it."""
        try:
            there = (await self._store.all()).get(self._name)
        except StateOutOfReach:
            there = None  # watchers of a file run without the state database, and take no snapshots
        if there is not None and (there.open or there.run.last > position):
            await self.load()
        else:
            self._take(None if there is None else there.run)

    async def move(self, move: Move, *, though_ended: bool = False) -> Snapshot:
        """Move the run on, and return it once it is stored; `though_ended`: one that was ended meanwhile as well.

        Raises RunEnded, Stale, and StoreUnavailable, after which it is not known what is stored."""
        if though_ended:
            with suppress(RunEnded):
                return await self.move(move)
        async with self._moving:
            after, stored = move(self.run), self._stored
            assert stored is not None, "load comes first"
            if after.version > stored.version:
                if not await self._store.change(stored, after):
                    await self._find_out(stored)
                self._stored = after
            self._take(after)
            return after

    async def _find_out(self, known: Snapshot) -> None:
        """Say why the stored run is not the known one any more. Raises RunEnded, Stale, StoreUnavailable."""
        there = await self._store.read(self._name)
        if there is None or there.run != known.run or there.running:
            raise Stale("the snapshot was moved on, or begun again, by somebody else")
        self._stored = there
        self._take(there)
        raise RunEnded

    async def end(self, state: State, reason: str | None = None, *, position: str = "") -> None:
        """End the run; `position` is the one that is stored. Raises as `move`, RunEnded where it was over."""
        now, name = self._clock(), self.run.run

        def end(run: Snapshot) -> Snapshot:
            if run.run != name or run.state in ("cancelled", "failed"):
                raise RunEnded
            return run.acknowledged(position).ended(state, now, reason)

        ended = await self.move(end)
        if state == "done":
            log.info("snapshot_done", watcher=self._name, run=ended.run, documents=ended.documents)
        else:
            log.warning("snapshot_ended", watcher=self._name, run=ended.run, state=state, reason=reason)

    def published(self) -> None:
        """Something was published: what is stored may be moved on."""
        if self._unstored:
            self._published.set()

    async def keep(self) -> None:
        """Store in the background what was published, indefinitely. Raises Stale."""
        said = False
        while True:
            await self._published.wait()
            self._published.clear()
            while (run := self.now) is not None and self._unstored:
                await asyncio.sleep(STORE_SECONDS)
                try:
                    with suppress(RunEnded):
                        await self.store()
                    said = False
                except StoreUnavailable as error:
                    if not said:
                        log.info("snapshot_not_stored", watcher=self._name, run=run.run, reason=str(error))
                    said = True

    async def store(self) -> None:
        """Store what was published by now: chunks up to the stored checkpoint, and that the run is complete. Raises as
        `move`."""
        run, position = self.now, self._checkpointer.position
        if run is None or position is None:
            return
        position = self._certain(run, position)
        if run.running and run.end_planned and run.finish <= position:
            await self.end("done", position=position)
        else:
            await self.move(lambda run: run.acknowledged(position))  # stores nothing where nothing has changed

    def _certain(self, run: Snapshot, position: str) -> str:
        """Return the stored position; where another writer has published changes that come after rows, that of the
        last row that is on the stream."""
        until = self._ledger.rows_until
        overtaken = any(not chunk.settled and chunk.rows and until < run.end(chunk) <= position for chunk in run.chunks)
        return min(until, position) if overtaken else position

    def _take(self, snapshot: Snapshot | None) -> None:
        self._now = snapshot
        self._open = snapshot is not None and snapshot.open
        self._unstored = snapshot is not None and snapshot.unstored
        self._statistics.knows_snapshot(snapshot)
