"""Changes as one atomic batch, which the stream stores wholly or not at all.

While nats-server works on one batch, the next one may be under way already. It is fenced by the sequence that the first
one will leave: where that is refused, so is the second. One gap stays, as in a window. Where exactly as many messages
of *somebody else* as the first one has land in its place, the fence of the second is right, and it passes. The two
answers show that, and the place is looked at (`pipeline/window_recovery.py`). So two are under way only on a stream
that is the watcher's alone, and on which no foreign message was seen.
"""

import asyncio
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


AT_ONCE = 2
"""How many batches are under way at once; more are no faster."""


class Atomic:
    """Publishes batches of more than `FEW` changes atomically, smaller ones message by message."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._under_way: list[asyncio.Task[int]] = []
        self._few_under_way = False
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

    def send(self, changes: Sequence[Change], fence: int, *, more: bool) -> asyncio.Future[int]:  # noqa: ARG002
        """Send the changes behind those under way; `ready` comes first."""
        self._few_under_way = len(changes) <= FEW
        task = asyncio.create_task(self.publish(changes, fence), name=f"batch:{self._sender.stream}")
        task.add_done_callback(_look_at)
        self._under_way.append(task)
        return task

    async def ready(self, changes: Sequence[Change]) -> None:
        """Wait until these changes may be sent, or one under way has failed. Few go out when nothing else is."""
        while True:
            done = [each for each in self._under_way if each.done()]
            self._under_way = [each for each in self._under_way if not each.done()]
            at_once = 1 if self._few_under_way or len(changes) <= FEW else AT_ONCE
            if len(self._under_way) < at_once or any(each.cancelled() or each.exception() for each in done):
                return
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)

    def settle(self) -> None:
        """Each batch ends by itself."""

    async def close(self) -> None:
        """Give up what is under way."""
        under_way, self._under_way = self._under_way, []
        for each in under_way:
            each.cancel()
        if under_way:
            await asyncio.wait(under_way)


def _look_at(task: "asyncio.Task[int]") -> None:
    """Read how a batch ended: nobody may wait for it any more, and asyncio would complain in the log."""
    if not task.cancelled():
        task.exception()


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
