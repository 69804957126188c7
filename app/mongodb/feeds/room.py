"""How many bytes may wait in the feeds of a process for watchers to take them.

A feed that holds nothing may always read. Else it waits while it holds too much itself, or all of them together do.
"""

import asyncio
from typing import Final

TOTAL_BYTES: Final = 48 * 1024 * 1024
"""For all feeds of a process: a service may watch many databases."""


class Room:
    """What waits in all feeds."""

    def __init__(self, total: int = TOTAL_BYTES) -> None:
        self.held = 0
        self._total = total
        self._freed = asyncio.Event()

    @property
    def is_full(self) -> bool:
        return self.held >= self._total

    def change(self, size: int) -> None:
        """Count so many bytes more, or less."""
        self.held += size
        if size < 0:
            self._freed.set()

    async def freed(self, seconds: float) -> None:
        """Wait until something was taken, or dropped, anywhere; for so long at most."""
        self._freed.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._freed.wait()
        except TimeoutError:
            return
