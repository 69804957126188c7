"""The places of several entries of `connector.yaml` that one watcher reads, each written as if it were alone.

What a place holds always means the same: every change of its collection up to this token is published. So
mongodb-nats-connector can go on from it, and so can a watcher of that collection alone. A place that is ahead of the
watcher's position (`Checkpoint.ahead`) keeps its later token. Two entries with one place have the earlier of both.
"""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from app.domain.entries import combined, place_token
from app.domain.errors import StoreUnavailable
from app.domain.position import Checkpoint, OwnMessage
from app.domain.tokens import collection_uuid
from app.domain.watcher import Watcher
from app.mongodb.described import described_by, description, uuid_in
from app.mongodb.durable import SECONDS
from app.mongodb.errors import translated
from app.ports import CheckpointStore

if TYPE_CHECKING:
    from motor.motor_asyncio import AsyncIOMotorClient

T = TypeVar("T")


class SeveralPlaces:
    """`CheckpointStore` over the stores of a watcher's entries."""

    def __init__(
        self,
        watcher: Watcher,
        client: "AsyncIOMotorClient[Mapping[str, Any]]",
        store_of: Callable[[Watcher], CheckpointStore],
    ) -> None:
        self._watcher = watcher
        self._client = client
        self._uuids: dict[str, str | None] = {}
        """Of the entries' collections."""
        self._known: set[str] = set()
        """The UUIDs that were looked for, found or not."""
        self._entries: dict[str, list[Watcher]] = {}
        self._places = [place.namespace for place in watcher.places]
        """Each entry's, in their order."""
        for entry, place in zip(watcher.entries, self._places, strict=True):
            self._entries.setdefault(place, []).append(entry)
        self._stores = {place: store_of(entries[0]) for place, entries in self._entries.items()}

    async def check(self) -> None:
        for store in self._stores.values():
            await store.check()

    async def read(self) -> Checkpoint | None:
        places = list(self._stores)
        read = dict(zip(places, await _all([self._stores[place].read() for place in places]), strict=True))
        return combined([read[place] for place in self._places], self._watcher)

    async def create(self, checkpoint: Checkpoint) -> bool:
        first, *others = self._stores
        held = await self._held(checkpoint)
        # The first place decides between two instances. A place without a position has that of the earliest other.
        if not await self._stores[first].create(held[first]):
            return False
        await _all([self._stores[place].create(held[place]) for place in others])
        return True

    async def advance(self, checkpoint: Checkpoint) -> bool:
        held = await self._held(checkpoint)
        return any(await _all([store.advance(held[place]) for place, store in self._stores.items()]))

    async def keep_unsettled(self, unsettled: tuple[OwnMessage, ...], epoch: int) -> None:
        await _all([store.keep_unsettled(unsettled, epoch) for store in self._stores.values()])

    async def uncount(self, epoch: int) -> None:
        await _all([store.uncount(epoch) for store in self._stores.values()])

    async def begin(self, checkpoint: Checkpoint) -> bool:
        first, *others = self._stores
        held = await self._held(checkpoint)
        if not await self._stores[first].begin(held[first]):
            return False
        await _all([self._stores[place].begin(held[place]) for place in others])
        return True

    async def delete(self) -> None:
        await _all([store.delete() for store in self._stores.values()])

    async def _held(self, checkpoint: Checkpoint) -> dict[str, Checkpoint]:
        """Return what each place is to hold."""
        uuid = collection_uuid(checkpoint.token)
        if uuid is not None and uuid not in self._known:
            await self._look_up()  # the collection was created since
            self._known.add(uuid)
        return {place: self._in(place, checkpoint) for place in self._stores}

    async def _look_up(self) -> None:
        with translated("looking up the collections", kind=StoreUnavailable, seconds=SECONDS):
            for entry in self._watcher.entries:
                source = entry.source
                reply = await self._client[source.database].command(described_by(source.collection))
                self._uuids[source.namespace] = uuid_in(description(reply))
        self._known.update(uuid for uuid in self._uuids.values() if uuid is not None)

    def _in(self, place: str, checkpoint: Checkpoint) -> Checkpoint:
        """Return what one place is to hold."""
        entries, ahead = self._entries[place], dict(checkpoint.ahead)
        deployment, alone = (checkpoint.scope or "").partition("/")[0], len(entries) == 1
        namespace = entries[0].source.namespace
        token = max(checkpoint.token, min(ahead.get(entry.source.namespace, "") for entry in entries))
        return replace(
            checkpoint,
            token=place_token(token, self._uuids.get(namespace) if alone else None) or token,
            scope=f"{deployment}/{namespace}" if alone and checkpoint.scope else None,
            route=entries[0].route,
            counted=False,
            ahead=(),
            parts=(),
        )


async def _all(work: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """Do all of it at once, to its end. Raises the first error."""
    done = await asyncio.gather(*work, return_exceptions=True)
    results: list[T] = []
    for one in done:
        if isinstance(one, BaseException):
            raise one
        results.append(one)
    return results
