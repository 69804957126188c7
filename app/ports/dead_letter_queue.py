"""Where a change goes that cannot be published."""

from typing import Protocol

from app.domain.dead_letters import DeadLetter, Receipt, Unpublishable


class DeadLetterQueue(Protocol):
    """One watcher's dead letters, in a stream beside its own, which is created when the first one is stored.

    Every method raises SinkUnavailable, StreamRefused (full, sealed, not made for dead letters) and NotAuthorised;
    only `store` and `keep_receipt` create the stream.
    """

    async def store(self, letter: Unpublishable, epoch: int) -> bool:
        """Store a dead letter, durably once this returns; False where it is already stored."""

    async def keep_receipt(self, receipt: Receipt) -> bool:
        """Store a receipt, durably once this returns; False where there is one for this token."""

    async def page(self, after: int, limit: int) -> list[DeadLetter]:
        """Return the dead letters after a sequence, oldest first, without their events."""

    async def get(self, sequence: int) -> DeadLetter | None:
        """Return one of this watcher's dead letters, with its event unless that is unavailable."""

    async def receipt(self, token: str) -> Receipt | None:
        """Return the receipt of a change's replay."""

    async def remove(self, letter: DeadLetter) -> bool:
        """Delete a dead letter, and its event from the object store; False where there is none."""

    async def drop_receipt(self, receipt: Receipt) -> None:
        """Delete a receipt; fine where there is none."""

    async def count(self) -> int:
        """Return how many dead letters there are; 0 without the stream."""
