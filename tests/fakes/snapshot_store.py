"""The runs of snapshots in memory."""

import asyncio
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace

from app.domain.snapshot import Snapshot
from app.ports import Summary


@dataclass(frozen=True)
class Unheard:
    """A fault after the call has done its work: only the answer is lost."""

    error: BaseException


class FakeSnapshots:
    """`SnapshotStore`. `runs` is shared by all who open it. `faults` has one for each call, None for a good one."""

    def __init__(self, runs: dict[str, Snapshot] | None = None) -> None:
        self.runs = {} if runs is None else runs
        self.faults: deque[BaseException | Unheard | None] = deque()

    async def _reach(self) -> Unheard | None:
        await asyncio.sleep(0)
        fault = self.faults.popleft() if self.faults else None
        if isinstance(fault, BaseException):
            raise fault
        return fault

    async def all(self) -> Mapping[str, Summary]:
        await self._reach()
        return {name: Summary(replace(run, chunks=()), run.open) for name, run in self.runs.items()}

    async def running(self) -> Mapping[str, str]:
        await self._reach()
        return {name: run.run for name, run in self.runs.items() if run.running}

    async def read(self, watcher: str) -> Snapshot | None:
        await self._reach()
        return self.runs.get(watcher)

    async def put(self, snapshot: Snapshot, before: Snapshot | None) -> bool:
        unheard = await self._reach()
        there = self.runs.get(snapshot.watcher)
        if (there is None) != (before is None):
            return False
        if there is not None and before is not None and (there.run, there.version) != (before.run, before.version):
            return False
        self.runs[snapshot.watcher] = snapshot
        return await _answer(unheard)

    async def change(self, before: Snapshot, after: Snapshot) -> bool:
        unheard = await self._reach()
        there = self.runs.get(before.watcher)
        if there is None or (there.run, there.version) != (before.run, before.version):
            return False
        self.runs[before.watcher] = after
        return await _answer(unheard)

    async def delete(self, watcher: str) -> None:
        await self._reach()
        self.runs.pop(watcher, None)


async def _answer(unheard: Unheard | None) -> bool:
    await asyncio.sleep(0)
    if unheard is not None:
        raise unheard.error
    return True
