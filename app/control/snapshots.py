"""What can be done with a watcher's snapshot: begin a run, cancel it, look at it.

A run is stored, and the watcher that is to publish it is told to look. So a run that begins while the watcher is paused
waits, and is taken up by whichever instance opens the watcher next (`pipeline/snapshot.py`).
"""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import structlog

from app.control import audit
from app.control.admission import Rules
from app.control.fleet import Watched
from app.domain.errors import Conflict, FieldProblem, Invalid, Unavailable
from app.domain.javascript import javascript_problem
from app.domain.lifecycle import State
from app.domain.snapshot import Kind, Snapshot, next_run
from app.pipeline.dependencies import Dependencies, servers_needed

log = structlog.get_logger(__name__)

TRIES = 5
"""How often an end is stored again that met a step of the run's."""


class SnapshotService:
    """The snapshots of all watchers. `task_of` finds a watcher's task by name, or raises NotFound, Unavailable."""

    def __init__(self, dependencies: Dependencies, rules: Rules, task_of: Callable[[str], Awaitable[Watched]]) -> None:
        self._dependencies = dependencies
        self._rules = rules
        self._task_of = task_of
        self._store = dependencies.mongo.snapshots()

    async def begin(
        self, name: str, *, filter_: Mapping[str, Any] | None = None, wanted: Sequence[str] = ()
    ) -> Snapshot:
        """Begin a run, of the documents that a filter (extended JSON) matches in the wanted collections; none: all.

        Raises NotFound, Conflict (one runs, the watcher is FAILED), Invalid (filter, collections), Unavailable."""
        task = await self._task_of(name)
        watcher = task.stored.watcher
        if task.state is State.FAILED:
            raise Conflict(f"{name} is FAILED: {task.status().reason}; a snapshot can begin when that is put right")
        if watcher.entries:
            raise Conflict(f"{name} stands for several entries of the configuration file; it takes no snapshot")
        if filter_ and not self._rules.javascript and (found := javascript_problem((filter_,))):
            raise Invalid(problems=(FieldProblem("filter", found),))
        self._rules.refuse_outside(task.stored, "take a snapshot")
        async with servers_needed():
            await self._dependencies.mongo.rows(watcher).check(filter_, wanted)
            before = await self._store.read(name)
            if before is not None and before.running:
                raise Conflict(f"a snapshot of {name} is running already; cancel it, or wait for its end")
            if before is not None and before.open:
                raise Conflict(f"the last snapshot of {name} has not ended altogether; try again once the watcher runs")
            run = self._new(name, "on_demand", before, filter_, wanted)
            if not await self._store.put(run, before):
                raise Conflict(f"a snapshot of {name} was begun by somebody else at the same moment; look again")
        audit.note(snapshot=run.run)
        log.info("snapshot_requested", watcher=name, run=run.run, filter=bool(filter_))
        task.look_at_snapshot()
        return run

    async def cancel(self, name: str, reason: str = "somebody has cancelled it") -> Snapshot:
        """End the run. What was published stays. Raises NotFound, Conflict where none runs, Unavailable."""
        task = await self._task_of(name)
        async with servers_needed():
            for _ in range(TRIES):
                run = await self._store.read(name)
                if run is None or not run.running:
                    raise Conflict(f"no snapshot of {name} is running")
                ended = run.ended("cancelled", self._dependencies.clock(), reason)
                if await self._store.change(run, ended):
                    break
            else:
                raise Unavailable(f"the snapshot of {name} moves on faster than it can be cancelled; try again")
        audit.note(snapshot=run.run)
        log.info("snapshot_cancelled", watcher=name, run=run.run, documents=run.documents)
        task.look_at_snapshot()
        return ended

    def _new(
        self, name: str, kind: Kind, before: Snapshot | None, filter_: Mapping[str, Any] | None, wanted: Sequence[str]
    ) -> Snapshot:
        now, text = self._dependencies.clock(), json.dumps(filter_) if filter_ else None
        return Snapshot(name, next_run(before, now), kind, now, filter=text, wanted=tuple(wanted))
