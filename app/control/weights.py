"""How much the watchers of this instance weigh: measured here, and told to the others where it changes much.

Who owns which watcher follows from these weights (`domain/placement.py`). They are in the record of the owners, so that
every instance plans with the same ones, and the next owner of a watcher goes on from what the one before has told.
"""

import asyncio
from collections.abc import Mapping
from typing import Final

from app.control.fleet import Watched
from app.control.share import Share
from app.domain.measured import Smoothed

MEASURE_SECONDS: Final = 10.0


class Weights:
    """The changes per second of the watchers that this instance owns, smoothed over minutes."""

    def __init__(self, share: Share, own: Mapping[str, Watched]) -> None:
        self._share = share
        self._own = own
        self._smoothed: dict[str, Smoothed] = {}
        self._counted: dict[str, int] = {}
        """Up to where the changes of each watcher are counted."""
        self._measured_at: float | None = None

    async def run(self) -> None:
        """Measure and tell, until cancelled."""
        while True:
            self.measure(asyncio.get_running_loop().time())
            await asyncio.sleep(MEASURE_SECONDS)

    def measure(self, now: float) -> None:
        """Count what has come since the last time; `now` is in seconds."""
        seconds = 0.0 if self._measured_at is None else now - self._measured_at
        self._measured_at = now
        if self._share.store is None:
            return
        before, self._counted = self._counted, {}
        for name, watched in self._own.items():
            total = watched.statistics.published + watched.statistics.skipped
            self._counted[name] = total
            if name not in before or name not in self._smoothed or total < before[name]:
                owner = self._share.owners.get(name)
                self._smoothed[name] = Smoothed() if owner is None else Smoothed(owner.weight)
            else:
                self._smoothed[name].add(total - before[name], seconds)
        self._smoothed = {name: self._smoothed[name] for name in self._counted}
        self._share.weigh({name: smoothed.weight for name, smoothed in self._smoothed.items()})
