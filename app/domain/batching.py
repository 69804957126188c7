"""How many changes are published at once: fewer after a refusal, slowly more after successes.

A stream that is nearly full refuses a whole batch, even if a part of it would fit. A server may be configured to accept
smaller batches only. Neither is announced. The learned size is kept over the openings of a watcher, so that not every
opening sends a large batch in vain.
"""

from dataclasses import dataclass
from typing import Final

MAX_MESSAGES: Final = 1000
"""The most messages that JetStream accepts in one atomic batch by default."""
STEADY: Final = 4
"""How many batches of full size have to pass before the size takes another step towards one that was refused."""
PROBE: Final = 1000
"""After so many batches of full size, a limit that the server announced is tried again: it may have been raised."""


@dataclass(slots=True)
class BatchSize:
    """The size of the next batch. It doubles up to what is known to pass, and beyond that grows by an eighth."""

    count: int = MAX_MESSAGES
    _safe: int = MAX_MESSAGES
    """Up to this size growth is fast: no batch of this size was refused after a larger one was."""
    _most: int = MAX_MESSAGES
    """The server's announced limit."""
    _passed: int = 0
    """Batches of full size in a row."""

    def refused(self, tried: int, limit: int | None = None) -> None:
        """A batch of `tried` was refused as a whole; `limit` is the server's announced limit."""
        self._passed = 0
        if limit is not None and 0 < limit < tried:
            self._most = limit
            self._safe = min(self._safe, limit)
            self.count = limit
        else:
            self.count = self._safe = max(1, tried // 2)

    def unanswered(self, tried: int) -> None:
        """The outcome of a batch of `tried` is unknown: a smaller batch tells more, whatever the reason is."""
        self._passed = 0
        self.count = max(1, min(self.count, tried // 2))

    def stored(self, count: int) -> None:
        """A batch was stored. One smaller than the allowed size says nothing about the limit."""
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
