"""What each change of a watcher does once it is its turn: check, store, have the reconciler carry it out.

Until something is stored nothing has changed. From then on the reconciler makes it so, in this call or in its next
round. `registry.py` sees to the turn, and to the revision that is expected.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

import structlog

from app.control import audit
from app.control.admission import Admission
from app.control.fleet import Watched
from app.control.positions import Positions
from app.control.reconciler import AT_ONCE, Reconciler
from app.control.refusals import MOST_TOLD, Refusals, refuse_all
from app.control.snapshots import SnapshotService
from app.domain.errors import ChangewireError, Conflict, FieldProblem, Invalid, NotFound, Unavailable
from app.domain.lifecycle import Desired, State
from app.domain.overlap_index import OverlapIndex
from app.domain.snapshot import first_run
from app.domain.status import Status, TokenView, WatcherView
from app.domain.watcher import Start, StoredWatcher, Watcher
from app.pipeline.dependencies import Dependencies
from app.ports import ALIVE_SECONDS, WatcherStore

log = structlog.get_logger(__name__)

CHECKED_AT_ONCE = 16
"""Watchers of a list that both servers are asked about at the same time."""
FOLLOW_SECONDS = ALIVE_SECONDS + 5.0
"""An instance that has not followed by then no longer counts as alive."""


class Changes:
    """The changes, each to be called within a turn of its watcher. They raise what servers raise, and RegistryError."""

    def __init__(
        self,
        dependencies: Dependencies,
        store: WatcherStore,
        watchers: Mapping[str, Watched],
        reconciler: Reconciler,
        admission: Admission,
        positions: Positions,
        snapshots: SnapshotService,
    ) -> None:
        self._dependencies = dependencies
        self._store = store
        self._snapshots = snapshots
        self._watchers = watchers
        self._reconciler = reconciler
        self._admission = admission
        self._positions = positions

    async def add(self, wanted: StoredWatcher, dry_run: bool) -> WatcherView:
        found = Refusals()
        ready = await self._ready_to_add(wanted, found)
        found.refuse()
        return (await self._store_new([ready], dry_run))[0]

    async def add_all(self, wanted: Sequence[StoredWatcher], dry_run: bool) -> list[WatcherView]:
        """Add several, all or none. The problems of an error name the place in the list: `[3].source.collection`."""
        found = self._admission.together([one.watcher for one in wanted])
        enough = asyncio.Semaphore(CHECKED_AT_ONCE)

        told = 0

        async def ready(one: StoredWatcher, refusals: Refusals) -> StoredWatcher:
            nonlocal told
            async with enough:
                # Servers are not asked a thousand times for what nobody is told any more.
                looked_at = await self._ready_to_add(one, refusals, ask=told < MOST_TOLD)
                told += len(refusals.invalid)
                return looked_at

        looked = await asyncio.gather(*map(ready, wanted, found), return_exceptions=True)
        for failed in (each for each in looked if isinstance(each, BaseException)):
            raise failed
        refuse_all(found, [one.name for one in wanted])
        return await self._store_new([each for each in looked if isinstance(each, StoredWatcher)], dry_run)

    async def _ready_to_add(self, wanted: StoredWatcher, found: Refusals, *, ask: bool = True) -> StoredWatcher:
        """Look at a watcher that is to be added, and where it begins; what is wrong is put into `found`. `ask`: at the
        servers as well."""
        watcher, name = wanted.watcher, wanted.name
        if name in self._watchers:
            found.add(_taken(name))
        begin = await self._admission.check(watcher, found, ask=ask)
        if watcher.snapshot != "none" and begin is not None:
            with found.noted():
                await self._snapshots.check_first(watcher)
        if watcher.start.at != "latest" and begin is not None and found.clean("start"):
            with found.noted():
                begin = await self._begin(watcher)
        return replace(wanted, begin=begin)

    async def _begin(self, watcher: Watcher) -> str:
        """Return the token at which a watcher begins by its start. Raises Invalid on `start.at`."""
        try:
            return await self._positions.locate(watcher, watcher.start)
        except Invalid as error:
            raise Invalid(problems=tuple(replace(each, field="start.at") for each in error.problems)) from error

    async def _store_new(self, wanted: Sequence[StoredWatcher], dry_run: bool) -> list[WatcherView]:
        """Store watchers that were checked, and let them run. They are compared with all others once more while they
        are stored: another one may have come meanwhile, through any instance."""
        beside = self._admission.beside(*(one.watcher for one in wanted))

        def check(stored: OverlapIndex) -> None:
            for one in wanted:
                if one.name in stored:
                    raise _taken(one.name)
            beside(stored)

        if dry_run:
            await self._store.check(check)
            audit.note(dry_run=True)
            return [WatcherView(one, Status(_first_state(one), self._dependencies.clock())) for one in wanted]
        clock = self._dependencies.clock
        runs = {one.name: first_run(one.name, clock()) for one in wanted if one.watcher.snapshot != "none"}
        added = await self._store.insert_all(wanted, check, list(runs.values()))
        for stored in added:
            audit.changed(stored.name, None, stored)
        await self._reconciler.carry_out(*added)
        for number, stored in enumerate(added, 1):
            statistics = self._watchers[stored.name].statistics
            if not statistics.snapshot_known:  # else its capture has begun, and knows better
                statistics.knows_snapshot(runs.get(stored.name))
            if number % AT_ONCE == 0:
                await asyncio.sleep(0)
        return [self._view(stored.name) for stored in added]

    async def replace(self, wanted: StoredWatcher, dry_run: bool) -> WatcherView:
        watcher, name = wanted.watcher, wanted.name
        before, found = self._watchers[name].stored, Refusals()
        _refuse_file(before)
        with found.noted():
            _refuse_other_collection(before, watcher)
        await self._admission.check(watcher, found, before.watcher)
        found.refuse()
        after = replace(before, watcher=watcher, desired=wanted.desired)
        if before.begin is not None and before.watcher.start != watcher.start:  # it has not begun yet
            begin = await self._begin(watcher)
            after = replace(after, begin=begin, new_start=wanted.new_start)
        if dry_run:
            audit.note(dry_run=True)
            return WatcherView(after, self._watchers[name].status())
        async with self._reconciler.stopped(name):
            await self._positions.copy(before, watcher)
            check = self._admission.beside(watcher)
            after = await self._store.replace(after, expected_revision=before.revision, check=check)
        if (before.watcher.route, before.watcher.source) != (watcher.route, watcher.source):
            await self._snapshots.end(self._watchers[name], "the watcher was replaced, and publishes something else")
        audit.changed(name, before, after)
        await self._reconciler.carry_out(after)
        return self._view(name)

    async def remove(self, name: str, delete_checkpoint: bool, unchanged: bool) -> None:
        """`unchanged`: only where it is still stored as it is known here."""
        stored = self._stored(name)
        _refuse_file(stored)
        if delete_checkpoint:
            self._admission.rules.refuse_outside(stored, "be removed with its position; it can with checkpoint=keep")
        checkpoints = self._dependencies.mongo.checkpoints(stored.watcher)
        async with self._reconciler.stopped(name):
            if delete_checkpoint:
                await checkpoints.delete()
                audit.note(checkpoint="deleted")
            revision = await self._store.delete(name, expected_revision=stored.revision if unchanged else None)
        audit.changed(name, stored, None)
        await self._reconciler.carry_out_removal(name, revision)
        if delete_checkpoint:
            await self._others_followed()
            await checkpoints.delete()  # again: another instance may have stored its position before it followed

    async def desire(self, name: str, desired: Desired) -> WatcherView:
        before = stored = self._stored(name)
        if stored.desired is not desired:
            stored = await self._store.replace(replace(stored, desired=desired), expected_revision=stored.revision)
            audit.changed(name, before, stored)
        elif desired is Desired.PAUSED or self._watchers[name].active:
            return self._view(name)
        await self._reconciler.carry_out(stored)
        return self._view(name)

    async def restart(self, name: str) -> WatcherView:
        stored = self._stored(name)
        if stored.desired is Desired.PAUSED:
            raise Conflict(f"{name} is paused; resume it with PUT /watchers/{name}/resume")
        await self._reconciler.carry_out(stored)
        return self._view(name)

    async def move(self, name: str, start: Start | None) -> TokenView:
        """`start` is None for the watcher's own."""
        stored, state = self._stored(name), self._watchers[name].state
        start = stored.watcher.start if start is None else start
        if state not in (State.PAUSED, State.FAILED):
            raise Conflict(f"{name} is {state}; pause it first with PUT /watchers/{name}/pause, then move it")
        self._admission.rules.refuse_outside(stored, "be moved")  # it was refused, and to find a position is to read
        self._admission.rules.refuse_javascript(stored, "be moved")
        if state is State.PAUSED:
            await self._others_followed()
        view = await self._positions.move(stored.watcher, start)
        audit.note(token=view.token, epoch=view.epoch, start=start.at)
        self._reconciler.forget_position(name)
        try:  # a new revision, so that every instance opens again; the epoch binds them without it
            begun = replace(stored, new_start=False, begin=None)
            await self._reconciler.keep(await self._store.replace(begun, expected_revision=stored.revision))
        except ChangewireError as error:
            log.warning("move_not_announced", watcher=name, reason=str(error))
        await self._snapshots.end(self._watchers[name], "the watcher was moved to another position")
        return view

    async def _others_followed(self) -> None:
        """Wait until the other instances have carried out the last change. Raises Unavailable."""
        try:
            async with asyncio.timeout(FOLLOW_SECONDS):
                await self._reconciler.others_followed()
        except TimeoutError:
            raise Unavailable(
                f"another instance has not followed the last change within {FOLLOW_SECONDS:.0f} seconds; try again"
            ) from None

    def _stored(self, name: str) -> StoredWatcher:
        """Within a turn: what the store holds. Raises NotFound."""
        if name not in self._watchers:
            raise NotFound(f"there is no watcher {name}")
        return self._watchers[name].stored

    def _view(self, name: str) -> WatcherView:
        watched = self._watchers[name]
        return WatcherView(watched.stored, watched.status())


def _taken(name: str) -> Conflict:
    said = f"there is a watcher {name} already; replace it with PUT /watchers/{name}"
    taken = FieldProblem("name", f"is taken: {said}")
    return Conflict(said, (taken,))


def _first_state(stored: StoredWatcher) -> State:
    return State.PAUSED if stored.desired is Desired.PAUSED else State.STARTING


def _refuse_file(stored: StoredWatcher) -> None:
    if stored.origin == "file":
        raise Conflict(
            f"{stored.name} comes from the configuration file, which wins over what is asked here; change it there "
            "and restart the service. Pausing, resuming and moving it work"
        )


def _refuse_other_collection(before: StoredWatcher, watcher: Watcher) -> None:
    if before.watcher.source.namespace != watcher.source.namespace:
        problem = (
            f"reads {before.watcher.source.namespace}; a watcher stays with its collection: its position means nothing "
            "in another one. Remove it and add one for the other collection"
        )
        raise Conflict(f"{watcher.name} {problem}", (FieldProblem("source", problem),))
