"""Batches on their way to the stream, several at once where the sink can do that.

A publish that is awaited leaves nats-server without work while its acknowledgement travels. Here the next batch follows
at once, fenced by the sequence that the one before will leave. The acknowledgements come in the same order, and each
moves the position on. When nothing waits to be sent, what is under way is ended and awaited (`settle`): the changes
that come meanwhile go out together next.

Only the plain case is done here. A dead letter, a body for the object store, a change that is counted as published
already, and every error wait until nothing is under way, and then take the careful way, one publish after the other
(`publisher.py`). After an error nothing more is sent. All that was under way ends, and is looked at as one publish that
did not pass: what its front part has stored counts, and the rest is read back.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

from app.domain.errors import FenceLost, OutcomeUnknown, SeenBefore, StreamFull, StreamRefused
from app.domain.events import Change
from app.domain.packed import are_plain
from app.pipeline.batch_queue import Encoded
from app.pipeline.ledger import Ledger
from app.pipeline.publisher import Failure, Publisher
from app.pipeline.run import Run


@dataclass(slots=True, eq=False)
class Sent:
    """Changes that were sent together, after sequence `fence`, and the batch of the source that ends with them."""

    changes: Sequence[Change]
    fence: int
    stored: "asyncio.Future[int]"
    began: float
    read_at: float
    ends: Encoded | None


class InFlight:
    """One capture's. One task puts and settles."""

    def __init__(self, run: Run, ledger: Ledger, publisher: Publisher, published: Callable[[Encoded], None]) -> None:
        """`published` is told of each batch, in order, once all of it is on the stream or was not to be."""
        self._sink = run.ports.sink
        self._ledger = ledger
        self._publisher = publisher
        self._published = published
        self._sent: deque[Sent] = deque()

    async def put(self, encoded: Encoded, *, more: bool) -> None:
        """Send a batch behind those under way, and return when it is sent. `more` says that another one waits already.

        Raises as `Publisher.publish`."""
        if not self._may_follow(encoded):
            await self.settle()
            if encoded.changes:
                await self._publisher.publish(encoded.changes, encoded.read_at)
            self._published(encoded)
            return
        waiting: Sequence[Change] = encoded.changes
        while waiting:
            unit = self._publisher.cut(waiting)
            await self._sink.ready(unit)
            if not self._collect():
                await self._recover(waiting, encoded)
                return
            waiting = waiting[len(unit) :]
            fence = self._sent[-1].fence + len(self._sent[-1].changes) if self._sent else self._ledger.fence
            began = time.perf_counter()
            stored = self._sink.send(unit, fence, more=more or bool(waiting))
            self._sent.append(Sent(unit, fence, stored, began, encoded.read_at, None if waiting else encoded))

    async def settle(self) -> None:
        """Return when nothing is under way any more. Raises as `Publisher.publish`."""
        self._sink.settle()
        while self._sent:
            await asyncio.wait((self._sent[0].stored,))
            if not self._collect():
                await self._recover((), None)

    def _may_follow(self, encoded: Encoded) -> bool:
        """Whether these changes may go out behind what is under way, without a look at each."""
        changes = encoded.changes
        if not changes or not self._sink.pipelined or self._ledger.behind:
            return False
        return are_plain(changes) and changes[0].token > self._ledger.reached.token

    def _collect(self) -> bool:
        """Take over what is acknowledged by now; False where the first of what is left has failed."""
        while self._sent and self._sent[0].stored.done():
            first = self._sent[0]
            if first.stored.exception() is not None:
                return False
            self._publisher.acknowledged(first.changes, first.stored.result(), first.began, first.read_at)
            self._sent.popleft()
            if first.ends is not None:
                self._published(first.ends)
        return True

    async def _recover(self, unsent: Sequence[Change], encoded: Encoded | None) -> None:
        """Go on after the first of what is under way has failed; `unsent` is what would have followed, the end of the
        batch `encoded`."""
        sent = list(self._sent)
        await asyncio.wait([each.stored for each in sent])
        self._sent.clear()
        error = what_failed(sent)
        changes = [*chain.from_iterable(each.changes for each in sent)]
        first = sent[0]
        failure = Failure(error, [*changes, *unsent], first.changes, len(changes), first.began)
        await self._publisher.publish_after(failure, first.read_at)
        for each in sent:
            if each.ends is not None:
                self._published(each.ends)
        if encoded is not None:
            self._published(encoded)


def what_failed(sent: Sequence[Sent]) -> StreamFull | OutcomeUnknown:
    """Return what it means that the first of these has failed, for all of them together.

    A definite refusal of the first stays one only where all others were refused too. Where one of them was stored, its
    fence was right, so the place before it holds a message: ours, or another one's. The same is possible where the
    first was refused and one behind it was not heard of. Raises what is neither a full stream nor an unknown outcome,
    where nothing behind it is stored."""
    error = sent[0].stored.exception()
    assert error is not None, "the first has failed"
    refused = isinstance(error, FenceLost | SeenBefore | StreamRefused)
    unsettled = [
        (after.fence, before.changes[-1].id)
        for before, after in pairwise(sent)
        if (failed := after.stored.exception()) is None or (refused and type(failed) is OutcomeUnknown)
    ]
    if not unsettled:
        if not isinstance(error, StreamFull | OutcomeUnknown):
            raise error
        return error
    if refused or not isinstance(error, OutcomeUnknown):
        unknown = OutcomeUnknown(f"what was sent behind it may be stored: {error}")
        if isinstance(error, OutcomeUnknown | StreamFull):
            unknown.stored, unknown.sequence = error.stored, error.sequence
        unknown.__cause__, error = error, unknown
    error.unsettled += tuple(unsettled)
    return error
