"""Which collection makes a feed stay behind the server."""

from collections import Counter
from typing import Final

BEHIND_SECONDS: Final = 1.0
"""Where the server has had more for so long, the others wait for the one that most of it is for."""
MOST: Final = 1 / 2
"""The part of the events since then that has to be one collection's."""


class Hot:
    """Counts what comes by collection while a feed is behind."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._came: Counter[str] = Counter()

    def came(self, collection: str, count: int) -> None:
        self._came[collection] += count

    def found(self, now: float, *, caught_up: bool) -> str | None:
        """Return the collection that most of what came is for, where the feed has been behind for long, once.

        `now` is the loop's clock, in seconds. It is asked after each batch."""
        if caught_up or self._since is None:
            self._since = None if caught_up else now
            self._came.clear()
            return None
        if now - self._since < BEHIND_SECONDS or not self._came:
            return None
        (collection, most), all_of_them = self._came.most_common(1)[0], self._came.total()
        self._since = None
        return collection if most >= MOST * all_of_them else None
