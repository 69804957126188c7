"""A store of positions whose writes are traced: each follows the last publish that the position covers."""

from app.domain.position import Checkpoint, OwnMessage
from app.domain.watcher import Watcher
from app.ports import CheckpointStore
from app.ports.tracer import Span, Tracer
from app.tracing.trail import Trail


class TracedCheckpoints:
    """`CheckpointStore`: another one, traced."""

    def __init__(self, store: CheckpointStore, watcher: Watcher, tracer: Tracer, trail: Trail) -> None:
        self._store = store
        self._tracer = tracer
        self._trail = trail
        self._attributes: dict[str, str | int] = {"changewire.watcher": watcher.name, "db.system.name": "mongodb"}

    async def check(self) -> None:
        await self._store.check()

    async def read(self) -> Checkpoint | None:
        with self._trail.failing():
            return await self._store.read()

    async def create(self, checkpoint: Checkpoint) -> bool:
        return await self._store.create(checkpoint)

    async def advance(self, checkpoint: Checkpoint) -> bool:
        span = self._begin(checkpoint)
        try:
            stored = await self._store.advance(checkpoint)
        except BaseException as error:
            span.end(error)
            raise
        span.end()
        return stored

    async def keep_unsettled(self, unsettled: tuple[OwnMessage, ...], epoch: int) -> None:
        await self._store.keep_unsettled(unsettled, epoch)

    async def uncount(self, epoch: int) -> None:
        await self._store.uncount(epoch)

    async def begin(self, checkpoint: Checkpoint) -> bool:
        return await self._store.begin(checkpoint)

    async def delete(self) -> None:
        await self._store.delete()

    def _begin(self, checkpoint: Checkpoint) -> Span:
        attributes = {**self._attributes, "changewire.epoch": checkpoint.epoch or 0}
        return self._tracer.begin("checkpoint", attributes, parent=self._trail.published_before(checkpoint.token))
