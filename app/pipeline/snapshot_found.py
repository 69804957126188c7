"""Which rows of a run are on the stream, where that may be others than were planned. An opening asks.

There are fewer where another writer went past them with changes: its capture was opened before the run began. There are
more where a chunk was cut by one instance while another one's rows were on their way.
"""

from app.domain.position import Reached
from app.domain.snapshot import Chunk, Snapshot
from app.domain.tokens import MessageId, RowPlace
from app.pipeline.run import Ports

LETTERS = 1_000
"""How many dead letters are looked through at once."""


async def other_than_planned(ports: Ports, run: Snapshot, reached: Reached) -> tuple[int, int] | None:
    """Return the number of the chunk that has more or fewer rows on the stream than it is known to have, and how many:
    what was planned after it has to be planned again. None where the stream has all that it should.

    Raises what a sink and the dead letters raise."""
    last, there = await _last_row(ports, run, reached)
    for chunk in run.chunks:
        if chunk.number == last and there is not None and there != chunk.rows:
            return last, there
        if chunk.number > last and not chunk.settled and chunk.rows and run.end(chunk) <= reached.token:
            return chunk.number, 0
    return None


async def _last_row(ports: Ports, run: Snapshot, reached: Reached) -> tuple[int, int | None]:
    """Return the last chunk that has rows on the stream, and how many; None where it has what it should, or will have.
    -1 where no chunk has any."""
    place = RowPlace.parse(reached.token)
    if place is not None and place.run == run.run:  # what is before it is there
        to_come = any(chunk.number == place.chunk and place.row < chunk.rows for chunk in run.chunks)
        return place.chunk, None if to_come else place.row + 1
    last = -1
    for chunk in reversed(run.chunks):
        if chunk.settled:
            last = max(last, chunk.number)
        elif run.place(chunk, 0) <= reached.token:
            there = await _there(ports, run, chunk, reached.epoch)
            if there is None or there:
                return chunk.number, there
    return last, None


async def _there(ports: Ports, run: Snapshot, chunk: Chunk, epoch: int) -> int | None:
    """Return how many rows of a chunk that was passed are on the stream, or among the dead letters.

    None where that cannot be told, since messages are gone. The rows are taken for published then: so they were, unless
    a writer that knows nothing of the run, a crash and a consumer that removes messages meet."""
    if await ports.sink.published(MessageId(run.place(chunk, chunk.count - 1), epoch)):
        return chunk.count
    if not (await ports.sink.following(chunk.since)).whole:
        return None
    letters, after = set[str](), 0
    while page := await ports.letters.page(after, LETTERS):
        letters |= {letter.token for letter in page}
        after = page[-1].sequence
    low, high = 0, chunk.count  # rows before `low` are there, those from `high` on are not
    while low < high:
        middle = (low + high) // 2
        row = run.place(chunk, middle)
        there = row in letters or await ports.sink.published(MessageId(row, epoch))
        low, high = (middle + 1, high) if there else (low, middle)
    return low
