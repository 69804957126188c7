"""Changes as one atomic batch, which the stream stores wholly or not at all."""

import secrets
from collections.abc import Iterable, Sequence
from itertools import count

from app.domain.errors import OutcomeUnknown, StreamFull
from app.domain.events import Change
from app.jetstream import frames
from app.jetstream.exchange import NO_RESPONDERS, Exchange
from app.jetstream.publish.acks import Ack, read_ack
from app.jetstream.publish.sender import Sender
from app.jetstream.publish.single import Single

FEW = 16
"""So many changes go one by one: nats-server makes and removes a file for each atomic batch, which takes 4 ms and more
when the disk is busy, and a message of its own less than one."""


class Atomic:
    """Publishes batches of more than `FEW` changes atomically, smaller ones message by message."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._few = Single(sender)
        self._ids = (f"{secrets.token_hex(6)}-{number}" for number in count(1))

    async def publish(self, changes: Sequence[Change], fence: int) -> int:
        if len(changes) <= FEW:
            return await self._few.publish(changes, fence)
        batch = next(self._ids)

        def build(reply: str) -> Iterable[bytes]:
            return frames.atomic(changes, self._sender.subjects, reply, batch, self._sender.fence(fence))

        try:
            answer = await self._sender.send(BatchAnswer(self._sender.subjects_of(changes)), build, changes)
            return stored_whole(read_ack(answer), batch, len(changes))
        except StreamFull as error:
            error.tried = len(changes)
            raise


def stored_whole(ack: Ack, batch: str, count: int) -> int:
    """Return the batch's last sequence. Raises OutcomeUnknown where the server took its messages one by one."""
    if ack.batch != batch or ack.count != count:
        raise OutcomeUnknown("the server did not take the batch as one; is it older than 2.12?")
    return ack.sequence


class BatchAnswer(Exchange[bytes | None]):
    """The answer to an atomic batch: the commit's, or an early error on the first message."""

    def received(self, index: int, data: bytes, headers: bytes | None) -> None:
        if headers is not None and headers.startswith(NO_RESPONDERS):
            self.resolve(None)
        elif data or index:
            self.resolve(data)  # an empty answer to the first message says that the batch has begun
