"""How many bytes of events a process holds between reading and acknowledgement, whatever it watches.

Counts bound nothing where a document may have 16 MB. So each watcher has a small share of its own, and all of them have
one memory budget together. A reader that finds either used up waits until something was published. A watcher that holds
nothing may always read one batch, so one whose messages cannot be published never keeps another from its own.
"""

import asyncio

SHARE_BYTES = 8 * 1024 * 1024
"""What one watcher may hold before it reads on; two batches of what JetStream takes at once (4 MiB)."""
TOTAL_BYTES = 64 * 1024 * 1024
"""What all watchers of a process may hold before one that holds something reads on."""


class MemoryBudget:
    """The bytes that all watchers of a process hold. Each has its `Share`."""

    def __init__(self, total: int = TOTAL_BYTES) -> None:
        self.total = total
        self.held = 0
        self._waiting: set[asyncio.Future[None]] = set()

    def share(self, limit: int = SHARE_BYTES) -> "Share":
        """A watcher's part of it, holding nothing yet."""
        return Share(self, limit)

    def change(self, size: int) -> None:
        """Count `size` bytes more (or less); who waits looks again where it is less."""
        self.held += size
        if size < 0:
            waiting, self._waiting = self._waiting, set()
            for each in waiting:
                if not each.done():
                    each.set_result(None)

    async def changed(self) -> None:
        """Wait until something was given back."""
        waiting = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await waiting
        finally:
            self._waiting.discard(waiting)


class Share:
    """What one run of a watcher holds."""

    def __init__(self, memory_budget: MemoryBudget, limit: int) -> None:
        self._memory_budget = memory_budget
        self._limit = limit
        self.held = 0

    @property
    def room(self) -> bool:
        """Whether another batch may be read now."""
        return not self.held or (self.held < self._limit and self._memory_budget.held < self._memory_budget.total)

    async def until_room(self) -> None:
        """Wait until another batch may be read."""
        while not self.room:
            await self._memory_budget.changed()

    def take(self, size: int) -> None:
        """Hold `size` bytes more."""
        self.held += size
        self._memory_budget.change(size)

    def give_back(self, size: int) -> None:
        """Hold `size` bytes less: they are published, or the run is over."""
        self.held -= size
        self._memory_budget.change(-size)

    def give_all_back(self) -> None:
        """Hold nothing any longer: the run is over."""
        self.give_back(self.held)
