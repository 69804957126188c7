"""What a watcher weighs: its events per second, smoothed, and when a change of it is worth telling others.

A weight decides which instance runs a watcher (`placement.py`). A burst of some seconds must not move anything, so the
rate follows what is measured over minutes. Each weight that is told is a write that all instances read, so small
changes are not told.
"""

import math
from typing import Final

FLOOR: Final = 1.0
"""The least weight in events/s. A watcher without changes still costs its instance a position and some commands."""
SMOOTHED_OVER_SECONDS: Final = 300.0
"""After so long, 63 % of a lasting change of the rate has arrived in the smoothed one, after three times that 95 %."""
FACTOR: Final = 1.5
"""A weight is told again once it is so many times larger or smaller than the one that was told."""


class Smoothed:
    """A rate in events/s that forgets exponentially: how old an event is counts, not in how many steps it was added."""

    __slots__ = ("_rate", "_waiting")

    def __init__(self, start: float = FLOOR) -> None:
        """Begin at `start` events/s: what was told before. So a watcher keeps its weight when it moves."""
        self._rate = max(FLOOR, start)
        self._waiting = 0

    def add(self, count: int, seconds: float) -> None:
        """Count `count` events of the last `seconds`. Where no time has passed, they count with the next ones."""
        self._waiting += count
        if seconds <= 0:
            return
        kept = math.exp(-seconds / SMOOTHED_OVER_SECONDS)
        self._rate = self._rate * kept + self._waiting / seconds * (1.0 - kept)
        self._waiting = 0

    @property
    def weight(self) -> float:
        """The smoothed events/s, at least `FLOOR`."""
        return max(FLOOR, self._rate)


def worth_telling(told: float, now: float) -> bool:
    """Return whether a weight has changed so much that the others should know. Both are in events/s."""
    told, now = max(FLOOR, told), max(FLOOR, now)
    return now >= told * FACTOR or told >= now * FACTOR
