"""The runs of snapshots in memory."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import replace

from app.domain.snapshot import Snapshot
from app.ports import Summary


class FakeSnapshots:
    """`SnapshotStore`. `runs` is shared by all who open it."""

    def __init__(self, runs: dict[str, Snapshot] | None = None) -> None:
        self.runs = {} if runs is None else runs
        self.faults: deque[BaseException | None] = deque()

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.faults and (fault := self.faults.popleft()) is not None:
            raise fault

    async def all(self) -> Mapping[str, Summary]:
        await self._reach()
        return {name: Summary(replace(run, chunks=()), run.open) for name, run in self.runs.items()}

    async def read(self, watcher: str) -> Snapshot | None:
        await self._reach()
        return self.runs.get(watcher)

    async def put(self, snapshot: Snapshot, before: Snapshot | None) -> bool:
        await self._reach()
        there = self.runs.get(snapshot.watcher)
        if (there is None) != (before is None):
            return False
        if there is not None and before is not None and (there.run, there.version) != (before.run, before.version):
            return False
        self.runs[snapshot.watcher] = snapshot
        return True

    async def change(self, before: Snapshot, after: Snapshot) -> bool:
        await self._reach()
        there = self.runs.get(before.watcher)
        if there is None or (there.run, there.version) != (before.run, before.version):
            return False
        self.runs[before.watcher] = after
        return True

    async def delete(self, watcher: str) -> None:
        await self._reach()
        self.runs.pop(watcher, None)
