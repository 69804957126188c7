"""Where a watcher's position is kept."""

from typing import Protocol

from app.domain.position import Checkpoint, OwnMessage


class CheckpointStore(Protocol):
    """One watcher's stored position.

    A write that is cancelled has ended, one way or the other, when the call is over."""

    async def check(self) -> None:
        """Look whether the place can hold positions, changing nothing.

        Raises Invalid where it is a view or holds documents of others, StoreUnavailable, NotAuthorised."""

    async def read(self) -> Checkpoint | None:
        """Return the newest stored position. Raises StoreUnavailable, NotAuthorised."""

    async def create(self, checkpoint: Checkpoint) -> bool:
        """Store the first position, durably (majority); False, changing nothing, where there is one by now.

        Atomic: of two instances that start at once, one gets True (a fixed `_id`, lower than any that
        mongodb-nats-connector's driver makes, collides for the other). Raises StoreUnavailable, NotAuthorised."""

    async def advance(self, checkpoint: Checkpoint) -> bool:
        """Store a later position, durably (majority): of a later epoch, or of the same one with a greater token.

        Returns False, and changes nothing, where the stored position is of a later epoch or not earlier: another
        instance was first. A stored position of an earlier epoch came from a backup, and the stream knew better. Where
        there is none (dropped meanwhile) it is created. Raises StoreUnavailable, NotAuthorised."""

    async def keep_unsettled(self, unsettled: tuple[OwnMessage, ...], epoch: int) -> None:
        """Store, durably (majority), which messages of ours may not be where they should be; none: all are.

        `advance` keeps them, `begin` drops them. Changes nothing where there is no position, or one of a later epoch.
        Raises StoreUnavailable, NotAuthorised."""

    async def uncount(self, epoch: int) -> None:
        """Store, durably (majority), that messages after the stored position are not to be counted as changes.

        The next `advance` or `begin` says again whether they are. Changes nothing where there is no position, or one of
        a later epoch. Raises StoreUnavailable, NotAuthorised."""

    async def begin(self, checkpoint: Checkpoint) -> bool:
        """Store a position of a new epoch: a deliberate move. Creates where there is none.

        Returns False, and changes nothing, where the stored position is of that epoch or a later one.
        Raises StoreUnavailable, NotAuthorised."""

    async def delete(self) -> None:
        """Forget the position. Raises StoreUnavailable, NotAuthorised."""
