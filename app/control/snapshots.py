"""What can be done with a watcher's snapshot: begin a run, cancel it, look at it.

A run is stored, and the watcher that is to publish it is told to look. So a run that begins while the watcher is paused
waits, and is taken up by whichever instance opens the watcher next (`pipeline/snapshot.py`). One that begins when the
watcher is added is stored by the same change as the watcher.

What is known of a run is kept beside the watcher's other counts, and the watcher's capture keeps it up to date. It is
looked up once for each watcher that comes to this instance, with one question for all of them; and each time where
another writer may move the run on.

An instance that was frozen may do what it was asked to before it learns that it was replaced: it begins or ends a run
of a watcher that is another one's by then. Nobody tells that one, so each looks now and then which runs are stored.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import structlog

from app.control import audit
from app.control.admission import Rules
from app.control.fleet import Watched
from app.control.server_probe import ServerProbe
from app.domain.errors import ChangewireError, Conflict, FieldProblem, Invalid, NotFound, Unavailable
from app.domain.javascript import javascript_problem
from app.domain.lifecycle import State
from app.domain.names import collection_problem, database_problem
from app.domain.snapshot import Snapshot, next_run
from app.domain.status import SnapshotView
from app.domain.text import HALF, is_text
from app.domain.watcher import Watcher
from app.pipeline.dependencies import Dependencies
from app.ports import WatcherStore

log = structlog.get_logger(__name__)

T = TypeVar("T")

CANCEL_SECONDS = 10.0
"""How long an end is stored again that met a step of the run's: a run stores one some twenty times in a second."""
LOOK_SECONDS = 5.0
"""How often those are looked up that are not known, or that were begun or ended elsewhere."""


class Turns(Protocol):
    """The registry, as far as it finds a watcher and gives a change its turn."""

    async def watched(self, name: str) -> Watched:
        """Return a watcher. Raises NotFound, Unavailable."""

    async def in_turn(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """Do something to a watcher that is this instance's while nobody else changes it. Raises Unavailable."""


class SnapshotService:
    """The snapshots of all watchers."""

    def __init__(
        self, dependencies: Dependencies, rules: Rules, watchers: WatcherStore, turns: Turns, server_probe: ServerProbe
    ) -> None:
        self._dependencies = dependencies
        self._rules = rules
        self._watchers = watchers
        self._turns = turns
        self._server_probe = server_probe
        self._store = dependencies.mongo.snapshots()
        self._said = False
        """Whether the log has that the runs cannot be looked up now."""

    # What is known

    async def know(self, watched: Iterable[Watched | None]) -> None:
        """Look up the runs that are not known. Where they cannot be, what was known stays."""
        unknown = [one for one in watched if one is not None and _may_be_another(one)]
        if not unknown or (found := await self._looked_up(self._store.all)) is None:
            return
        for one in unknown:
            there = found.get(one.stored.name)
            if _may_be_another(one):  # else its capture, or a change, was faster, and knows better
                one.statistics.knows_snapshot(None if there is None else there.run)

    async def watch(self, watchers: Mapping[str, Watched]) -> None:
        """Look up what is not known of these watchers, and what was begun and ended elsewhere, indefinitely: scrapes do
        not wait for an answer."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.know([one for one in watchers.values() if not one.statistics.snapshot_known])
            await self._notice(watchers)

    async def _notice(self, watchers: Mapping[str, Watched]) -> None:
        """Have those look whose run is not the one that is stored. Where it has only moved on meanwhile, they look for
        nothing."""
        if not watchers or (running := await self._looked_up(self._store.running)) is None:
            return
        for name, one in list(watchers.items()):
            if not one.statistics.snapshot_known or _running(one.statistics.snapshot) == running.get(name):
                continue
            if one.state is State.RUNNING:
                one.look_at_snapshot()
            else:
                one.statistics.snapshot_known = False  # nothing looks that could know better

    async def _looked_up(self, question: Callable[[], Awaitable[T]]) -> T | None:
        """The answer of the store; None where it gives none now."""
        if not self._server_probe.mongo.up:  # known, so that no answer waits for a time-out
            return None
        try:
            found = await question()
        except ChangewireError as error:
            if not self._said:
                log.info("snapshots_not_looked_up", reason=str(error))
            self._said = True
            return None
        self._said = False
        return found

    def observe(self, watchers: Mapping[str, Watched]) -> None:
        """Tell the observer which watchers take a snapshot; scrapes ask."""
        for name, one in watchers.items():
            run = one.statistics.snapshot
            if run is not None:
                self._dependencies.observer.snapshot(name, running=run.running)

    # What is asked for

    async def begin(
        self, name: str, *, filter_: Mapping[str, Any] | None = None, wanted: Sequence[str] = ()
    ) -> SnapshotView:
        """Begin a run, of the documents that a filter (extended JSON) matches in the wanted collections; none: all.

        Raises NotFound, Conflict (one runs, the watcher is FAILED), Invalid (filter, collections), Unavailable."""
        return await self._turns.in_turn(name, lambda: self._begin(name, filter_, wanted))

    async def cancel(self, name: str) -> SnapshotView:
        """End the run. What was published stays. Raises NotFound, Conflict where none runs, Unavailable."""
        return await self._turns.in_turn(name, lambda: self._cancel(name))

    async def _begin(self, name: str, filter_: Mapping[str, Any] | None, wanted: Sequence[str]) -> SnapshotView:
        task = await self._turns.watched(name)
        await self._check(task, filter_, wanted)
        before = await self._store.read(name)
        if before is not None and before.running:
            raise Conflict(f"a snapshot of {name} is running already; cancel it, or wait for its end")
        if before is not None and before.open:
            raise Conflict(f"the last snapshot of {name} has not ended altogether; try again once the watcher runs")
        now, text = self._dependencies.clock(), json.dumps(filter_, ensure_ascii=False) if filter_ else None
        run = Snapshot(name, next_run(before, now), "on_demand", now, filter=text, wanted=tuple(wanted))
        if not await self._store.put(run, before):
            raise Conflict(f"a snapshot of {name} was begun by somebody else at the same moment; look again")
        if await self._watchers.get(name) is None:  # this process was frozen, and another instance has removed it
            await self._store.delete(name)
            raise NotFound(f"there is no watcher {name}")
        audit.note(snapshot=run.run)
        if text is not None:
            audit.note(filter=text)
        if wanted:
            audit.note(collections=list(wanted))
        return _told(task, run)

    async def _check(self, task: Watched, filter_: Mapping[str, Any] | None, wanted: Sequence[str]) -> None:
        """Refuse a run that cannot be. Raises Conflict, Invalid, and what servers raise."""
        watcher, name = task.stored.watcher, task.stored.name
        if task.state is State.FAILED:
            raise Conflict(f"{name} is FAILED: {task.status().reason}; a snapshot can begin when that is put right")
        if watcher.entries:
            raise Conflict(f"{name} stands for several entries of the configuration file; it takes no snapshot")
        found = _problems(wanted)
        if filter_ and not self._rules.javascript and (javascript := javascript_problem((filter_,))):
            found.append(FieldProblem("filter", javascript))
        if found:
            raise Invalid(problems=tuple(found))
        self._rules.refuse_outside(task.stored, "take a snapshot")
        # The rows' subjects may be longer than those of all changes.
        with_rows = replace(watcher, snapshot="initial")
        if too_long := self._rules.problems(with_rows):
            raise Conflict(f"{name} cannot take a snapshot: {too_long[0].field} {too_long[0].problem}")
        await self._dependencies.nats.check_sink(with_rows)
        await self._dependencies.mongo.rows(watcher).check(filter_, wanted)

    async def _cancel(self, name: str) -> SnapshotView:
        task = await self._turns.watched(name)
        ended = await self._ended(name, "somebody has cancelled it")
        if ended is None:
            raise Conflict(f"no snapshot of {name} is running")
        audit.note(snapshot=ended.run)
        return _told(task, ended)

    # What other changes do to it

    async def check_first(self, watcher: Watcher) -> None:
        """Refuse a snapshot that is to begin with a watcher. Raises Invalid, and what servers raise."""
        try:
            await self._dependencies.mongo.rows(watcher).check(None, ())
        except Conflict as error:
            raise Invalid(problems=(FieldProblem("snapshot", f"cannot be taken: {error}"),)) from error

    async def end(self, task: Watched, reason: str) -> None:
        """Within a turn, while the watcher does not run: end a run that has begun to read, since what it has read
        belongs to what the watcher was. Where that cannot be stored, the next opening does it."""
        run = task.statistics.snapshot
        if run is None or not run.running or not run.begun:
            return
        try:
            ended = await self._ended(task.stored.name, reason)
        except ChangewireError as error:
            log.warning("snapshot_not_ended", watcher=task.stored.name, run=run.run, reason=str(error))
            return
        if ended is not None:
            task.statistics.knows_snapshot(ended)
            name = task.stored.name
            log.warning("snapshot_ended", watcher=name, run=ended.run, state=ended.state, reason=reason)

    async def _ended(self, name: str, reason: str) -> Snapshot | None:
        """Store that a run is cancelled; None where none is running. Raises Unavailable, and what the store raises."""
        until = asyncio.get_running_loop().time() + CANCEL_SECONDS
        while True:
            run = await self._store.read(name)
            if run is None or not run.running:
                return None
            ended = run.ended("cancelled", self._dependencies.clock(), reason)
            if await self._store.change(run, ended):
                return ended
            if asyncio.get_running_loop().time() > until:
                raise Unavailable(f"the snapshot of {name} moves on faster than it can be cancelled; try again")


def _may_be_another(watched: Watched) -> bool:
    """Whether the stored run may not be the one that is known here."""
    return not watched.statistics.snapshot_known or watched.elsewhere or watched.state is State.FENCED


def _running(run: Snapshot | None) -> str | None:
    return run.run if run is not None and run.running else None


def _told(task: Watched, run: Snapshot) -> SnapshotView:
    """Have a watcher look at its run, which was changed."""
    task.statistics.knows_snapshot(run)
    task.look_at_snapshot()
    view = task.status().snapshot
    assert view is not None, "there is a run"
    return view


def _problems(wanted: Collection[str]) -> list[FieldProblem]:
    """Say which of the wanted collections cannot be any, or are there twice."""
    found, seen = [], set[str]()
    for index, namespace in enumerate(wanted):
        database, _, collection = namespace.partition(".")
        problem = None if is_text(namespace) else HALF
        if problem is None and not (database and collection):
            problem = "must be database.collection, such as shop.orders"
        problem = problem or database_problem(database) or collection_problem(database, collection)
        if problem is None and namespace in seen:
            problem = "is named twice"
        if problem is not None:
            found.append(FieldProblem(f"collections.{index}", problem))
        seen.add(namespace)
    return found
