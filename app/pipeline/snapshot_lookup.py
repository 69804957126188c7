"""Looks for a snapshot's rows on the stream, where its position alone does not tell which of them are there.

They are seldom needed: where another writer went past rows that were to come, and where rows that were sent before
their chunk was cut arrived after all.
"""

from app.domain.position import Reached
from app.domain.snapshot import Chunk, Snapshot
from app.domain.tokens import MessageId, RowPlace
from app.pipeline.run import Run

LETTERS = 1_000
"""How many dead letters are looked through at once."""


class RowLookup:
    """One watcher's."""

    def __init__(self, run: Run) -> None:
        self._sink = run.ports.sink
        self._letters = run.ports.letters

    async def overtaken(self, run: Snapshot, reached: Reached) -> tuple[int, int] | None:
        """Return the first chunk that another writer went past with changes before all of its rows were on the stream,
        and how many are there; None where there is no such chunk. Raises what a sink raises.

        Where messages from there on are gone, the rows are taken for published: so they were, unless a writer that
        knows nothing of the run, a crash and a consumer that removes messages meet."""
        place, found = RowPlace.parse(reached.token), None
        if not run.running or (place is not None and place.run == run.run):
            return None  # where the last message is a row of the run, what is before it is there
        for chunk in reversed(run.chunks):
            if chunk.settled or run.end(chunk) > reached.token or not chunk.rows:
                continue
            there = await self._there(run, chunk, reached.epoch)
            if there == chunk.rows:
                break
            found = chunk.number, there
            if there:
                break
        return found

    async def _there(self, run: Snapshot, chunk: Chunk, epoch: int) -> int:
        """Return how many rows of a chunk that was passed are on the stream, or among the dead letters."""
        sink = self._sink
        if await sink.published(MessageId(run.end(chunk), epoch)) or not (await sink.following(chunk.since)).whole:
            return chunk.rows
        letters, after = set[str](), 0
        while page := await self._letters.page(after, LETTERS):
            letters |= {letter.token for letter in page}
            after = page[-1].sequence
        low, high = 0, chunk.rows  # rows before `low` are there, those from `high` on are not
        while low < high:
            middle = (low + high) // 2
            row = run.place(chunk, middle)
            there = row in letters or await sink.published(MessageId(row, epoch))
            low, high = (middle + 1, high) if there else (low, middle)
        return low


def arrived_late(run: Snapshot, reached: Reached) -> tuple[int, int] | None:
    """Return which chunk was cut before rows of it arrived that were sent earlier, and how many rows it has now."""
    place = RowPlace.parse(reached.token)
    if place is None or place.run != run.run:
        return None
    chunk = next((each for each in run.chunks if each.number == place.chunk), None)
    if chunk is None or chunk.cut is None or place.row < chunk.rows:
        return None
    return chunk.number, place.row + 1
