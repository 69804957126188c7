"""Watchers that are added one after the other begin together, a few at a time.

Each asks the same of MongoDB: which instances live, what time it is, what positions there are. Those that ask at the
same moment share the questions (`mongodb/one_answer.py`, `mongodb/joined.py`). One that comes alone waits for nobody.
"""

import asyncio

WAVE_SECONDS = 0.1


class Waves:
    """All watchers of a process come in one sequence of waves. Make it anywhere."""

    def __init__(self, seconds: float = WAVE_SECONDS) -> None:
        self._seconds = seconds
        self._next = float("-inf")
        """When the next wave begins, by the loop's clock; one that comes later is a wave of its own."""

    async def passing(self) -> None:
        """Wait for the next wave: not at all, or for `seconds` at the most."""
        loop = asyncio.get_running_loop()
        wait = self._next - loop.time()
        if wait > 0:
            await asyncio.sleep(wait)
        self._next = max(self._next, loop.time() + self._seconds)
