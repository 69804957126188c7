"""Moving a watcher's position on purpose: rewind, skip, start over, carry over to another stream.

Each move begins a new epoch, so that what is published again has ids of its own and what was published before no longer
counts. Not its business: whether the watcher stands still, which the registry sees to.
"""

from app.domain.errors import FieldProblem as Problem
from app.domain.errors import HistoryLost, Invalid, StreamRefused, TokenRefused
from app.domain.position import Checkpoint, Tail, latest, next_epoch
from app.domain.status import TokenView
from app.domain.tokens import cluster_time
from app.domain.watcher import Start, Watcher
from app.world import World


class Positions:
    """Stored positions, read and moved."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def view(self, watcher: Watcher) -> TokenView:
        """Return the stored position. Raises StoreUnavailable, NotAuthorised."""
        stored = await self._world.mongo.checkpoints(watcher).read()
        if stored is None:
            return TokenView(None, None, None, 0, None)
        return TokenView(
            token=stored.token,
            cluster_time=float(cluster_time(stored.token).seconds),
            stream_sequence=stored.sequence,
            epoch=stored.epoch or 0,
            updated_at=stored.updated_at,
        )

    async def move(self, watcher: Watcher, start: Start) -> TokenView:
        """Store a new position in a new epoch. Raises Invalid for a position that cannot be, and what servers raise."""
        token = await self.locate(watcher, start)
        return await self._begin(watcher, token, watcher)

    async def carry_over(self, before: Watcher, after: Watcher) -> None:
        """Let a watcher that publishes or keeps its position elsewhere from now on go on there from where it is."""
        if _where(before) == _where(after):
            return
        token = latest(await self._world.mongo.checkpoints(before).read(), await self._tail(before))
        if token is not None:
            await self._begin(before, token, after)

    async def locate(self, watcher: Watcher, start: Start) -> str:
        """Return the token of a start position as of now, changing nothing. Raises Invalid, and what servers raise."""
        if start.at == "token":
            await self._world.mongo.check_token(watcher, str(start.value))
        source = self._world.mongo.source(watcher)
        try:
            await source.prepare(may_create=False)
            return await source.locate(start)
        except (HistoryLost, TokenRefused) as error:
            raise Invalid(problems=(Problem(f"start.{start.at}", str(error)),)) from error
        finally:
            await source.close()

    async def _begin(self, before: Watcher, token: str, after: Watcher) -> TokenView:
        checkpoints = self._world.mongo.checkpoints(before)
        tails = [await self._tail(before)] + ([await self._tail(after)] if after != before else [])
        stored = await checkpoints.read()
        epoch = max(next_epoch(stored, tail) for tail in tails)
        source = self._world.mongo.source(after)
        try:
            await source.prepare()
            scope = source.scope
        finally:
            await source.close()
        moved = Checkpoint(
            token=token, epoch=epoch, scope=scope, watcher=after.name, updated_at=self._world.clock()
        )  # no sequence, no stream: nothing of this epoch is on any stream yet
        await self._world.mongo.checkpoints(after).begin(moved)
        return await self.view(after)

    async def _tail(self, watcher: Watcher) -> Tail | None:
        sink = self._world.nats.sink(watcher)
        try:
            await sink.prepare(may_create=False)
            return await sink.tail()
        except StreamRefused:
            return None  # there is no such stream, so nothing was ever published in any epoch
        finally:
            await sink.close()


def _where(watcher: Watcher) -> tuple[str, ...]:
    """All that a position is told by: stream, subject space, checkpoint collection."""
    return watcher.sink.stream, watcher.space, watcher.checkpoint.namespace
