"""What is stored, for the rounds of one process; and stored again where somebody has dropped it.

Every removal counts itself in the store's revision. So watchers that are all gone, without a revision that this process
has not seen, were dropped by hand with their collection. They go on, and are stored again, unless they are back after a
moment: a backup that is restored drops a collection before it fills it.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import structlog

from app.control.fallback_store import FallbackStore
from app.control.fleet import Fleet
from app.control.instance import Instance
from app.control.owners_record import REFILLED_SECONDS
from app.control.share import Share
from app.domain.watcher import StoredWatcher

log = structlog.get_logger(__name__)


class StoredWatchers:
    """Reads them. Every method that is awaited raises what the store raises."""

    def __init__(
        self, store: FallbackStore, instance: Instance, fleet: Fleet, share: Share, *, refilled_seconds: float
    ) -> None:
        """`refilled_seconds`: for how long watchers that are gone may come back, at most `REFILLED_SECONDS`."""
        self._store = store
        self._instance = instance
        self._fleet = fleet
        self._share = share
        self._refilled_seconds: Final = min(REFILLED_SECONDS, refilled_seconds)
        self._looked_at = 0
        self._found = False
        """Whether the last round has found any watcher, or one was added since. Where not, those that run here still
        were removed by a change that is not carried out yet, and are not lost."""

    @property
    def counted(self) -> int:
        """The last revision that this process has followed."""
        return max(self._looked_at, self._instance.applied)

    def followed(self, revision: int, *, found: bool) -> None:
        """A round has come to its end: it began at this revision, and has found watchers or none."""
        self._looked_at, self._found = revision, found

    def added(self) -> None:
        """A watcher was added since the last round."""
        self._found = True

    def start_over(self) -> None:
        """The store is another one than before."""
        self._looked_at = -1

    async def _read(self) -> tuple[int, list[StoredWatcher]]:
        return await self._store.revision(), await self._store.load()

    def lost(self, stored: Sequence[StoredWatcher], revision: int) -> bool:
        """Whether the store has lost all watchers. A removal that is counted after `revision` was read looks the same,
        so the store looks again before it restores any."""
        if self._share.outdated is not None:
            return False
        return self._found and not stored and revision <= self.counted and bool(self._fleet)

    async def read_or_restore(self) -> tuple[int, list[StoredWatcher]]:
        """Return a revision, and what is stored at it or later. What is lost is stored again by then."""
        revision, stored = await self._read()
        if self.lost(stored, revision):
            await asyncio.sleep(self._refilled_seconds)
            revision, stored = await self._read()
        if self.lost(stored, revision):
            await self._restore()
            revision, stored = await self._read()
        return revision, stored

    async def _restore(self) -> None:
        """Store the watchers of this process again, unless another instance was faster."""
        known = [task.stored for task in self._fleet.values()]
        if await self._store.restore(known, self.counted):
            log.error("registry_restored", watchers=[one.name for one in known])
