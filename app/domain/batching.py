"""How many changes are published at once: fewer after a refusal, slowly more after successes.

A stream that is nearly full refuses a whole batch, though it has room for a part of it; a server may be configured to
take smaller batches than others. Neither is told beforehand. What was learnt is kept over the openings of a watcher
(`pipeline/run_state.py`), so that a large batch is not sent in vain again at each of them.
"""

from dataclasses import dataclass
from typing import Final

MAX_MESSAGES: Final = 1000
"""The most that JetStream takes in one atomic batch where it is not configured otherwise."""
STEADY: Final = 4
"""Batches of full size that have to pass before a size that was refused once is approached by another step."""
PROBE: Final = 1000
"""Batches of full size after which a limit that the server told is tried again: it may have been raised."""


@dataclass(slots=True)
class BatchSize:
    """The size of the next batch. It doubles up to what is known to pass, and beyond that grows by an eighth."""

    count: int = MAX_MESSAGES
    _safe: int = MAX_MESSAGES
    """Up to here growing may be fast: no batch of this size was refused since a larger one was."""
    _most: int = MAX_MESSAGES
    """What the server says it takes."""
    _passed: int = 0
    """Batches of full size in a row."""

    def refused(self, tried: int, limit: int | None = None) -> None:
        """A batch of `tried` was refused as a whole; `limit` is what the server says it takes instead."""
        self._passed = 0
        if limit is not None and 0 < limit < tried:
            self._most = limit
            self._safe = min(self._safe, limit)
            self.count = limit
        else:
            self.count = self._safe = max(1, tried // 2)

    def doubted(self, tried: int) -> None:
        """The outcome of a batch of `tried` is unknown: a smaller one says more, whatever the reason is."""
        self._passed = 0
        self.count = max(1, min(self.count, tried // 2))

    def stored(self, count: int) -> None:
        """A batch passed. One smaller than it might have been says nothing."""
        if count < self.count:
            return
        if self.count < self._safe:
            self.count = min(self._safe, self.count * 2)
            return
        self._passed += 1
        if self.count < self._most:
            if self._passed >= STEADY:
                self._passed = 0
                self.count = self._safe = min(self._most, self.count + max(1, self.count // 8))
        elif self._most < MAX_MESSAGES and self._passed >= PROBE:
            self._passed = 0
            self.count = self._safe = self._most = MAX_MESSAGES
