"""How often the position of a watcher without changes is stored: seldom, and well before it falls out of the oplog.

How soon it falls out depends on what others write, and that can change from one second to the next. How far the oplog
reaches back says it too late: an oplog of three days that is being overwritten within a minute still holds two days
after twenty seconds. So what counts is how fast it moves: how much it has grown since the last look, and how much of
its beginning has gone.
"""

import math
import random
from dataclasses import dataclass
from typing import Final

from app.domain.lag import Oplog

KNOWN_SECONDS: Final = 60.0
"""The time between two quiet checkpoints at most, where it is known how far the oplog reaches back."""
UNKNOWN_SECONDS: Final = 10.0
"""The same where that is not known: the account may not read the oplog, or mongos has none."""
SHARE: Final = 20
"""A position is stored at least this many times while the oplog turns over once."""
SHORT_SECONDS: Final = 600.0
"""An oplog that turns over in less than this is looked at often."""
SMALL: Final = 1024**3
"""Bytes: so is one of fewer, since a server can write that much within seconds."""
_JITTER: Final = 0.25


@dataclass(slots=True)
class QuietPace:
    """What all watchers of a process know of the oplog."""

    seconds: float = UNKNOWN_SECONDS
    hasty: bool = False
    """Whether the oplog has to be looked at often."""
    _last: tuple[float, Oplog] | None = None

    def oplog_seen(self, oplog: Oplog | None, operation_time: int, now: float) -> None:
        """Take how the oplog is at this moment (in seconds of any clock that does not jump); None: not known."""
        last, self._last = self._last, None if oplog is None else (now, oplog)
        if oplog is None:
            self.seconds, self.hasty = UNKNOWN_SECONDS, False
            return
        turnover = float(max(0, operation_time - oplog.first)) if oplog.full else math.inf
        if last is not None and now > last[0]:
            turnover = min(turnover, _turnover(oplog, last[1], operation_time, now - last[0]))
        self.seconds = min(KNOWN_SECONDS, turnover / SHARE)
        self.hasty = turnover < SHORT_SECONDS or 0 < oplog.most < SMALL

    def draw(self) -> float:
        """Return the share of `seconds` that a watcher waits, drawn at random so that not all write at once."""
        return 1.0 - _JITTER * random.random()


def _turnover(oplog: Oplog, before: Oplog, operation_time: int, elapsed: float) -> float:
    """Return in how many seconds the whole oplog is another one, if it goes on as in the last `elapsed` seconds."""
    window, gone, grown = operation_time - oplog.first, oplog.first - before.first, oplog.size - before.size
    by_its_begin = max(0, window) * elapsed / gone if gone > 0 else math.inf
    by_its_size = oplog.most * elapsed / grown if grown > 0 and oplog.most else math.inf
    return min(by_its_begin, by_its_size)
