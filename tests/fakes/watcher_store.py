"""The collection of watchers in memory."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import replace

from app.domain.errors import (
    Conflict,
    NotFound,
    StoreUnavailable,
)
from app.domain.overlap_index import OverlapIndex
from app.domain.snapshot import Snapshot
from app.domain.watcher import StoredWatcher
from app.ports import Check


class FakeWatchers:
    """The registry's store. `reachable` false: every call raises StoreUnavailable."""

    def __init__(self, watchers: Iterable[StoredWatcher] = ()) -> None:
        self.last = 0
        self.stored: dict[str, StoredWatcher] = {}
        self.instances: dict[str, int] = {}
        """Those that live, and how far each has followed."""
        self.runs: dict[str, Snapshot] = {}
        """Of their snapshots; shared with `FakeSnapshots`."""
        self.reachable = True
        self.misfortune: Exception | None = None
        self.put(*watchers)

    def put(self, *watchers: StoredWatcher) -> None:
        """Have these stored, as by an earlier process."""
        for one in watchers:
            self.last += 1
            self.stored[one.name] = replace(one, revision=self.last, added=self.last)

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.misfortune is not None:
            raise self.misfortune
        if not self.reachable:
            raise StoreUnavailable("connection refused")

    async def load(self) -> list[StoredWatcher]:
        await self._reach()
        return self._in_order()

    def _in_order(self) -> list[StoredWatcher]:
        return sorted(self.stored.values(), key=lambda one: one.added)

    async def get(self, name: str) -> StoredWatcher | None:
        await self._reach()
        return self.stored.get(name)

    async def revision(self) -> int:
        await self._reach()
        return self.last

    async def check(self, check: Check) -> None:
        await self._reach()
        check(OverlapIndex(self.stored.values()))

    async def insert(self, stored: StoredWatcher, check: Check | None = None) -> StoredWatcher:
        return (await self.insert_all([stored], check))[0]

    async def insert_all(
        self, wanted: Sequence[StoredWatcher], check: Check | None = None, runs: Sequence[Snapshot] = ()
    ) -> list[StoredWatcher]:
        await self._reach()
        if check is not None:
            check(OverlapIndex(self.stored.values()))
        for one in wanted:
            if one.name in self.stored:
                raise Conflict(f"there is a watcher {one.name} already")
        self.last += 1
        added = [replace(one, revision=self.last, added=self.last) for one in wanted]
        self.stored |= {one.name: one for one in added}
        for one in added:
            self.runs.pop(one.name, None)
        self.runs.update({run.watcher: run for run in runs})
        return added

    async def replace(
        self, stored: StoredWatcher, *, expected_revision: int, check: Check | None = None
    ) -> StoredWatcher:
        await self._reach()
        if check is not None:
            check(OverlapIndex(self.stored.values()))
        if stored.name not in self.stored:
            raise NotFound(f"there is no watcher {stored.name}")
        if self.stored[stored.name].revision != expected_revision:
            raise Conflict(f"{stored.name} was changed meanwhile")
        self.last += 1
        self.stored[stored.name] = replace(stored, revision=self.last)
        return self.stored[stored.name]

    async def began(self, name: str, revision: int) -> None:
        await self._reach()
        stored = self.stored.get(name)
        if stored is not None and stored.revision == revision:
            self.stored[name] = replace(stored, new_start=False, begin=None)

    async def delete(self, name: str, *, expected_revision: int | None = None) -> int:
        await self._reach()
        if name not in self.stored:
            raise NotFound(f"there is no watcher {name}")
        if expected_revision is not None and self.stored[name].revision != expected_revision:
            raise Conflict(f"{name} was changed meanwhile")
        del self.stored[name]
        self.runs.pop(name, None)
        self.last += 1
        return self.last

    async def restore(self, lost: Sequence[StoredWatcher], applied: int) -> bool:
        await self._reach()
        if self.stored or self.last > applied:
            return False
        self.stored = {one.name: one for one in lost}
        self.last = max([applied, *(one.revision for one in lost)]) + 1
        return True

    async def attend(self, instance: str, applied: int) -> None:
        await self._reach()
        self.instances[instance] = applied

    async def leave(self, instance: str) -> None:
        await self._reach()
        self.instances.pop(instance, None)

    async def behind(self, instance: str, revision: int) -> int:
        await self._reach()
        return sum(name != instance and applied < revision for name, applied in self.instances.items())
