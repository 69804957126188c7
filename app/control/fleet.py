"""The watchers of this process, by name, whatever their state.

Everyone reads it: status, health, lag, dead letters, the stream browser. A reader sees a `Watched`, which has no way to
start or to stop anything. The reconciler alone calls the methods that do.
"""

import asyncio
import bisect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Protocol

from app.control.instance import Instance
from app.control.watcher_task import WatcherTask
from app.domain.dead_letters import Replay
from app.domain.lifecycle import Desired, State
from app.domain.overlap_index import OverlapIndex, order
from app.domain.status import Status
from app.domain.watcher import StoredWatcher
from app.pipeline.dependencies import Dependencies
from app.pipeline.run_state import RunState
from app.pipeline.run_statistics import RunStatistics
from app.ports import WatcherStore


class Watched(Protocol):
    """One watcher as everyone but the reconciler sees it; `WatcherTask` says what each of these is."""

    @property
    def stored(self) -> StoredWatcher: ...
    @property
    def run_state(self) -> RunState: ...
    @property
    def statistics(self) -> RunStatistics: ...
    @property
    def state(self) -> State: ...
    @property
    def active(self) -> bool: ...
    @property
    def refused(self) -> bool: ...
    @property
    def elsewhere(self) -> bool: ...
    def status(self) -> Status: ...
    async def replay(self, sequence: int) -> Replay: ...
    def look_at_snapshot(self) -> None: ...


class Own(Mapping[str, Watched]):
    """Of a fleet, the watchers that this instance owns."""

    def __init__(self, fleet: "Fleet") -> None:
        self._fleet = fleet

    def __getitem__(self, name: str) -> Watched:
        task = self._fleet[name]
        if task.elsewhere:
            raise KeyError(name)
        return task

    def __iter__(self) -> Iterator[str]:
        return (name for name in self._fleet if not self._fleet[name].elsewhere)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Fleet(Mapping[str, WatcherTask]):
    """One task for each watcher, in the order of their names."""

    def __init__(
        self, dependencies: Dependencies, store: WatcherStore, instance: Instance, *, drain_seconds: float
    ) -> None:
        """`drain_seconds`: how long a watcher that stops may take to publish what it has read."""
        self._dependencies = dependencies
        self._store = store
        self._instance = instance
        self._drain_seconds = drain_seconds
        self._tasks: dict[str, WatcherTask] = {}
        self._names: list[str] = []
        """In order, for everyone who looks at all of them."""
        self.index = OverlapIndex()
        """All of them as they are stored."""
        self._touched: set[str] = set()
        self.own: Mapping[str, Watched] = Own(self)
        self.run_by: str | None = None
        """This instance's name, which its watchers' status says."""

    def __getitem__(self, name: str) -> WatcherTask:
        return self._tasks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names.copy())

    def __len__(self) -> int:
        return len(self._tasks)

    def expect(self, stored: Iterable[StoredWatcher]) -> None:
        """Say which watchers are about to be adopted and started, before the first of them is."""
        self._dependencies.mongo.expect(one.watcher for one in stored if one.desired is Desired.RUNNING)

    def adopt(self, stored: StoredWatcher) -> WatcherTask:
        """Take a watcher in, without starting it. What is remembered of it is kept, unless it was removed and added."""
        before = self._tasks.get(stored.name)
        if before is not None and (before.stored.added != stored.added or before.elsewhere):
            before = None  # removed and added, or another instance has had it
        task = WatcherTask(stored, self._dependencies, self._store, self._instance, before)
        task.run_by = self.run_by
        if stored.name not in self._tasks:
            bisect.insort(self._names, stored.name)
        self._tasks[stored.name] = task
        self._touch(stored.name)
        self.index.put(stored)
        self._touch(stored.name)
        return task

    def touched(self) -> list[StoredWatcher]:
        """Return those, in the order in which they were added, that may have to be judged again since the last call:
        another one came or went or was refused with which they could conflict."""
        touched, self._touched = self._touched, set()
        return sorted((self._tasks[name].stored for name in touched if name in self._tasks), key=order)

    def _touch(self, name: str) -> None:
        """Note whom a watcher may be in the way of, or keep out of somebody's way, as it is in the index now."""
        if name in self.index:
            self._touched.update(one.name for one in self.index.near(self.index[name].watcher) if one.name != name)

    async def stop(self, name: str) -> bool:
        """Drain one watcher; see `WatcherTask.stop`."""
        return await self._tasks[name].stop(self._drain_seconds)

    async def dismiss(self, name: str) -> None:
        """Stop a watcher and forget it, its metrics too."""
        await self.stop(name)
        del self._tasks[name]
        self._names.remove(name)
        self._touch(name)
        self.index.drop(name)
        self._dependencies.observer.forget(name)

    def rest(self, stored: StoredWatcher, *, refused: bool) -> None:
        """Take in a watcher that another instance owns, or let go of one that has stopped here."""
        self.adopt(stored).rest(refused=refused)
        self._dependencies.observer.forget(stored.name)

    async def stop_all(self, stopped: Callable[[str], None]) -> bool:
        """Drain all at once, and tell of each that has stopped; False where one did not finish in time."""

        async def stop(name: str, task: WatcherTask) -> bool:
            drained = await task.stop(self._drain_seconds)
            stopped(name)
            return drained

        own = [(name, task) for name, task in self._tasks.items() if not task.elsewhere]
        return all(await asyncio.gather(*(stop(name, task) for name, task in own)))
