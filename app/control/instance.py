"""This process as one of the instances on a state database: how far it has followed the changes, and the others have.

Each change of a watcher has a revision, and each instance stores the last one that it has carried out (decision 0010).
So a change that must not meet what it replaces waits until every other live instance has stopped the old watcher.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable

import structlog

from app.control.fallback_store import FallbackStore
from app.domain.errors import ChangewireError

log = structlog.get_logger(__name__)

TELL_SECONDS = 0.05
"""After a change: how long others that come at once are waited for, before all are told together."""
LOOK_SECONDS = 0.2
"""How often an instance that waits for the others looks how far they are."""


class Instance:
    """This process among the instances, and the last revision that it has carried out."""

    def __init__(self, store: FallbackStore, session: str) -> None:
        """`session`: random, one for each process."""
        self._store = store
        self._session = session
        self.applied = 0
        self._telling: asyncio.Task[None] | None = None

    async def arrive(self) -> bool:
        """Say that this instance is alive and has carried out nothing; True where the store is not the one used before.

        Raises as `FallbackStore.arrive`."""
        another = await self._store.arrive(self._session)
        if another:
            self.applied = -1  # what the other store has counted says nothing about this one
        return another

    async def followed(self, revision: int) -> None:
        """Store that every change up to this revision is carried out. Raises StoreUnavailable."""
        self.applied = revision
        await self._store.attend(self._session, revision)

    def carried_out(self, revision: int) -> None:
        """Note one change that this process has made and carried out; where others came before it, a round does.

        It is stored soon, and nobody waits for that: what is stored may lag, and must never lead."""
        if revision == self.applied + 1:
            self.applied = revision
            if self._telling is None or self._telling.done():
                self._telling = asyncio.create_task(self._tell(), name="instance_followed")
                self._telling.add_done_callback(_report)

    async def _tell(self) -> None:
        """Store how far this instance is, until that is what it is. Changes in quick succession are told together."""
        told = None
        with contextlib.suppress(ChangewireError):  # the next round stores it
            while told != self.applied:
                await asyncio.sleep(TELL_SECONDS)
                told = self.applied
                await self._store.attend(self._session, told)

    async def others_followed(self, waits: Callable[[], None] = lambda: None) -> bool:
        """Wait until every other live instance has carried out what is stored by now; False where none had to be
        waited for. `waits` is told when one has to be. Raises StoreUnavailable."""
        if not await self._store.behind(self._session, sys.maxsize):
            return False  # no other one lives
        revision, waited = await self._store.revision(), False
        while await self._store.behind(self._session, revision):
            if not waited:
                waits()
            waited = True
            await asyncio.sleep(LOOK_SECONDS)
            revision = min(revision, await self._store.revision())  # restored after a drop, it may count from less
        return waited

    async def leave(self) -> None:
        """Take this instance off the list, so that no other one waits for it."""
        if self._telling is not None:
            await asyncio.wait([self._telling])  # it would put it on the list again
        try:
            await self._store.leave(self._session)
        except ChangewireError as error:
            log.info("instance_not_taken_back", reason=str(error))


def _report(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error("instance_not_told", exc_info=error)
