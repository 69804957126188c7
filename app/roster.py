"""The watchers of this process, kept as the store says.

What is stored is the truth: it is loaded at the start, other instances' changes are followed within five seconds, and
one that cannot run as it is stored is refused with the reason. Not its business: what may be stored (`registry.py`),
running a watcher (`supervisor.py`).
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import structlog

from app.domain import backoff
from app.domain.errors import ChangewireError, Conflict, Unavailable
from app.domain.lifecycle import Desired, State
from app.domain.overlap import refuse_overlap
from app.domain.watcher import StoredWatcher, Watcher, problems
from app.file_watchers import FileWatchers
from app.monitor import Monitor
from app.ports import WatcherStore
from app.supervisor import Supervisor
from app.world import World

log = structlog.get_logger(__name__)

FIRST_LOAD_SECONDS = 5.0
"""How long a call waits for a service that has just started to load its watchers."""


class Roster:
    """Which watchers this process has, and the task that follows the store.

    `locks` has one lock a watcher: whoever changes one holds it. `load_problem` says why what is stored is not
    known, or is None."""

    def __init__(
        self,
        world: World,
        store: WatcherStore,
        monitor: Monitor,
        from_file: FileWatchers,
        *,
        state_database: str,
        drain_seconds: float,
        reconcile_seconds: float,
    ) -> None:
        self._store = store
        self._monitor = monitor
        self._from_file = from_file
        self._state_database = state_database
        self._drain_seconds = drain_seconds
        self._reconcile_seconds = reconcile_seconds
        self.supervisor = Supervisor(world, self._still_wanted)
        self.locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self.load_problem: str | None = "the stored watchers are not loaded yet"
        self._loaded = False
        self._tried_to_load = asyncio.Event()

    async def run(self) -> None:
        """Follow the store, for ever."""
        attempt = 0
        while True:
            try:
                await self._from_file.settle()
                await self._reconcile(await self._store.load())
                self.load_problem, self._loaded, attempt = None, True, 0
            except Exception as error:
                attempt += 1
                known = isinstance(error, ChangewireError)
                if self.load_problem is not None:
                    why = str(error) if known else "an error of Changewire itself; the log has the details"
                    self.load_problem = f"the stored watchers cannot be loaded: {why}"
                if attempt == 1:
                    log.warning("registry_unreachable", error=str(error), exc_info=None if known else error)
            self._tried_to_load.set()
            wait = self._reconcile_seconds if attempt == 0 else backoff.delay(attempt, 1.0)
            await asyncio.sleep(min(wait, self._reconcile_seconds))

    async def _reconcile(self, stored: Sequence[StoredWatcher]) -> None:
        """Carry out what the store says: for what this process does not know, or knows in another revision."""
        supervisor = self.supervisor
        waiting = self._from_file.pending
        revisions = {one.name: one.revision for one in stored if one.name not in waiting}
        for name in revisions:
            if name not in supervisor:  # in order, so that of two that overlap the same one is refused every time
                await self._follow(name)
        changed = [name for name in supervisor.names() if revisions.get(name) != supervisor[name].stored.revision]
        await asyncio.gather(*(self._follow(name) for name in changed))
        for one in stored:
            running = supervisor.get(one.name)
            if one.begin is not None and running is not None and running.state is State.RUNNING:
                await self._began(one.name)

    async def _follow(self, name: str) -> None:
        async with self.locks[name]:
            await self.refresh(name)

    def launch(self, stored: StoredWatcher) -> None:
        """Run a watcher as it is stored, let it stand still, or refuse it with the reason."""
        task = self.supervisor.adopt(stored)
        faults = [f"{p.field} {p.problem}" for p in problems(stored.watcher, state_database=self._state_database)]
        try:
            refuse_overlap(stored.watcher, self.others(stored.name))
        except Conflict as conflict:
            faults.append(str(conflict))
        if faults:
            task.refuse("; ".join(faults))
        elif stored.desired is Desired.RUNNING:
            task.start()
        else:
            task.stand()

    def others(self, name: str) -> list[Watcher]:
        """The watchers that another one may not get in the way of."""
        tasks = [self.supervisor[other] for other in self.supervisor.names() if other != name]
        return [task.stored.watcher for task in tasks if not task.refused]

    async def _began(self, name: str) -> None:
        """Take back what only the first opening needs: the position it led to is stored by now."""
        async with self.locks[name]:
            task = self.supervisor.get(name)
            if task is not None and task.stored.begin is not None and task.state is State.RUNNING:
                done = replace(task.stored, new_start=False, begin=None)
                await self._store.replace(done, expected_revision=done.revision)
                task.stored = done

    async def _still_wanted(self, stored: StoredWatcher) -> bool:
        """Whether the store still says what a standby was started with."""
        now = await self._store.get(stored.name)
        return now is not None and now.revision == stored.revision and now.desired is Desired.RUNNING

    async def loaded(self) -> None:
        """Give a service that has just started the moment it needs. Raises Unavailable where there is more amiss."""
        if self._loaded and self._monitor.looked.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOAD_SECONDS):
                await self._monitor.looked.wait()
                if self._monitor.mongo.up:
                    await self._tried_to_load.wait()
        if not self._loaded:
            raise Unavailable(f"{self._monitor.mongo.reason or self.load_problem}; the watchers are not known yet")

    async def refresh(self, name: str) -> None:
        """Take over what another instance has changed about a watcher since the last look at the store."""
        now = await self._store.get(name)
        task = self.supervisor.get(name)
        known = None if task is None else task.stored
        if now is None and known is not None:
            await self.supervisor.dismiss(name, self._drain_seconds)
        elif now is not None and (known is None or known.revision != now.revision):
            if known is not None:
                await self.supervisor.stop(name, self._drain_seconds)
            self.launch(now)
