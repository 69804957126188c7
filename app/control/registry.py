"""Which watchers there are, and what the user may do with them: the face of this package to HTTP.

Every change asked for over HTTP goes through here. It is checked against rules and servers, stored, and carried out by
the reconciler, which alone starts and stops watchers. Once it has begun, a change goes on to its end whatever becomes
of the request that asked for it: half of one would be a watcher that is stopped and not stored, or the reverse.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import structlog

from app.control.admission import Admission, Rules
from app.control.changes import Changes
from app.control.dead_letters import DeadLetterService
from app.control.fallback_store import FallbackStore
from app.control.file_watchers import FileWatchers
from app.control.fleet import Fleet, Watched
from app.control.health import FleetHealth
from app.control.instance import Instance
from app.control.membership import Membership
from app.control.positions import Positions
from app.control.reconciler import Reconciler
from app.control.server_probe import ServerProbe
from app.control.share import Share
from app.control.snapshots import SnapshotService
from app.control.stream_browser import StreamBrowser
from app.control.suggestions import SuggestionService
from app.control.weights import Weights
from app.domain.errors import ChangewireError, NotFound, Outdated, Unavailable
from app.domain.instances import InstanceView
from app.domain.lifecycle import Desired, State
from app.domain.status import Happening, Health, Lag, TokenView, WatcherView
from app.domain.watcher import Start, StoredWatcher, Watcher
from app.pipeline.dependencies import Dependencies, servers_needed
from app.ports import WatcherStore

log = structlog.get_logger(__name__)

LAST_PLAN_SECONDS = 2.0
"""How long a stop may take to tell the other instances, before the watchers drain and after that."""

T = TypeVar("T")

Revisions = frozenset[int] | Literal["any"]
"""The revisions of which a change expects the watcher to have one; any: it has to be there."""


@dataclass(frozen=True, slots=True)
class Addition:
    """A watcher to add, as `Registry.add` takes it."""

    watcher: Watcher
    paused: bool = False
    explicit_start: bool = False


@dataclass(frozen=True, slots=True)
class Times:
    """How long things may take, in seconds."""

    drain: float = 10.0
    """For a watcher that stops to publish what it has read."""
    reconcile: float = 5.0
    """Between two looks at the store."""
    min_headroom: float = 3600.0
    """Of oplog before a watcher's position, below which there is a warning."""


class Registry:
    """All watchers of this service. Every method that changes something either does all of it or raises.

    RegistryError subclasses tell why not: Invalid, NotFound, Conflict, Unavailable. One that takes `expected` raises
    Outdated where the watcher, as it is stored now, has another revision than one of these.
    """

    def __init__(
        self,
        dependencies: Dependencies,
        store: WatcherStore,
        rules: Rules,
        *,
        from_file: Sequence[Watcher] | None = None,
        times: Times = Times(),
        server_probe: ServerProbe | None = None,
        share: Share | None = None,
    ) -> None:
        """`from_file`: the watchers of mongodb-nats-connector's file; None where there is no file. `share`: None where
        every watcher is this instance's."""
        self._dependencies = dependencies
        self._store = store = FallbackStore(store, possible=bool(from_file))
        self._times, self.rules = times, rules
        self._server_probe = server_probe or ServerProbe.of(dependencies)
        self._positions = Positions(dependencies)
        self.share = share or Share.of_everything()
        self.share.server_up = lambda: self._server_probe.mongo.up
        self.share.unfit = lambda: None if self._server_probe.nats.up else self._server_probe.nats.reason
        instance = Instance(store, self.share.session)
        self.share.ended = store.leave  # so that this one does not wait for it
        fleet = Fleet(dependencies, store, instance, drain_seconds=times.drain)
        fleet.run_by = None if share is None else share.name
        self._watchers: Mapping[str, Watched] = fleet
        self._reconciler = Reconciler(
            store,
            instance,
            fleet,
            self._server_probe,
            FileWatchers(store, self._positions, from_file, rules.allowed),
            rules,
            self.share,
            reconcile_seconds=times.reconcile,
        )
        self.snapshots = SnapshotService(dependencies, rules, store, self, self._server_probe)
        self._changes = Changes(
            dependencies, store, fleet, self._reconciler, Admission(rules, dependencies, store, fleet), self._positions,
            self.snapshots,
        )  # fmt: skip
        self._own = fleet.own
        self._membership = Membership(self.share, fleet.own, dependencies.clock)
        self.share.rate = self._membership.rate
        self._fleet_health = FleetHealth(dependencies, fleet.own, self._server_probe)
        self.letters = DeadLetterService(dependencies, self.watched)
        self.streams = StreamBrowser(dependencies, self.watched)
        self.suggestions = SuggestionService(dependencies, rules, self._server_probe)
        self._tasks: list[asyncio.Task[None]] = []
        self._looking: asyncio.Task[None] | None = None
        self._in_flight: set[asyncio.Task[Any]] = set()

    # Life

    def start(self) -> None:
        """Begin to load, to follow the store and to watch the servers; returns at once."""
        self._looking = asyncio.create_task(self.share.run(self._looked), name="share")
        self._tasks = [
            asyncio.create_task(self._reconciler.run(), name="reconciler"),
            asyncio.create_task(self._server_probe.run(), name="server_probe"),
            self._looking,
            asyncio.create_task(self.snapshots.watch(self._own), name="snapshots"),
            asyncio.create_task(Weights(self.share, self._own).run(), name="weights"),
            asyncio.create_task(self._fleet_health.watch(self._times.min_headroom), name="watch"),
        ]
        for task in self._tasks:
            task.add_done_callback(_report_end)

    def _looked(self, revision: int) -> None:
        """The share has looked at the other instances; the registry has this revision."""
        self._reconciler.follow(revision)
        self._membership.look(self._watchers)

    async def settled(self) -> None:
        """Wait until the stored watchers are known, and each of them runs or says why not."""
        await self._reconciler.settled()

    async def close(self) -> bool:
        """Drain every watcher and stop; False where a drain did not finish in time."""
        await _told(self.share.stop())
        tasks = [*self._tasks, *self._in_flight]
        for task in tasks:
            if task is not self._looking:  # while the watchers drain, it says that this instance is there
                task.cancel()
        drained = await self._reconciler.drain()  # meanwhile: a server that is frozen holds a change for seconds
        if self._looking is not None:
            self._looking.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._reconciler.leave()
        await _told(self.share.leave())
        return drained

    # Reading

    async def watchers(self, state: State | None = None) -> list[WatcherView]:
        """Return those of this instance, by name, or those in one state. Raises Unavailable until they are loaded."""
        await self._reconciler.loaded()
        await self.snapshots.know(self._own.values())
        views = [self._view(name) for name in self._own]
        return [view for view in views if state is None or view.status.state is state]

    async def names(self) -> list[str]:
        """Return the names of all watchers of all instances, in order. Raises Unavailable while they are not known."""
        await self._reconciler.loaded()
        return list(self._watchers)

    async def watcher(self, name: str, *, afresh: bool = False) -> WatcherView:
        """Return one; `afresh`: look first whether it is still stored. Raises NotFound; Unavailable as `watchers`."""
        await self.snapshots.know([await self.watched(name, afresh=afresh)])
        return self._view(name)

    async def token(self, name: str) -> TokenView:
        """Return the stored position. Raises NotFound, Unavailable."""
        watched = await self.watched(name)
        async with servers_needed():
            return await self._positions.view(watched.stored.watcher)

    async def history(self, name: str) -> list[Happening]:
        """Return what happened to a watcher in this process, oldest first. Raises NotFound, Unavailable."""
        return list((await self.watched(name)).statistics.history)

    def ready(self) -> str | None:
        """Return why the service is not ready, or None where it is: both servers answer, the watchers are loaded, and
        this instance may run its share of them."""
        for component in (self._server_probe.mongo, self._server_probe.nats):
            if not component.up:
                return component.reason
        return self._reconciler.unknown() or self.share.outdated

    async def lag(self, name: str) -> Lag:
        """Return how far a watcher is behind, on any instance. Raises NotFound, Unavailable."""
        watched = await self.watched(name)
        async with servers_needed():
            return await self._fleet_health.lag(watched)

    async def lags(self, names: Iterable[str] | None = None) -> dict[str, Lag]:
        """Return the lag of these watchers, or of those that this instance owns, by name. Raises Unavailable."""
        await self._reconciler.loaded()
        known = None if names is None else {name: self._watchers[name] for name in names if name in self._watchers}
        async with servers_needed():
            return await self._fleet_health.lags(known)

    async def instances(self) -> list[InstanceView]:
        """Return the instances that share the watchers, by name. Raises Unavailable."""
        await self._reconciler.loaded()
        return await self._membership.views()

    async def health(self) -> Health:
        """Return how the service does, from facts not older than a few seconds."""
        missing, notices = self._store.out_of_reach, self._membership.notices()
        if missing is not None:
            notices.append(
                f"only the configuration file's watchers are run, and changes over HTTP are refused: {missing}"
            )
        return self._fleet_health.health(self._reconciler.unknown() or self.share.outdated, notices)

    def observe_positions(self) -> None:
        """Tell the observer every watcher's lag and headroom, and who runs how much, as it is now; scrapes ask."""
        self._fleet_health.observe_positions()
        self.snapshots.observe(self._own)
        self._membership.observe(self._dependencies.observer)

    # Changing

    async def add(
        self, watcher: Watcher, *, paused: bool = False, explicit_start: bool = False, dry_run: bool = False
    ) -> WatcherView:
        """Add a watcher and start it unless paused. Raises Invalid, Conflict, Unavailable.

        `explicit_start`: the user wrote a start, so that one that continues a stream begins a new epoch.
        With `dry_run` everything is resolved and checked and nothing is changed."""
        wanted = _wanted(watcher, paused, explicit_start)
        change = self._in_turns([watcher.name], lambda: self._changes.add(wanted, dry_run))
        return await self._go_on(change, watcher.name)

    async def add_all(self, additions: Sequence[Addition], *, dry_run: bool = False) -> list[WatcherView]:
        """Add several watchers in one change, all or none. Errors as `add`, which name the place in the list:
        `[3].source.collection`."""
        wanted = [_wanted(each.watcher, each.paused, each.explicit_start) for each in additions]
        names = [one.name for one in wanted]

        async def add() -> list[WatcherView]:
            return await self._changes.add_all(wanted, dry_run) if wanted else []

        return await self._go_on(self._in_turns(names, add), f"{len(names)} watchers")

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
        wanted = _wanted(watcher, paused, explicit_start)

        async def put() -> tuple[WatcherView, bool]:
            if watcher.name in self._watchers:
                return await self._changes.replace(wanted, dry_run), False
            return await self._changes.add(wanted, dry_run), True

        return await self.in_turn(watcher.name, put, expected)

    async def remove(self, name: str, *, delete_checkpoint: bool = False, expected: Revisions | None = None) -> None:
        """Stop a watcher and forget it; the stream stays. Raises NotFound, Conflict (from the file), Unavailable."""
        unchanged = expected is not None
        await self.in_turn(name, lambda: self._changes.remove(name, delete_checkpoint, unchanged), expected)

    async def pause(self, name: str, *, expected: Revisions | None = None) -> WatcherView:
        """Pause a watcher. Pausing a paused one is fine. Raises NotFound, Unavailable."""
        return await self.in_turn(name, lambda: self._changes.desire(name, Desired.PAUSED), expected)

    async def resume(self, name: str, *, expected: Revisions | None = None) -> WatcherView:
        """Let a paused or failed watcher go on. Raises NotFound, Unavailable."""
        return await self.in_turn(name, lambda: self._changes.desire(name, Desired.RUNNING), expected)

    async def restart(self, name: str, *, expected: Revisions | None = None) -> WatcherView:
        """Stop and start a watcher's task. Raises NotFound, Conflict (paused), Unavailable."""
        return await self.in_turn(name, lambda: self._changes.restart(name), expected)

    async def set_token(self, name: str, start: Start, *, expected: Revisions | None = None) -> TokenView:
        """Move a paused or failed watcher and begin a new epoch. Raises NotFound, Conflict, Invalid, Unavailable."""
        return await self.in_turn(name, lambda: self._changes.move(name, start), expected)

    async def reset_token(self, name: str, *, expected: Revisions | None = None) -> TokenView:
        """Move a paused or failed watcher back to its own start, in a new epoch. Errors as `set_token`."""
        return await self.in_turn(name, lambda: self._changes.move(name, None), expected)

    async def drain_instance(self, name: str, *, on: bool, force: bool = False) -> InstanceView:
        """Ask an instance to give up its watchers, or to take some again. Raises NotFound, Conflict, Unavailable."""
        await self._reconciler.loaded()
        async with servers_needed():
            return await self._membership.drain(name, on=on, force=force)

    # One change at a time of each watcher

    async def in_turn(self, name: str, work: Callable[[], Awaitable[T]], expected: Revisions | None = None) -> T:
        """Do something to a watcher while nobody else changes it. Raises Elsewhere where it is not this instance's."""
        return await self._go_on(self._in_turn(name, work, expected), name)

    async def _go_on(self, change: Coroutine[Any, Any, T], what: str) -> T:
        """Make a change in a task of its own, which goes on where the request is cancelled, and ends with the service.
        `what` it changes is named. Raises what the change raises, and Unavailable."""
        task = asyncio.create_task(change, name=f"change:{what}")
        self._in_flight.add(task)
        task.add_done_callback(self._in_flight.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            request = asyncio.current_task()
            if request is None or request.cancelling():
                task.add_done_callback(_report_change)
                raise
            raise Unavailable(f"the service is stopping; ask again whether {what} was changed") from None

    async def _in_turns(self, names: Iterable[str], work: Callable[[], Awaitable[T]]) -> T:
        async with servers_needed(), self._reconciler.turns(names):
            return await work()

    async def _in_turn(self, name: str, work: Callable[[], Awaitable[T]], expected: Revisions | None) -> T:
        """Do it on what the store holds now; a server's trouble is told as Unavailable."""
        async with servers_needed(), self._reconciler.turn(name):
            await self.snapshots.know([self._own.get(name)])
            if expected is not None:
                self._refuse_outdated(name, expected)
            return await work()

    def _refuse_outdated(self, name: str, expected: Revisions) -> None:
        known = self._watchers.get(name)
        if known is None or (expected != "any" and known.stored.revision not in expected):
            now = f"there is no watcher {name}" if known is None else f"{name} is at revision {known.stored.revision}"
            raise Outdated(f"If-Match asks for another revision: {now}; nothing was changed")

    # One watcher

    async def watched(self, name: str, *, afresh: bool = False) -> Watched:
        """Return a watcher as it is known here; `afresh` as in `watcher`, which says what is raised."""
        await self._reconciler.loaded()
        # One that no instance owns may have been added or removed by another one a moment ago.
        if afresh or (self.share.others() and name not in self._own and self.share.owner(name) is None):
            async with servers_needed():
                await self._reconciler.look_at(name)
        if name not in self._watchers:
            raise NotFound(f"there is no watcher {name}")
        return self._watchers[name]

    def _view(self, name: str) -> WatcherView:
        watched = self._watchers[name]
        return WatcherView(watched.stored, watched.status())


async def _told(telling: Awaitable[None]) -> None:
    """Tell the other instances, where that works and does not take long: they find out in any case."""
    with contextlib.suppress(ChangewireError, TimeoutError):
        async with asyncio.timeout(LAST_PLAN_SECONDS):
            await telling


def _wanted(watcher: Watcher, paused: bool, explicit_start: bool) -> StoredWatcher:
    desired = Desired.PAUSED if paused else Desired.RUNNING
    return StoredWatcher(watcher, desired=desired, new_start=explicit_start)


def _report_change(task: asyncio.Task[Any]) -> None:
    """Say how a change has ended whose request did not wait for it."""
    error = None if task.cancelled() else task.exception()
    outcome = "cancelled" if task.cancelled() else "done" if error is None else "failed"
    log.info(
        "change_outlived_request", change=task.get_name(), outcome=outcome, reason=None if error is None else str(error)
    )


def _report_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.critical("service_task_ended", task=task.get_name(), exc_info=error)
