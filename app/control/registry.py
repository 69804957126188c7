"""Which watchers there are, and what the user may do with them.

Every change asked for over HTTP goes through here: checked against the servers, stored, then carried out by the
supervisor. Not its business: HTTP (`api/`), following what is stored (`reconciler.py`), running watchers
(`supervisor.py`), moving positions (`positions.py`).
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Literal

import structlog

from app.control import audit
from app.control.dead_letters import DeadLetterService
from app.control.fallback_store import FallbackStore
from app.control.file_watchers import FileWatchers
from app.control.health import FleetHealth
from app.control.positions import Positions
from app.control.reconciler import Reconciler
from app.control.server_probe import ServerProbe
from app.control.stream_browser import StreamBrowser
from app.control.supervisor import WatcherTask
from app.domain.errors import (
    ChangewireError,
    Conflict,
    Invalid,
    NotFound,
    Outdated,
    Unavailable,
)
from app.domain.lifecycle import Desired, State
from app.domain.namespaces import Namespaces
from app.domain.overlap import refuse_overlap
from app.domain.status import Happening, Health, Lag, Status, TokenView, WatcherView
from app.domain.watcher import (
    Start,
    StoredWatcher,
    Watcher,
    javascript_problem,
    outside,
    problems,
    problems_when_added,
)
from app.pipeline.dependencies import Dependencies, servers_needed
from app.ports import ALIVE_SECONDS, Check, WatcherStore

log = structlog.get_logger(__name__)

FOLLOW_SECONDS = ALIVE_SECONDS + 5.0
"""One that has not followed by then cannot be counted among the living."""

Revisions = frozenset[int] | Literal["any"]
"""The revisions of which a change expects the watcher to have one; any: it has to be there."""


class Registry:
    """All watchers of this service. Every method that changes something either does all of it or raises.

    RegistryError subclasses tell why not: Invalid, NotFound, Conflict, Unavailable. One that takes `expected` raises
    Outdated where the watcher, as it is stored now, has another revision than one of these.
    """

    def __init__(
        self,
        dependencies: Dependencies,
        store: WatcherStore,
        *,
        state_database: str,
        allowed: Namespaces | None = None,
        javascript: bool = False,
        from_file: Sequence[Watcher] | None = None,
        drain_seconds: float = 10.0,
        reconcile_seconds: float = 5.0,
        min_headroom_seconds: float = 3600.0,
    ) -> None:
        self._dependencies = dependencies
        self._store = store = FallbackStore(store, possible=bool(from_file))
        self._state_database = state_database
        self._allowed = allowed
        self._javascript = javascript
        self._drain_seconds = drain_seconds
        self._min_headroom_seconds = min_headroom_seconds
        self._server_probe = ServerProbe(dependencies.mongo, dependencies.nats)
        self._positions = Positions(dependencies)
        self._from_file = FileWatchers(store, self._positions, from_file, allowed)
        self._roster = Reconciler(
            dependencies,
            store,
            self._server_probe,
            self._from_file,
            state_database=state_database,
            allowed=allowed,
            javascript=javascript,
            drain_seconds=drain_seconds,
            reconcile_seconds=reconcile_seconds,
        )
        self._supervisor = self._roster.supervisor
        self._fleet_health = FleetHealth(dependencies, self._supervisor, self._server_probe)
        self.letters = DeadLetterService(dependencies, self._task)
        self.streams = StreamBrowser(dependencies, self._task)
        self._tasks: list[asyncio.Task[None]] = []

    # Life

    def start(self) -> None:
        """Begin to load, to follow the store and to watch the servers; returns at once."""
        self._tasks = [
            asyncio.create_task(self._roster.run(), name="registry"),
            asyncio.create_task(self._server_probe.run(), name="server_probe"),
            asyncio.create_task(self._fleet_health.watch(self._min_headroom_seconds), name="watch"),
        ]
        for task in self._tasks:
            task.add_done_callback(_report_end)

    async def settled(self) -> None:
        """Wait until the stored watchers are known, and each of them runs or says why not."""
        await self._roster.tried_to_load.wait()
        for name in self._supervisor.names():
            await self._supervisor[name].settled.wait()

    async def close(self) -> bool:
        """Drain every watcher and stop; False where a drain did not finish in time."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        drained = await self._supervisor.stop_all(self._drain_seconds)
        if self._server_probe.mongo.up:
            await self._roster.leave()
        return drained

    # Reading

    async def watchers(self, state: State | None = None) -> list[WatcherView]:
        """Return all watchers, by name, or those in one state. Raises Unavailable while they are not loaded."""
        await self._roster.loaded()
        views = [self._view(name) for name in self._supervisor.names()]
        return [view for view in views if state is None or view.status.state is state]

    async def watcher(self, name: str) -> WatcherView:
        """Return one. Raises NotFound, and Unavailable while the watchers are not loaded."""
        await self._known(name)
        return self._view(name)

    async def token(self, name: str) -> TokenView:
        """Return the stored position. Raises NotFound, Unavailable."""
        await self._known(name)
        async with servers_needed():
            return await self._positions.view(self._supervisor[name].stored.watcher)

    async def history(self, name: str) -> list[Happening]:
        """Return what happened to a watcher in this process, oldest first. Raises NotFound, Unavailable."""
        return list((await self._task(name)).statistics.history)

    def ready(self) -> str | None:
        """Return why the service is not ready, or None where it is: both servers answer, the watchers are loaded."""
        for component in (self._server_probe.mongo, self._server_probe.nats):
            if not component.up:
                return component.reason
        return self._unknown()

    def _unknown(self) -> str | None:
        """Why not every watcher that should be there is known; None where all are."""
        waiting = [
            f"{name}, of the configuration file: {reason}"
            for name, reason in self._from_file.pending.items()
            if name not in self._supervisor  # else it runs, and is about to be stored where the registry is by now
        ]
        return self._roster.load_problem or "; ".join(waiting) or None

    async def lag(self, name: str) -> Lag:
        """Return how far a watcher is behind. Raises NotFound, Unavailable."""
        await self._known(name)
        async with servers_needed():
            return await self._fleet_health.lag(name)

    async def lags(self) -> dict[str, Lag]:
        """Return every watcher's lag, by name. Raises Unavailable."""
        await self._roster.loaded()
        async with servers_needed():
            return {name: await self._fleet_health.lag(name) for name in self._supervisor.names()}

    async def health(self) -> Health:
        """Return how the service does, from facts not older than a few seconds."""
        missing, notice = self._store.out_of_reach, None
        if missing is not None:
            notice = f"only the configuration file's watchers are run, and changes over HTTP are refused: {missing}"
        return self._fleet_health.health(self._unknown(), notice)

    def observe_positions(self) -> None:
        """Tell the observer every watcher's lag and headroom, as they are now; asked for by each scrape."""
        self._fleet_health.observe_positions()

    # Changing

    async def add(
        self, watcher: Watcher, *, paused: bool = False, explicit_start: bool = False, dry_run: bool = False
    ) -> WatcherView:
        """Add a watcher and start it unless paused. Raises Invalid, Conflict, Unavailable.

        `explicit_start`: the user wrote a start, so that one that continues a stream begins a new epoch.
        With `dry_run` everything is resolved and checked and nothing is changed."""
        async with self._change(watcher.name):
            if watcher.name in self._supervisor:
                raise Conflict(
                    f"there is a watcher {watcher.name} already; replace it with PUT /watchers/{watcher.name}"
                )
            return await self._add(watcher, paused=paused, explicit_start=explicit_start, dry_run=dry_run)

    async def put(
        self,
        watcher: Watcher,
        *,
        paused: bool = False,
        explicit_start: bool = False,
        dry_run: bool = False,
        expected: Revisions | None = None,
    ) -> tuple[WatcherView, bool]:
        """Replace the watcher of that name, or add it; the flag tells whether it was added. Errors as `add`."""
        async with self._change(watcher.name, expected):
            if watcher.name not in self._supervisor:
                return await self._add(watcher, paused=paused, explicit_start=explicit_start, dry_run=dry_run), True
            before = self._supervisor[watcher.name].stored
            _refuse_file(before)
            await self._check(watcher, before.watcher)
            if before.watcher.source.namespace != watcher.source.namespace:
                raise Conflict(
                    f"{watcher.name} reads {before.watcher.source.namespace}; a watcher stays with its collection: its "
                    "position means nothing in another one. Remove it and add one for the other collection"
                )
            after = replace(before, watcher=watcher, desired=Desired.PAUSED if paused else Desired.RUNNING)
            if before.begin is not None and before.watcher.start != watcher.start:  # it has not begun yet
                begin = await self._positions.locate(watcher, watcher.start)
                after = replace(after, begin=begin, new_start=explicit_start)
            if dry_run:
                audit.note(dry_run=True)
                return WatcherView(after, self._supervisor[watcher.name].status()), False
            await self._supervisor.stop(watcher.name, self._drain_seconds)
            try:
                await self._positions.copy(before, watcher)
                check = self._beside(watcher)
                after = await self._store.replace(after, expected_revision=before.revision, check=check)
            except BaseException:
                self._roster.launch(before)
                raise
            audit.changed(watcher.name, before, after)
            await self._carry_out(after)
            log.info("watcher_replaced", watcher=watcher.name, revision=after.revision)
            return self._view(watcher.name), False

    async def remove(self, name: str, *, delete_checkpoint: bool = False, expected: Revisions | None = None) -> None:
        """Stop a watcher and forget it; the stream stays. Raises NotFound, Conflict (from the file), Unavailable."""
        async with self._change(name, expected):
            await self._known(name)
            stored = self._supervisor[name].stored
            _refuse_file(stored)
            if delete_checkpoint:
                self._refuse_outside(stored, "be removed with its position; it can with checkpoint=keep")
            checkpoints = self._dependencies.mongo.checkpoints(stored.watcher)
            await self._supervisor.stop(name, self._drain_seconds)
            try:
                if delete_checkpoint:
                    await checkpoints.delete()
                    audit.note(checkpoint="deleted")
                revision = await self._store.delete(
                    name, expected_revision=None if expected is None else stored.revision
                )
            except BaseException:
                self._roster.launch(stored)
                raise
            audit.changed(name, stored, None)
            await self._supervisor.dismiss(name, self._drain_seconds)
            await self._roster.carried_out(revision)
            if delete_checkpoint:
                await self._others_follow()
                await checkpoints.delete()  # again: one of them may have stored its position before it followed
            log.info("watcher_removed", watcher=name, checkpoint="deleted" if delete_checkpoint else "kept")

    async def pause(self, name: str, *, expected: Revisions | None = None) -> WatcherView:
        """Let a watcher stand still. Pausing a paused one is fine. Raises NotFound, Unavailable."""
        return await self._desire(name, Desired.PAUSED, expected)

    async def resume(self, name: str, *, expected: Revisions | None = None) -> WatcherView:
        """Let a paused or failed watcher go on. Raises NotFound, Unavailable."""
        return await self._desire(name, Desired.RUNNING, expected)

    async def restart(self, name: str, *, expected: Revisions | None = None) -> WatcherView:
        """Stop and start a watcher's task. Raises NotFound, Conflict (paused), Unavailable."""
        async with self._change(name, expected):
            await self._known(name)
            stored = self._supervisor[name].stored
            if stored.desired is Desired.PAUSED:
                raise Conflict(f"{name} is paused; resume it with PUT /watchers/{name}/resume")
            await self._supervisor.stop(name, self._drain_seconds)
            self._roster.launch(stored)
            return self._view(name)

    async def set_token(self, name: str, start: Start, *, expected: Revisions | None = None) -> TokenView:
        """Move a paused or failed watcher and begin a new epoch. Raises NotFound, Conflict, Invalid, Unavailable."""
        async with self._change(name, expected):
            return await self._move(name, start)

    async def reset_token(self, name: str, *, expected: Revisions | None = None) -> TokenView:
        """Move a paused or failed watcher back to its own start, in a new epoch. Errors as `set_token`."""
        async with self._change(name, expected):
            await self._known(name)
            return await self._move(name, self._supervisor[name].stored.watcher.start)

    # Inside

    async def _add(self, watcher: Watcher, *, paused: bool, explicit_start: bool, dry_run: bool) -> WatcherView:
        await self._check(watcher)
        stored = StoredWatcher(
            watcher,
            desired=Desired.PAUSED if paused else Desired.RUNNING,
            new_start=explicit_start,
            begin=await self._positions.locate(watcher, watcher.start),
        )
        if dry_run:
            audit.note(dry_run=True)
            return WatcherView(stored, Status(State.PAUSED if paused else State.STARTING, self._dependencies.clock()))
        # Looked at once more while it is stored: another one may have come meanwhile, through any instance.
        stored = await self._store.insert(stored, self._beside(watcher))
        audit.changed(watcher.name, None, stored)
        await self._carry_out(stored)
        log.info("watcher_added", watcher=watcher.name, source=watcher.source.namespace, stream=watcher.sink.stream)
        return self._view(watcher.name)

    async def _check(self, watcher: Watcher, before: Watcher | None = None) -> None:
        """Refuse what cannot work, before anything is changed; `before` is the watcher as it is already.

        Raises Invalid, Conflict, Unavailable."""
        found = problems(
            watcher, state_database=self._state_database, allowed=self._allowed, javascript=self._javascript
        )
        if before is None or before.sink.stream != watcher.sink.stream:
            found += [each for each in problems_when_added(watcher) if each.field not in {one.field for one in found}]
        if found:
            raise Invalid(problems=tuple(found))
        self._beside(watcher)(await self._store.load())
        await self._dependencies.mongo.check_source(watcher)
        if before is None or watcher.checkpoint != before.checkpoint:
            await self._dependencies.mongo.checkpoints(watcher).check()
        await self._dependencies.nats.check_sink(watcher)

    async def _desire(self, name: str, desired: Desired, expected: Revisions | None) -> WatcherView:
        async with self._change(name, expected):
            await self._known(name)
            task = self._supervisor[name]
            stored = task.stored
            if stored.desired is not desired:
                wanted = replace(stored, desired=desired)
                before, stored = stored, await self._store.replace(wanted, expected_revision=stored.revision)
                task.stored = stored
                audit.changed(name, before, stored)
            elif desired is Desired.PAUSED or task.active:
                return self._view(name)
            await self._supervisor.stop(name, self._drain_seconds)
            await self._carry_out(stored)
            return self._view(name)

    async def _move(self, name: str, start: Start) -> TokenView:
        await self._known(name)
        task = self._supervisor[name]
        if task.state not in (State.PAUSED, State.FAILED):
            raise Conflict(f"{name} is {task.state}; pause it first with PUT /watchers/{name}/pause, then move it")
        self._refuse_outside(task.stored, "be moved")  # it was refused, and to find a position is to read
        javascript = None if self._javascript else javascript_problem(task.stored.watcher.source)
        if javascript is not None:
            raise Conflict(f"{name} cannot be moved: source.pipeline {javascript}")
        if task.state is State.PAUSED:
            await self._others_follow()
        view = await self._positions.move(task.stored.watcher, start)
        audit.note(token=view.token, epoch=view.epoch, start=start.at)
        task.forget_position()
        try:  # a new revision, so that every instance opens anew; the epoch binds them without it
            begun = replace(task.stored, new_start=False, begin=None)
            task.stored = await self._store.replace(begun, expected_revision=task.stored.revision)
            await self._roster.carried_out(task.stored.revision)
        except ChangewireError as error:
            log.warning("move_not_announced", watcher=name, error=str(error))
        log.info("watcher_moved", watcher=name, token=view.token, epoch=view.epoch)
        return view

    @asynccontextmanager
    async def _change(self, name: str, expected: Revisions | None = None) -> AsyncIterator[None]:
        """One change of a watcher at a time, on what the store holds now; a server's trouble is told as Unavailable."""
        await self._roster.loaded()  # outside the lock, which loading takes too
        async with self._roster.lock(name), servers_needed():
            if not self._server_probe.mongo.up:  # known, so that nobody waits for a time-out to hear it
                raise Unavailable(f"{self._server_probe.mongo.reason}; nothing was changed")
            if self._roster.load_problem is not None:
                raise Unavailable(self._roster.load_problem)
            if self._store.out_of_reach is not None:
                raise Unavailable(
                    f"nothing can be changed over HTTP without the state database, and {self._store.out_of_reach}"
                )
            if name in self._from_file.pending:
                raise Unavailable(f"{name}, of the configuration file: {self._from_file.pending[name]}")
            await self._roster.refresh(name)
            if expected is not None:
                self._refuse_outdated(name, expected)
            yield

    def _refuse_outside(self, stored: StoredWatcher, what: str) -> None:
        found = [f"{each.field} {each.problem}" for each in outside(stored.watcher, self._allowed)]
        if found:
            raise Conflict(f"{stored.name} cannot {what}: {'; '.join(found)}")

    def _refuse_outdated(self, name: str, expected: Revisions) -> None:
        task = self._supervisor.get(name)
        if task is None or (expected != "any" and task.stored.revision not in expected):
            now = f"there is no watcher {name}" if task is None else f"{name} is at revision {task.stored.revision}"
            raise Outdated(f"If-Match asks for another revision: {now}; nothing was changed")

    def _beside(self, watcher: Watcher) -> Check:
        """A look at everything stored, at the moment of a change. One that is refused itself stands in nobody's way."""

        def check(stored: Sequence[StoredWatcher]) -> None:
            tasks = {one.name: self._supervisor.get(one.name) for one in stored}
            refused = {name for name, task in tasks.items() if task is not None and task.refused}
            refuse_overlap(watcher, [one.watcher for one in stored if one.name not in refused])

        return check

    async def _carry_out(self, stored: StoredWatcher) -> None:
        """Let a watcher be as it is stored from now on."""
        self._roster.launch(stored)
        await self._roster.carried_out(stored.revision)

    async def _others_follow(self) -> bool:
        """Wait until the other instances have followed; False where there are none. Raises Unavailable."""
        try:
            async with asyncio.timeout(FOLLOW_SECONDS):
                return await self._roster.followed()
        except TimeoutError:
            raise Unavailable(
                f"another instance has not followed the last change within {FOLLOW_SECONDS:.0f} seconds; try again"
            ) from None

    async def _known(self, name: str) -> None:
        await self._roster.loaded()
        if name not in self._supervisor:
            raise NotFound(f"there is no watcher {name}")

    async def _task(self, name: str) -> WatcherTask:
        await self._known(name)
        return self._supervisor[name]

    def _view(self, name: str) -> WatcherView:
        task = self._supervisor[name]
        return WatcherView(task.stored, task.status())


def _refuse_file(stored: StoredWatcher) -> None:
    if stored.origin == "file":
        raise Conflict(
            f"{stored.name} comes from the configuration file, which wins over what is asked here; change it there "
            "and restart the service. Pausing, resuming and moving it work"
        )


def _report_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("service_task_ended", task=task.get_name(), exc_info=error)
