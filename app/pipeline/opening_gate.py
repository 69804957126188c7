"""How many watchers look where to go on at the same time.

A service that starts opens all its watchers. Each asks both servers a dozen questions, and a thousand that ask at once
wait for each other until their questions time out. So only some are let through at a time. One that takes long, because
its stream does not answer, does not keep the others waiting: after a moment it no longer counts.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

AT_ONCE = 32
"""So many keep both servers busy."""
COUNTS_SECONDS = 1.0
"""For how long one counts. With nothing in the way an opening takes some milliseconds."""


class OpeningGate:
    """All watchers of a process go through one."""

    def __init__(self, at_once: int = AT_ONCE, counts_seconds: float = COUNTS_SECONDS) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._counts_seconds = counts_seconds

    @asynccontextmanager
    async def passing(self) -> AsyncIterator[None]:
        """Within, an opening is one of those that may ask."""
        await self._free.acquire()
        counts = True

        def leave() -> None:
            nonlocal counts
            if counts:
                counts = False
                self._free.release()

        later = asyncio.get_running_loop().call_later(self._counts_seconds, leave)
        try:
            yield
        finally:
            later.cancel()
            leave()
