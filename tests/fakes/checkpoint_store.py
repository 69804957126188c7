"""A checkpoint collection in memory."""

import asyncio
from collections import deque
from dataclasses import replace

from app.domain.position import Checkpoint, OwnMessage


class FakeCheckpoints:
    """A checkpoint collection. `place` is shared by all who open it."""

    def __init__(self, place: dict[str, Checkpoint] | None = None) -> None:
        self.place = {} if place is None else place
        self.undeletable: Exception | None = None
        self.faults: deque[BaseException | None] = deque()

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.faults and (fault := self.faults.popleft()) is not None:
            raise fault

    async def read(self) -> Checkpoint | None:
        await self._reach()
        return self.place.get("newest")

    async def create(self, checkpoint: Checkpoint) -> bool:
        await self._reach()
        return self.place.setdefault("newest", checkpoint) is checkpoint

    async def advance(self, checkpoint: Checkpoint) -> bool:
        await self._reach()
        stored = self.place.get("newest")
        epoch = checkpoint.epoch or 0
        if stored is not None:
            stored_epoch = epoch if stored.epoch is None else stored.epoch
            if (stored_epoch, stored.token) >= (epoch, checkpoint.token):
                return False
        self.place["newest"] = replace(checkpoint, unsettled=stored.unsettled) if stored is not None else checkpoint
        return True

    async def keep_unsettled(self, unsettled: tuple[OwnMessage, ...], epoch: int) -> None:
        await self._reach()
        stored = self.place.get("newest")
        if stored is not None and (stored.epoch or 0) <= epoch:
            self.place["newest"] = replace(stored, unsettled=unsettled)

    async def uncount(self, epoch: int) -> None:
        await self._reach()
        stored = self.place.get("newest")
        if stored is not None and (stored.epoch or 0) <= epoch:
            self.place["newest"] = replace(stored, counted=False)

    async def begin(self, checkpoint: Checkpoint) -> bool:
        await self._reach()
        stored = self.place.get("newest")
        if stored is not None and stored.epoch is not None and stored.epoch >= (checkpoint.epoch or 0):
            return False
        self.place["newest"] = checkpoint
        return True

    async def delete(self) -> None:
        await self._reach()
        if self.undeletable is not None:
            raise self.undeletable
        self.place.clear()

    async def check(self) -> None:
        await self._reach()
