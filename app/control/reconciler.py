"""The watchers of this process, kept as the store says.

What is stored is the truth: it is loaded at the start, other instances' changes are followed within five seconds, and
one that cannot run as it is stored is refused with the reason. Watchers that are all gone without a change that says so
were dropped with their collection by somebody's hand: they go on, and are stored again. Each instance says how far it
has followed, so that a changed watcher is begun only when its former self has ended everywhere. Not its business: what
may be stored (`registry.py`), running a watcher (`supervisor.py`).
"""

import asyncio
import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakValueDictionary

import structlog

from app.control.fallback_store import FallbackStore
from app.control.file_watchers import FileWatchers
from app.control.server_probe import ServerProbe
from app.control.supervisor import Supervisor
from app.domain import backoff
from app.domain.errors import ChangewireError, Conflict, StoreUnavailable, Unavailable
from app.domain.lifecycle import Desired, State
from app.domain.namespaces import Namespaces
from app.domain.overlap import refuse_overlap
from app.domain.watcher import StoredWatcher, problems
from app.pipeline.dependencies import Dependencies

log = structlog.get_logger(__name__)

FIRST_LOAD_SECONDS = 5.0
"""How long a call waits for a service that has just started to load its watchers."""


LOOK_SECONDS = 0.2
"""How often it is looked whether the other instances have followed."""


class Reconciler:
    """Which watchers this process has, and the task that follows the store."""

    def __init__(
        self,
        dependencies: Dependencies,
        store: FallbackStore,
        server_probe: ServerProbe,
        from_file: FileWatchers,
        *,
        state_database: str,
        allowed: Namespaces | None,
        javascript: bool,
        drain_seconds: float,
        reconcile_seconds: float,
    ) -> None:
        self._store = store
        self._server_probe = server_probe
        self._from_file = from_file
        self._state_database = state_database
        self._allowed = allowed
        self._javascript = javascript
        self._drain_seconds = drain_seconds
        self._reconcile_seconds = reconcile_seconds
        self.supervisor = Supervisor(dependencies, self)
        self.load_problem: str | None = "the stored watchers are not loaded yet"
        """Why what is stored is not known; None where it is."""
        self._instance = secrets.token_hex(6)
        self._applied = 0
        self._judged: tuple[tuple[str, int], ...] = ()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._loaded = False
        self.tried_to_load = asyncio.Event()
        """Set once the store was read, or could not be."""

    def lock(self, name: str) -> asyncio.Lock:
        """The lock of one watcher: whoever changes it holds it."""
        return self._locks.setdefault(name, asyncio.Lock())

    async def run(self) -> None:
        """Follow the store, for ever."""
        attempt = 0
        while True:
            try:
                await self._server_probe.mongo_seen.wait()
                if not self._server_probe.mongo.up:  # also a standalone server, in which nothing is to be written
                    raise StoreUnavailable(self._server_probe.mongo.reason or "")
                # Said before loading, so that nobody changes something meanwhile without waiting for this instance.
                if (not self._loaded or self._store.out_of_reach) and await self._store.arrive(self._instance):
                    self._from_file.start_over()
                    self._applied = -1  # nothing of what this store counts
                await self._from_file.settle()
                revision = await self._store.revision()
                stored = await self._store.load()
                if self._lost(stored, revision):
                    stored = await self._restore()
                    revision = await self._store.revision()
                await self._reconcile(stored)
                self._applied = revision
                await self._store.attend(self._instance, revision)
                self.load_problem, self._loaded, attempt = None, True, 0
            except Exception as error:
                attempt += 1
                known = isinstance(error, ChangewireError)
                if self.load_problem is not None:
                    why = str(error) if known else "an error of Changewire itself; the log has the details"
                    self.load_problem = f"the stored watchers cannot be loaded: {why}"
                if attempt == 1:
                    log.warning("registry_unreachable", error=str(error), exc_info=None if known else error)
            self.tried_to_load.set()
            wait = self._reconcile_seconds if attempt == 0 else backoff.delay(attempt, 1.0)
            await asyncio.sleep(min(wait, self._reconcile_seconds))

    def _lost(self, stored: Sequence[StoredWatcher], revision: int) -> bool:
        """Whether the store has lost all watchers: every removal counts itself, and none was counted."""
        return self._loaded and not stored and revision <= self._applied and bool(self.supervisor.names())

    async def _restore(self) -> list[StoredWatcher]:
        """Store the watchers of this process again, unless another instance was faster; what is stored then."""
        known = [self.supervisor[name].stored for name in self.supervisor.names()]
        if await self._store.restore(known, self._applied):
            log.error("registry_restored", watchers=[one.name for one in known], hint="its collections were dropped")
        stored = await self._store.load()
        for one in stored:  # one that had asked meanwhile whether it is still wanted has ended
            task = self.supervisor.get(one.name)
            if task is not None and not task.active and task.state not in (State.PAUSED, State.FAILED):
                self.launch(task.stored)
        return stored

    async def leave(self) -> None:
        """Take this instance off the list of the living, so that nobody waits for it."""
        try:
            await self._store.leave(self._instance)
        except ChangewireError as error:
            log.info("instance_not_taken_back", error=str(error))

    async def carried_out(self, revision: int) -> None:
        """Note a change that this process made and has carried out itself."""
        if revision == self._applied + 1:
            self._applied = revision
            with contextlib.suppress(ChangewireError):  # the next round says it
                await self._store.attend(self._instance, revision)

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
        known = tuple((name, supervisor[name].stored.revision) for name in supervisor.names())
        if known != self._judged:
            for one in stored:
                await self._judge_again(one.name)
                await asyncio.sleep(0)  # each is compared with all others
            self._judged = known
        for one in stored:
            running = supervisor.get(one.name)
            if one.begin is not None and running is not None and running.state is State.RUNNING:
                await self._began(one.name)

    async def _follow(self, name: str) -> None:
        async with self.lock(name):
            await self.refresh(name)

    def launch(self, stored: StoredWatcher) -> None:
        """Run a watcher as it is stored, let it stand still, or refuse it with the reason."""
        task = self.supervisor.adopt(stored)
        fault = self._fault(stored)
        if fault is not None:
            task.refuse(fault)
        elif stored.desired is Desired.RUNNING:
            task.start()
        else:
            task.stand()

    def _fault(self, stored: StoredWatcher) -> str | None:
        """Why a watcher cannot be run at all. Of two that get in each other's way it is the one that was added later:
        all instances have to come to the same answer."""
        found = problems(
            stored.watcher, state_database=self._state_database, allowed=self._allowed, javascript=self._javascript
        )
        faults = [f"{one.field} {one.problem}" for one in found]
        tasks = (self.supervisor[name] for name in self.supervisor.names() if name != stored.name)
        before = [task.stored for task in tasks if not task.refused]
        try:
            others = [one.watcher for one in before if _order(one) < _order(stored)]
            refuse_overlap(stored.watcher, others, in_file=stored.origin == "file")
        except Conflict as conflict:
            faults.append(str(conflict))
        return "; ".join(faults) or None

    async def _judge_again(self, name: str) -> None:
        """Refuse a watcher that another one has come to stand in the way of, and let one go whose way is free now."""
        task = self.supervisor.get(name)
        if task is None or task.refused == (self._fault(task.stored) is not None):
            return
        async with self.lock(name):
            task = self.supervisor.get(name)
            if task is not None and task.refused != (self._fault(task.stored) is not None):
                await self.supervisor.stop(name, self._drain_seconds)
                self.launch(task.stored)

    async def _began(self, name: str) -> None:
        """Take back what only the first opening needs: the position it led to is stored by now."""
        async with self.lock(name):
            task = self.supervisor.get(name)
            if task is not None and task.stored.begin is not None and task.state is State.RUNNING:
                await self._store.began(name, task.stored.revision)
                task.stored = replace(task.stored, new_start=False, begin=None)

    async def began(self, stored: StoredWatcher) -> None:
        await self._store.began(stored.name, stored.revision)

    async def still_wanted(self, stored: StoredWatcher) -> bool:
        now = await self._store.get(stored.name)
        return now is not None and now.revision == stored.revision and now.desired is Desired.RUNNING

    async def followed(self) -> bool:
        revision, waited = await self._store.revision(), False
        while await self._store.behind(self._instance, revision):
            waited = True
            await asyncio.sleep(LOOK_SECONDS)
        return waited

    async def loaded(self) -> None:
        """Give a service that has just started the moment it needs. Raises Unavailable where there is more amiss."""
        if self._loaded and self._server_probe.mongo_seen.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOAD_SECONDS):
                await self._server_probe.mongo_seen.wait()
                if self._server_probe.mongo.up:
                    await self.tried_to_load.wait()
        if not self._loaded:
            raise Unavailable(f"{self._server_probe.mongo.reason or self.load_problem}; the watchers are not known yet")

    async def refresh(self, name: str) -> None:
        """Take over what another instance has changed about a watcher since the last look at the store."""
        now = await self._store.get(name)
        task = self.supervisor.get(name)
        known = None if task is None else task.stored
        if now is None and known is not None:
            if self._lost(await self._store.load(), await self._store.revision()):
                raise Unavailable("the registry's collections were dropped; it is being restored, try again")
            await self.supervisor.dismiss(name, self._drain_seconds)
        elif now is not None and (known is None or known.revision != now.revision):
            if known is not None:
                await self.supervisor.stop(name, self._drain_seconds)
            self.launch(now)


def _order(stored: StoredWatcher) -> tuple[int, str]:
    return stored.added, stored.name
