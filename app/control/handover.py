"""How watchers come to this instance, and how they are handed over to others: what the share finds, carried out.

The share says who owns what. A watcher that has come is started as it is stored now. One that is to go drains and
stores its position, and only then the record names its next owner.
"""

import asyncio

import structlog

from app.control.fallback_store import FallbackStore
from app.control.fleet import Fleet
from app.control.runner import Runner
from app.control.share import Share
from app.domain.errors import ChangewireError
from app.domain.watcher import StoredWatcher

log = structlog.get_logger(__name__)

LET_GO_AT_ONCE = 8
"""Watchers that are handed over to other instances at the same time."""


class Handover:
    """Makes what runs here what the share says."""

    def __init__(self, store: FallbackStore, fleet: Fleet, share: Share, runner: Runner) -> None:
        self._store = store
        self._fleet = fleet
        self._share = share
        self._runner = runner
        self._shift: asyncio.Task[None] | None = None

    def carry_out(self) -> None:
        """Carry out who owns what. Returns at once: what a watcher drains may take long, and this instance has to go on
        saying that it is alive."""
        for name in self._share.leaving():
            if self._never_ran(name):
                self._share.let_go(name)
        if self._misplaced() and (self._shift is None or self._shift.done()):
            self._shift = asyncio.create_task(self._carry_out(), name="shift")
            self._shift.add_done_callback(_report)

    async def end(self) -> None:
        """Give up what is being carried out: it has nothing left to stop, and may wait for a store that does not
        answer."""
        if self._shift is not None:
            self._shift.cancel()
            await asyncio.wait([self._shift])

    def _never_ran(self, name: str) -> bool:
        """Whether a watcher that is to be handed over does not run here: it came and was to go again before it was
        started, or a process of this name has died. Nothing drains, so nothing else would let go of it."""
        task = self._fleet.get(name)
        return (task is None or task.elsewhere) and not self._runner.lock(name).locked()

    def _misplaced(self) -> list[str]:
        return [name for name in self._fleet if self._runner.misplaced(name)]

    async def _carry_out(self) -> None:
        """Let go of what others are to have, and take over what has come to this instance, as it is stored now.

        What is let go of is handed over a few at a time: the others' changes go on meanwhile, and these wait less."""
        names = [name for name in self._misplaced() if not self._runner.lock(name).locked()]
        come = [name for name in names if self._share.has(name)]
        if come:
            found = {one.name: one for one in await self._store.load()}
            self._fleet.expect(found[name] for name in come if name in found)
            await asyncio.gather(*(self._shift_one(name, found.get(name)) for name in come))
        gone = [name for name in names if not self._share.has(name)]
        for first in range(0, len(gone), LET_GO_AT_ONCE):
            await asyncio.gather(*(self._shift_one(name, None) for name in gone[first : first + LET_GO_AT_ONCE]))
            await self._share.written()

    async def _shift_one(self, name: str, stored: StoredWatcher | None) -> None:
        async with self._runner.lock(name):
            task = self._fleet.get(name)
            if task is None or self._runner.ending or not self._runner.misplaced(name):
                return
            if not task.elsewhere:
                await self._runner.run_as(task.stored)
            elif stored is not None:  # else the next round finds that it was removed
                await self._runner.run_as(stored)


def _report(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        if isinstance(error, ChangewireError):
            log.info("handover_delayed", reason=str(error))  # the next look tries again
        else:
            log.error("handover_error", exc_info=error)
