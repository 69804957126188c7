"""The store of watchers, in memory where the account may not use the state database.

mongodb-nats-connector has no state database, so an account that was made for it has no right to one. The watchers of
its file do not need one: they are in the file, and their positions are where the connector keeps them. So these
watchers run, and changes over HTTP are refused with the reason. As soon as the right is granted the state database
takes over. Meanwhile instances do not know of each other; the fence on the stream keeps them apart.
"""

from collections.abc import Sequence
from dataclasses import replace

import structlog

from app.domain.errors import NotFound, StateOutOfReach
from app.domain.overlap_index import OverlapIndex
from app.domain.snapshot import Snapshot
from app.domain.watcher import StoredWatcher
from app.ports import Check, WatcherStore

log = structlog.get_logger(__name__)


class FallbackStore:
    """`WatcherStore`: the state database, or memory in its place. Memory holds the file's watchers alone."""

    def __init__(self, store: WatcherStore, *, possible: bool) -> None:
        """`possible`: there is a file with watchers, so that there is something to run without the state database."""
        self._store = store
        self._possible = possible
        self._memory: dict[str, StoredWatcher] = {}
        self._revision = 0
        self.out_of_reach: str | None = None
        """Why memory is used; None while the state database is used."""

    async def arrive(self, instance: str) -> bool:
        """Say that an instance is alive that has loaded nothing yet; True where the store is another one than before.

        Raises StoreUnavailable, and NotAuthorised where memory cannot take its place."""
        before = self.out_of_reach
        try:
            await self._store.attend(instance, 0)
        except StateOutOfReach as error:
            if not self._possible:
                raise
            self.out_of_reach = str(error)
            if before is None:
                log.warning("state_database_out_of_reach", reason=str(error))
        else:
            self.out_of_reach = None
            if before is not None:
                log.info("state_database_within_reach")
        changed = (before is None) is not (self.out_of_reach is None)
        if changed:
            self._memory, self._revision = {}, 0
        return changed

    async def load(self) -> list[StoredWatcher]:
        return await self._store.load() if self.out_of_reach is None else list(self._memory.values())

    async def get(self, name: str) -> StoredWatcher | None:
        return await self._store.get(name) if self.out_of_reach is None else self._memory.get(name)

    async def revision(self) -> int:
        return await self._store.revision() if self.out_of_reach is None else self._revision

    async def check(self, check: Check) -> None:
        if self.out_of_reach is None:
            await self._store.check(check)
        else:
            check(OverlapIndex(self._memory.values()))

    async def insert(self, stored: StoredWatcher, check: Check | None = None) -> StoredWatcher:
        return (await self.insert_all([stored], check))[0]

    async def insert_all(
        self, wanted: Sequence[StoredWatcher], check: Check | None = None, runs: Sequence[Snapshot] = ()
    ) -> list[StoredWatcher]:
        if self.out_of_reach is None:
            return await self._store.insert_all(wanted, check, runs)
        self._revision += 1
        added = [replace(one, revision=self._revision, added=self._revision) for one in wanted]
        self._memory |= {one.name: one for one in added}
        return added

    async def replace(
        self, stored: StoredWatcher, *, expected_revision: int, check: Check | None = None
    ) -> StoredWatcher:
        if self.out_of_reach is None:
            return await self._store.replace(stored, expected_revision=expected_revision, check=check)
        return self._keep(stored)

    async def began(self, name: str, revision: int) -> None:
        if self.out_of_reach is None:
            await self._store.began(name, revision)
        elif name in self._memory and self._memory[name].revision == revision:
            self._memory[name] = replace(self._memory[name], new_start=False, begin=None)

    async def delete(self, name: str, *, expected_revision: int | None = None) -> int:
        if self.out_of_reach is None:
            return await self._store.delete(name, expected_revision=expected_revision)
        if self._memory.pop(name, None) is None:
            raise NotFound(f"there is no watcher {name}")
        self._revision += 1
        return self._revision

    async def restore(self, lost: Sequence[StoredWatcher], applied: int) -> bool:
        return await self._store.restore(lost, applied) if self.out_of_reach is None else False

    async def attend(self, instance: str, applied: int) -> None:
        if self.out_of_reach is None:
            await self._store.attend(instance, applied)

    async def leave(self, instance: str) -> None:
        if self.out_of_reach is None:
            await self._store.leave(instance)

    async def behind(self, instance: str, revision: int) -> int:
        return await self._store.behind(instance, revision) if self.out_of_reach is None else 0

    def _keep(self, stored: StoredWatcher) -> StoredWatcher:
        self._revision += 1
        kept = self._memory[stored.name] = replace(stored, revision=self._revision)
        return kept
