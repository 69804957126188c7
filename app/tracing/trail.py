"""How a run's changes are followed from span to span: the read that brought them, the publish, the stored position.

Tokens of one deployment compare in stream order, so they tell which read a change came with, and which publishes a
stored position covers. What is remembered is what has not come to its end, a few spans at the most.
"""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from app.domain.errors import ChangewireError
from app.domain.tokens import is_row
from app.ports.tracer import Span

_MOST = 64
"""More batches than are ever on their way at once. Reads whose changes are all left out are never asked for."""


class Trail:
    """One run's. The source adds what is read, the sink asks for it and adds what is published."""

    def __init__(self) -> None:
        self.opening: Span | None = None
        """The opening that is under way. One that is given up without an error ends nowhere, and is never told: a
        standby makes one each second."""
        self._reads: deque[tuple[str, Span]] = deque(maxlen=_MOST)
        self._published: deque[tuple[str, Span]] = deque(maxlen=_MOST)

    def opened(self, error: BaseException | None) -> None:
        """The opening has ended, with this error if it failed."""
        if self.opening is not None:
            self.opening.end(error)
            self.opening = None

    @contextmanager
    def failing(self) -> Iterator[None]:
        """The opening fails with an error from within."""
        try:
            yield
        except ChangewireError as error:
            self.opened(error)
            raise

    def was_read(self, position: str, span: Span) -> None:
        """Changes up to this token were read, all that came after the last read's."""
        self._reads.append((position, span))

    def reads_of(self, first: str, last: str) -> list[Span]:
        """Return the reads that brought the changes from one token to another, oldest first. Those before are
        forgotten: changes are published in their order. A row of a snapshot comes with none of them."""
        if is_row(first):
            return []
        while self._reads and self._reads[0][0] < first:
            self._reads.popleft()
        found = []
        for position, span in self._reads:
            found.append(span)
            if position >= last:
                break
        return found

    def was_published(self, last: str, span: Span) -> None:
        """Changes up to this token were published."""
        self._published.append((last, span))

    def published_before(self, position: str) -> Span | None:
        """Return the last publish that a position covers; those before are forgotten. None where there is no new
        one."""
        found = None
        while self._published and self._published[0][0] <= position:
            found = self._published.popleft()[1]
        return found
