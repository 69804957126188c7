"""The one that starts and stops watchers: it compares what is stored with what runs, and carries out the difference.

What is stored is the truth. A round loads it at the start and every few seconds, so that other instances' changes are
followed and a watcher that cannot run as it is stored is refused with the reason. The registry, which changes what is
stored, says of each change "carry this out now" and does not wait for the round. Everything that is done to one watcher
is done under that watcher's lock, except at shutdown.

A round compares states, and does not rely on messages: whether the stored revision runs, and whether a run has ended
because the store said something else for a moment. So a message that is missed costs one round and no more.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import structlog

from app.control.admission import Rules
from app.control.fallback_store import FallbackStore
from app.control.file_watchers import FileWatchers
from app.control.fleet import Fleet
from app.control.handover import Handover
from app.control.instance import Instance
from app.control.runner import Runner
from app.control.server_probe import ServerProbe
from app.control.share import Share
from app.control.stored_watchers import StoredWatchers
from app.domain import backoff
from app.domain.errors import ChangewireError, Elsewhere, StoreUnavailable, Unavailable
from app.domain.lifecycle import State
from app.domain.watcher import StoredWatcher

log = structlog.get_logger(__name__)

AT_ONCE = 50
"""Watchers that are looked at before others have their turn."""
FIRST_LOAD_SECONDS = 5.0
"""How long a call waits for a service that has just started to load its watchers."""


class Reconciler:
    """Keeps the fleet as the store says."""

    def __init__(
        self,
        store: FallbackStore,
        instance: Instance,
        fleet: Fleet,
        server_probe: ServerProbe,
        from_file: FileWatchers,
        rules: Rules,
        share: Share,
        *,
        reconcile_seconds: float,
    ) -> None:
        self._share = share
        self._runner = Runner(fleet, share, rules)
        self._handover = Handover(store, fleet, share, self._runner)
        self._sooner = asyncio.Event()
        """Set where a round should begin now."""
        self._store = store
        self._instance = instance
        self._fleet = fleet
        self._server_probe = server_probe
        self._from_file = from_file
        self._reconcile_seconds = reconcile_seconds
        self._load_problem: str | None = "the stored watchers are not loaded yet"
        """Why what is stored is not known; None where it is."""
        self._said = False  # that what is stored cannot be followed now
        self._turned: set[str] = set()
        """The watchers whose turn has ended since this round began to read the store."""
        self._loaded = False
        self._stored = StoredWatchers(store, instance, fleet, share, refilled_seconds=reconcile_seconds)
        self._tried_to_load = asyncio.Event()
        """Set once the store was read, or could not be."""

    # Rounds

    async def run(self) -> None:
        """Follow the store until cancelled."""
        attempt = 0
        while True:
            try:
                await self._server_probe.mongo_seen.wait()
                await self._round()
                attempt, self._said = 0, False
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told and tried again
                attempt += 1
                self._note_trouble(error, attempt)
            self._tried_to_load.set()
            wait = self._reconcile_seconds if attempt == 0 else backoff.delay(attempt, 1.0)
            self._sooner.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(wait, self._reconcile_seconds)):
                    await self._sooner.wait()

    async def _round(self) -> None:
        if not self._server_probe.mongo.up:  # also a standalone server, to which nothing may be written
            raise StoreUnavailable(self._server_probe.mongo.reason or "")
        # Said before loading, so that nobody changes something meanwhile without waiting for this instance.
        if (not self._loaded or self._store.out_of_reach) and await self._instance.arrive():
            self._from_file.start_over()
            self._stored.start_over()
        self._share.within_reach(self._store.out_of_reach is None)
        await self._share.check_format()  # before anything is stored
        await self._share.join()
        if self._share.outdated is None:
            await self._from_file.settle()
        known = frozenset(self._share.owners)
        self._turned.clear()
        revision, stored = await self._stored.read_or_restore()
        await self._share.place(_groups(stored), known)
        complete = await self._reconcile(stored)
        self._stored.followed(revision, found=bool(stored))
        await self._instance.followed(revision if complete else self._instance.applied)
        self._load_problem, self._loaded = None, True

    def _note_trouble(self, error: Exception, attempt: int) -> None:
        known = isinstance(error, ChangewireError)
        if self._load_problem is not None:
            why = str(error) if known else "an error of Changewire itself; the log has the details"
            self._load_problem = f"the stored watchers cannot be loaded: {why}"
        if not known and attempt == 1:
            log.error("registry_error", exc_info=error)
        elif known and not self._said and not self._server_probe.explains(error, attempt):
            self._said = True
            log.warning("registry_unreachable", reason=str(error))

    async def _reconcile(self, stored: Sequence[StoredWatcher]) -> bool:
        """Carry out what differs between what is stored and what runs.

        False where a change of this process is still being carried out. That may take as long as a drain, so the round
        does not wait for it: the other watchers have to be followed, and this instance has to say that it is alive."""
        waiting = self._from_file.pending
        found = {one.name: one for one in stored if one.name not in waiting}
        self._fleet.expect(one for name, one in found.items() if name not in self._fleet and self._share.has(name))
        for number, name in enumerate(found):
            if name not in self._fleet:  # in order, so that of two that overlap the same one is refused every time
                await self._follow(name, found[name])
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
        different = [name for name in self._fleet if self._runner.differs(name, found.get(name))]
        free = [name for name in different if not self._runner.lock(name).locked()]
        await asyncio.gather(*(self._follow(name, found.get(name)) for name in free))
        await self._judge_all()
        begun = [one.name for one in stored if one.begin is not None and self._runs(one.name)]
        await asyncio.gather(*(self._take_back_start(name) for name in begun))
        return len(free) == len(different)

    async def _follow(self, name: str, stored: StoredWatcher | None) -> None:
        """Let one watcher run as this round has read it; None where it has not found it.

        One that had a turn meanwhile may have been read before that, so it is read again."""
        async with self._runner.lock(name):
            if name in self._turned or name in self._from_file.pending:
                await self._refresh(name)
            elif stored is not None:
                await self._runner.run_as_stored(stored)
            elif name in self._fleet:
                await self._fleet.dismiss(name)

    async def _judge_all(self) -> None:
        """Look again at those that a change of another one may concern, until nothing changes by that any more."""
        while touched := self._fleet.touched():
            for number, one in enumerate(touched):
                await self._judge_again(one.name)
                if number % AT_ONCE == AT_ONCE - 1:
                    await asyncio.sleep(0)

    async def _judge_again(self, name: str) -> None:
        """Refuse a watcher that another one has come to stand in the way of, and let one go whose way is free now."""
        if not self._misjudged(name):
            return
        async with self._runner.lock(name):
            if self._misjudged(name):
                await self._runner.run_as(self._fleet[name].stored)

    def _misjudged(self, name: str) -> bool:
        task = self._fleet.get(name)
        return task is not None and task.refused != (self._runner.fault(task.stored) is not None)

    async def _take_back_start(self, name: str) -> None:
        """Where the watcher could not do this itself: the position that its first opening led to is stored by now."""
        async with self._runner.lock(name):
            if self._runs(name):
                await self._fleet[name].forget_start()

    def _runs(self, name: str) -> bool:
        task = self._fleet.get(name)
        return task is not None and task.state is State.RUNNING

    # One watcher. The caller holds its lock.

    async def _refresh(self, name: str) -> None:
        """Let one watcher run as the store says now."""
        now = await self._store.get(name)
        if now is not None:
            await self._runner.run_as_stored(now)
        elif name in self._fleet:
            if self._stored.lost(await self._store.load(), await self._store.revision()):
                raise Unavailable("the registry's collections were dropped; it is being restored, try again")
            await self._fleet.dismiss(name)

    # What the share asks for

    def follow(self, registry: int) -> None:
        """The share has looked: carry out who owns what; and what others have changed in a round at once, where the
        registry has another revision than this instance has followed. Returns at once."""
        if self._runner.ending or not self._loaded:
            return
        if registry > self._stored.counted or self._share.lacks_owner(self._fleet):
            self._sooner.set()
        self._handover.carry_out()

    # What the registry asks for

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Within, nobody else changes this watcher, and it runs as it is stored.

        Raises Unavailable where nothing can be changed now, and what the store raises."""
        await self.loaded()  # outside the lock, which loading takes too
        async with self._runner.lock(name):
            self._refuse_changes(name)
            try:
                await self._refresh(name)
                self._refuse_elsewhere(name)
                yield
            finally:
                self._turned.add(name)

    @asynccontextmanager
    async def turns(self, names: Iterable[str]) -> AsyncIterator[None]:
        """As `turn` of each, for watchers that are to be added: those that are not known here are not looked for in the
        store, which refuses to add one that it has."""
        await self.loaded()
        names = sorted(set(names))  # in order, so that no two changes wait for each other
        async with AsyncExitStack() as locks:
            for name in names:
                await locks.enter_async_context(self._runner.lock(name))
                self._refuse_changes(name)
            try:
                for name in names:
                    if name in self._fleet:
                        await self._refresh(name)
                yield
            finally:
                self._turned.update(names)

    def _refuse_changes(self, name: str) -> None:
        if self._runner.ending and self._share.others():
            raise Elsewhere("the instance is stopping, and another one takes over; nothing was changed")
        if self._runner.ending:
            raise Unavailable("the service is stopping; nothing was changed")
        if not self._server_probe.mongo.up:  # known, so that nobody waits for a time-out to hear it
            raise Unavailable(f"{self._server_probe.mongo.reason}; nothing was changed")
        if self._load_problem is not None:
            raise Unavailable(self._load_problem)
        if self._share.outdated is not None:
            raise Unavailable(f"{self._share.outdated}, or ask another instance")
        if self._store.out_of_reach is not None:
            raise Unavailable(
                f"nothing can be changed over HTTP without the state database, and {self._store.out_of_reach}"
            )
        if name in self._from_file.pending:
            raise Unavailable(f"{name}, of the configuration file: {self._from_file.pending[name]}")

    async def look_at(self, name: str) -> None:
        """Follow what is stored of one watcher now, unless it is being changed here: another instance may have just
        added or removed it."""
        lock = self._runner.lock(name)
        if self._server_probe.mongo.up and not self._runner.ending and not lock.locked():
            async with lock:
                await self._refresh(name)

    def _refuse_elsewhere(self, name: str) -> None:
        if name in self._fleet and self._fleet[name].elsewhere:
            by = self._share.owner(name)
            who = "no instance yet" if by is None else f"the instance {by}"
            raise Elsewhere(f"{name} is run by {who}; nothing was changed")

    @asynccontextmanager
    async def stopped(self, name: str) -> AsyncIterator[None]:
        """Within a turn: stop the watcher. Where what is done within fails, it runs again as it was; else say next what
        is stored now, by `carry_out` or `carry_out_removal`."""
        await self._fleet.stop(name)
        try:
            yield
        except BaseException:
            self._runner.launch(self._fleet[name].stored)
            raise

    async def carry_out(self, *changed: StoredWatcher) -> None:
        """Within a turn: let the watchers of one change run as they are stored now, from a new start."""
        self._stored.added()
        self._share.claim(_groups(one for one in changed if one.name not in self._fleet))
        if len(changed) > 1:
            self._fleet.expect(changed)
        for number, stored in enumerate(changed, 1):
            await self._runner.run_as(stored)
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        self._instance.carried_out(changed[-1].revision)

    async def carry_out_removal(self, name: str, revision: int) -> None:
        """Within a turn: forget a watcher that was removed from the store by the change `revision`."""
        await self._fleet.dismiss(name)
        self._share.forget(name)
        self._instance.carried_out(revision)

    def forget_position(self, name: str) -> None:
        """Within a turn: the position of a watcher that does not run was moved on purpose."""
        self._fleet[name].forget_position()

    async def keep(self, stored: StoredWatcher) -> None:
        """Within a turn: a watcher that does not run has a new revision, and stays as it is."""
        self._fleet[stored.name].stored = stored
        self._instance.carried_out(stored.revision)

    async def others_followed(self) -> None:
        """Wait until every other live instance has carried out what is stored by now. Raises StoreUnavailable."""
        await self._instance.others_followed()

    # What there is to say

    async def loaded(self) -> None:
        """Give a service that has just started the moment it needs.

        Raises Unavailable where the watchers are not known even then."""
        if self._loaded and self._server_probe.mongo_seen.is_set():
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LOAD_SECONDS):
                await self._server_probe.mongo_seen.wait()
                if self._server_probe.mongo.up:
                    await self._tried_to_load.wait()
        if not self._loaded:
            why = self._server_probe.mongo.reason or self._load_problem
            raise Unavailable(f"{why}; the watchers are not known yet")

    def unknown(self) -> str | None:
        """Why not every watcher that should be there is known; None where all are."""
        waiting = [
            f"{name}, of the configuration file: {reason}"
            for name, reason in self._from_file.pending.items()
            if name not in self._fleet  # else it runs, and is about to be stored where the registry is by now
        ]
        return self._load_problem or "; ".join(waiting) or None

    async def settled(self) -> None:
        """Wait until the stored watchers are known, and each of them runs or says why not."""
        await self._tried_to_load.wait()
        for task in list(self._fleet.values()):
            await task.settled.wait()

    # The end of the service

    async def drain(self) -> bool:
        """Stop every watcher, and start none from now on; False where a drain did not finish in time."""
        self._runner.ending = True
        drained = await self._fleet.stop_all(self._share.let_go)
        await self._handover.end()
        return drained

    async def leave(self) -> None:
        """Say that this instance is gone. The task that runs the rounds has ended: a round would say the opposite."""
        if self._server_probe.mongo.up:
            await self._instance.leave()


def _groups(stored: Iterable[StoredWatcher]) -> dict[str, str]:
    """Return of each watcher what it could share a change stream with."""
    return {one.name: one.watcher.source.database for one in stored}
