"""How one watcher is made to run as it is stored: started, paused, refused, or left to the instance that owns it.

Everything that is done to one watcher is done under its lock, except at shutdown.
"""

import asyncio
from weakref import WeakValueDictionary

from app.control.admission import Rules
from app.control.fleet import Fleet
from app.control.share import Share
from app.domain.lifecycle import Desired
from app.domain.watcher import StoredWatcher


class Runner:
    """Starts and stops the watchers of a fleet. The caller holds the watcher's lock."""

    def __init__(self, fleet: Fleet, share: Share, rules: Rules) -> None:
        self._fleet = fleet
        self._share = share
        self._rules = rules
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.ending = False
        """Whether the service stops: nothing is started any more."""

    def lock(self, name: str) -> asyncio.Lock:
        return self._locks.setdefault(name, asyncio.Lock())

    def misplaced(self, name: str) -> bool:
        """Whether a watcher runs here that another instance is to run, or the reverse."""
        return self._fleet[name].elsewhere is self._share.has(name)

    def differs(self, name: str, stored: StoredWatcher | None) -> bool:
        """Whether a watcher does not run here as it is stored; None where it is not."""
        task = self._fleet.get(name)
        if task is None or stored is None:
            return task is not None or stored is not None
        return task.over or task.stored.revision != stored.revision or self.misplaced(name)

    async def run_as_stored(self, stored: StoredWatcher) -> None:
        if self.differs(stored.name, stored):
            await self.run_as(stored)

    async def run_as(self, stored: StoredWatcher) -> None:
        task = self._fleet.get(stored.name)
        if task is not None and not task.elsewhere:
            await self._fleet.stop(stored.name)
        self.launch(stored)
        if task is not None and not task.elsewhere and not self._share.has(stored.name):
            self._share.let_go(stored.name)

    def launch(self, stored: StoredWatcher) -> None:
        """Start a watcher as it is stored, let it be paused, or refuse it with the reason."""
        if self.ending:
            return
        if not self._share.has(stored.name):
            self._fleet.rest(stored, refused=self.fault(stored) is not None)
            return
        task = self._fleet.adopt(stored)
        fault = self.fault(stored)
        if fault is not None:
            task.refuse(fault)
        elif stored.desired is Desired.RUNNING:
            task.start()
        else:
            task.pause()

    def fault(self, stored: StoredWatcher) -> str | None:
        return self._rules.fault(stored, self._fleet)
