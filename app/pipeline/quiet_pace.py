"""How often the position of a watcher without changes is stored: seldom, and well before it falls out of the oplog."""

import random
from dataclasses import dataclass
from typing import Final

KNOWN_SECONDS: Final = 60.0
"""The time between two quiet checkpoints at most, where it is known how far the oplog reaches back."""
UNKNOWN_SECONDS: Final = 10.0
"""The same where that is not known: the account may not read the oplog, or mongos has none."""
SHARE: Final = 20
"""A position is stored at least this many times while the oplog turns over once."""
_JITTER: Final = 0.25


@dataclass(slots=True)
class QuietPace:
    """What all watchers of a process know of the oplog."""

    seconds: float = UNKNOWN_SECONDS

    def oplog_seen(self, window: float | None) -> None:
        """Take how many seconds the oplog holds; None: not known. Infinity: no entry gives way yet."""
        self.seconds = UNKNOWN_SECONDS if window is None else min(KNOWN_SECONDS, max(0.0, window) / SHARE)

    def draw(self) -> float:
        """Return the share of `seconds` that a watcher waits, drawn at random so that not all write at once."""
        return 1.0 - _JITTER * random.random()
