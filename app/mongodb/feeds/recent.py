"""What a feed handed over last, kept for a moment for those who are about to join.

A watcher that catches up by a stream of its own is always a little behind the feed while others write, since its reply
is on the way. It joins from where it is, and is given what is kept and later.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from app.domain.parts import Part
from app.mongodb.feeds import parts

KEPT_BYTES: Final = 512 * 1024
KEPT_SECONDS: Final = 2.0


class Kept(NamedTuple):
    """A batch that was handed over."""

    after: str
    """The feed's position before it."""
    parts: Sequence[Part]
    reduced: tuple[str, ...]
    size: int
    """In bytes."""
    at: float
    """When it was handed over, by the loop's clock, in seconds."""


class Recent:
    """The last batches without a gap, so many bytes and so old at most."""

    def __init__(self) -> None:
        self._batches: deque[Kept] = deque()
        self._size = 0

    def reaches_back(self, position: str) -> str:
        """Return the earliest position after which everything is kept, up to the feed's position."""
        return self._batches[0].after if self._batches else position

    def add(self, batch: Kept) -> None:
        """Keep a batch; drop what is too old, and what is beyond the bound."""
        self._batches.append(batch)
        self._size += batch.size
        while self._batches and (self._size > KEPT_BYTES or self._batches[0].at < batch.at - KEPT_SECONDS):
            self._size -= self._batches.popleft().size

    def of(self, database: str, collection: str) -> Iterator[tuple[Part, tuple[str, ...]]]:
        """Return what is a collection's, in its order, with what was reduced in it."""
        name = database, collection
        for batch in self._batches:
            for part in batch.parts:
                if name == part[:2] or (not part.collection and name in parts.concerned(part.events[0])):
                    yield part, batch.reduced

    def clear(self) -> None:
        self._batches.clear()
        self._size = 0
