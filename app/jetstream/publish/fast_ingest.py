"""Changes as one long batch that stays open while there is work, each message fenced by the one before.

A fast-ingest batch (server 2.14, `allow_batched`) is stored as it comes. The server acknowledges a *flow window* of
messages at once, so the sender waits for nothing while it stays at most two windows ahead. Every message expects the
sequence that the one before leaves, and the batch is of the mode `fail`. So the stream takes a prefix of it: from the
first message on that is refused, lost or not in its turn, nothing of the batch is stored. A message of *somebody else*
among ours makes the next of ours the refused one. Here lies the difference to a window of single messages, where one
refused message may leave a hole.

What an acknowledgement proves. A flow acknowledgement counts a duplicate as stored, and the server looks for duplicates
before it looks at the fence: a whole run of known ids passes, though nothing is stored. So flow acknowledgements only
say that more may be sent. A unit (the changes of one `send`) counts as stored when its last message has the sequence
that it should have. The duplicate window tells that: the message's id is sent once more, with a fence that no stream
can meet. It cannot be stored, and the answer names the sequence that the id has. Where it has another one, or none any
more, the batch is ended; its end says how much is stored.

How a batch ends. With the last change, where none follows at once (a lone change begins and ends it: one round trip);
by a message that is not stored, where none follows after all; or by the server, with the first message that it does
not take. Nothing follows until the end is acknowledged. Anything else (silence, a lost connection, an answer that makes
no sense) is an unknown outcome: nothing more is sent, and the stream is read back. The next batch has another id, so
what may still arrive of this one is refused.

An open batch never waits for work, so it needs no ping to stay alive.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from app.domain.errors import ChangewireError, FenceLost, NotAuthorised, OutcomeUnknown, SeenBefore
from app.domain.events import Change
from app.domain.packed import operations_of, size_of
from app.jetstream import frames
from app.jetstream.connection import Conversation
from app.jetstream.errors import ConnectionLost, Forbidden, unacknowledged
from app.jetstream.exchange import Exchange
from app.jetstream.publish.acks import partly_stored
from app.jetstream.publish.ingest_replies import Ended, FlowAck, Place, Trouble, read_reply
from app.jetstream.publish.sender import ACK_SECONDS, SLOWEST_BYTES_PER_SECOND, Sender, failed
from app.jetstream.publish.single import cut_short

FLOW = 500
"""The most messages of a flow window; the server grants no more, and 100 cost a third of the rate."""
FLOW_BYTES = 1024 * 1024
"""The most bytes of a flow window, roughly."""
WINDOWS = 2
"""How many flow windows are sent ahead of the acknowledgements."""
GRACE_SECONDS = 1.0
"""How long the end of a batch is awaited in which something went wrong."""


class FastIngest:
    """Publishes by one open batch at a time."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._batch: Batch | None = None

    async def publish(self, changes: Sequence[Change], fence: int) -> int:
        """Store the changes as a batch of their own. No `send` may be under way; its batch may still have to end."""
        self.settle()
        await self.ready(changes)
        try:
            return await self.send(changes, fence, more=False)
        finally:
            self._drop()

    def send(self, changes: Sequence[Change], fence: int, *, more: bool) -> asyncio.Future[int]:
        """Write the changes behind those under way; the result is the last one's sequence. Never raises itself."""
        try:
            batch = self._batch
            if batch is None or batch.outcome.done():
                batch = self._batch = self._begin(changes, fence)
            return batch.add(changes, fence, commit=not more)
        except ChangewireError as error:
            return failed(error)

    async def ready(self, changes: Sequence[Change]) -> None:  # noqa: ARG002 - all sizes are alike here
        """Wait until a window is free, or the batch has ended."""
        while self._batch is not None and not self._batch.has_room:
            await self._batch.moved()

    def settle(self) -> None:
        """End the open batch: nothing follows."""
        if self._batch is not None:
            self._batch.commit()

    async def close(self) -> None:
        """Give up what is open; its outcome is of no interest any more."""
        self._drop()

    def _drop(self) -> None:
        batch, self._batch = self._batch, None
        if batch is not None:
            batch.drop()

    def _begin(self, changes: Sequence[Change], fence: int) -> "Batch":
        mean = size_of(changes) // len(changes)
        return Batch(self._sender, fence, max(1, min(FLOW, FLOW_BYTES // mean)))


_ENDED = "the batch has ended before these changes"


@dataclass(slots=True, eq=False)
class _Unit:
    """The changes of one send: numbers `first` to `last` of the batch."""

    changes: Sequence[Change]
    first: int
    last: int
    stored: asyncio.Future[int]
    size: int
    deadline: float


class Batch(Exchange[None]):
    """One batch, from its first message to its end. `outcome` is done when it has ended, one way or another."""

    def __init__(self, sender: Sender, fence: int, flow: int) -> None:
        super().__init__(())
        self._sender = sender
        self._fence = fence
        self._flow = flow
        self._granted = flow
        self._conversation: Conversation = sender.begin(self)
        self._units: deque[_Unit] = deque()
        self._operation = ""
        """One of those that it publishes."""
        self._bytes = 0
        """The bytes of all units."""
        self._sent = self._acked = 0
        self._asked = self._answered = self._proved = 0
        """The number of the last message whose place was asked for, was answered, and is as it should be."""
        self._committed = False
        self._ends_by: float | None = None
        """When the end has to be acknowledged, where all that was sent may be stored before that."""
        self._trouble: ChangewireError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._moved: asyncio.Future[None] | None = None

    # Sending.

    @property
    def has_room(self) -> bool:
        """Whether a send may follow: within the windows, or because this batch has ended."""
        if self.outcome.done():
            return True
        return not self._closing and self._sent - self._acked < WINDOWS * self._granted

    def add(self, changes: Sequence[Change], fence: int, *, commit: bool) -> asyncio.Future[int]:
        """Write changes after sequence `fence`, which is what all before them in this batch come to."""
        if self._closing or fence != self._fence + self._sent:
            return failed(FenceLost(_ENDED))
        first = self._sent + 1
        self._sent += len(changes)
        self._committed = commit
        self.subjects = self._sender.subjects_of(changes).union(self.subjects)
        self._operation = next(iter(operations_of(changes)))
        stored: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        size = size_of(changes)
        self._bytes += size
        self._units.append(_Unit(changes, first, self._sent, stored, size, self._deadline()))
        self._watch()
        self._conversation.write(
            frames.fast_ingest(
                changes, self._sender.subjects, self._reply, first, self._sender.stream, fence, commit=commit
            )
        )
        if not commit and (self._answered == self._asked or self._sent - self._asked >= self._flow):
            self._ask_for(changes[-1])
        return stored

    def _ask_for(self, change: Change) -> None:
        """Ask which sequence the last message sent has."""
        number = self._asked = self._sent
        reply = f"{self._conversation.reply}.{self._conversation.name}-{number}"
        subject = self._sender.subject_of(change)
        self._conversation.write((frames.where_is(change, subject, reply, self._sender.stream),))

    def commit(self) -> None:
        """End the batch behind what is sent."""
        if not self._closing and not self.outcome.done():
            self._committed = True
            self._ends_by = self._now + ACK_SECONDS
            self._watch()
            subject = self._sender.some_subject(self._operation)
            end = frames.end_of_batch(subject, self._reply, self._sent + 1, self._sender.stream)
            self._conversation.write((end,))

    async def moved(self) -> None:
        """Wait until something was acknowledged, or the batch has ended."""
        if self._moved is None or self._moved.done():
            self._moved = asyncio.get_running_loop().create_future()
        await self._moved

    def drop(self) -> None:
        """Forget the batch; the server ends it where its messages stop."""
        for unit in self._units:
            unit.stored.cancel()
        self._units.clear()
        self._finish()

    @property
    def _closing(self) -> bool:
        return self._committed or self._trouble is not None

    @property
    def _reply(self) -> str:
        return f"{self._conversation.reply}.{self._flow}.fail"

    # Hearing.

    def heard(self, rest: bytes, data: bytes, headers: bytes | None) -> None:
        reply = read_reply(rest, data, headers)
        if isinstance(reply, FlowAck):
            self._acknowledged(reply)
        elif isinstance(reply, Ended):
            self._ended(reply)
        elif isinstance(reply, Place):
            self._placed(reply)
        elif reply is not None:
            self._troubled(reply)

    def fail(self, error: Exception) -> None:
        """The connection is lost, or the account may not publish: what is not acknowledged may be stored."""
        assert isinstance(error, ConnectionLost | Forbidden), "why a connection fails an exchange"
        self._give_up(unacknowledged(error, self._sender.stream, 0))

    def _acknowledged(self, ack: FlowAck) -> None:
        if not self._acked <= ack.number <= self._sent:
            return  # late, or of no batch of ours
        self._acked, self._granted = ack.number, max(1, ack.flow)
        self._tell()

    def _placed(self, place: Place) -> None:
        self._answered = max(self._answered, place.number)
        if place.sequence != self._fence + place.number:
            self.commit()
            return
        self._proved = max(self._proved, place.number)
        self._acked = max(self._acked, self._proved)  # where its flow acknowledgement was lost
        while self._units and self._units[0].last <= self._proved:
            self._store(self._units.popleft())
        self._watch()
        self._tell()

    def _ended(self, end: Ended) -> None:
        stored = end.sequence - self._fence if end.sequence else 0  # nothing is stored where all are duplicates
        if end.batch != self._conversation.name:
            self._one_by_one()
        elif end.duplicate:
            self._finish(0, SeenBefore(f"the stream has seen an id before, at sequence {end.sequence}"))
        elif not 0 <= stored <= end.count <= self._sent:
            self._give_up(OutcomeUnknown("the stream's acknowledgement does not fit the batch"))
        elif stored < end.count:
            self._finish(stored, SeenBefore("the stream has seen an id of the batch before"))
        elif stored == self._sent:
            self._finish(stored)
        else:
            self._finish(stored, self._trouble or OutcomeUnknown(f"only {stored} of {self._sent} changes are stored"))

    def _troubled(self, trouble: Trouble) -> None:
        if trouble.final:
            if trouble.number == 1 and self._acked == 0:
                self._finish(0, trouble.error)
            else:
                self._give_up(self._trouble or trouble.error)
        elif self._trouble is None:
            self._trouble = trouble.error
            self._watch()

    # Ending.

    def _give_up(self, error: ChangewireError) -> None:
        """End with what is certain: that all up to the last message with a proved place is stored.

        What is behind it may be stored, so a refusal is none of all of it. One of the account is passed on: the next
        opening looks at the stream."""
        if not isinstance(error, OutcomeUnknown | NotAuthorised):
            error = partly_stored(error)
        self._finish(self._proved, error, OutcomeUnknown)

    def _one_by_one(self) -> None:
        """The server takes the messages singly. There may be a hole, as in a window; the rest is awaited a moment."""
        self._conversation.end()  # the place of one message proves nothing for those before it
        unknown = OutcomeUnknown("the server did not take the changes as a batch; is it older than 2.14?")
        places = [(self._fence + unit.first, unit.changes) for unit in self._units]
        unknown.unsettled = tuple(
            (place + index, change.id) for place, changes in places for index, change in enumerate(changes)
        )
        self._trouble = unknown
        self._watch()
        if self._sent == 1:
            self._give_up(unknown)

    def _finish(
        self, stored: int = 0, error: ChangewireError | None = None, behind: type[OutcomeUnknown] = FenceLost
    ) -> None:
        """Tell each send what became of it: the first `stored` messages are on the stream, and then `error` ended it.

        Of what comes behind it nothing is stored, unless `behind` says that this is not known."""
        self._conversation.end()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._units and self._units[0].last <= stored:
            self._store(self._units.popleft())
        for unit in self._units:
            if not unit.stored.done():
                unit.stored.set_exception(self._part(unit, error, stored))
                unit.stored.exception()
            error = behind(_ENDED)
        self._units.clear()
        self.resolve(None)
        self._tell()

    def _part(self, unit: _Unit, error: ChangewireError | None, stored: int) -> ChangewireError:
        """Return the error of a unit, of which the front part is among the first `stored` messages, if any is."""
        assert error is not None, "what is not stored has a reason"
        front, count = max(0, stored - unit.first + 1), unit.last - unit.first + 1
        return cut_short(error, stored=front, sequence=self._fence + stored, count=count)

    def _store(self, unit: _Unit) -> None:
        self._bytes -= unit.size
        if not unit.stored.done():
            unit.stored.set_result(self._fence + unit.last)

    def _tell(self) -> None:
        if self._moved is not None and not self._moved.done():
            self._moved.set_result(None)

    # Waiting.

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    def _deadline(self) -> float:
        """When all that is under way now has to be acknowledged: it goes one after the other."""
        return self._now + ACK_SECONDS + self._bytes / SLOWEST_BYTES_PER_SECOND

    @property
    def _due(self) -> float | None:
        """When the first send has to be acknowledged, or the end of the batch; None where nothing is waited for."""
        return self._units[0].deadline if self._units else self._ends_by

    def _watch(self) -> None:
        """Wake up when something is overdue, or a batch in trouble has not ended in time."""
        due = self._due if self._trouble is None else self._now + GRACE_SECONDS
        if self._timer is not None and (due is None or self._timer.when() > due or self._trouble is not None):
            self._timer.cancel()
            self._timer = None
        if due is not None and self._timer is None:
            self._timer = asyncio.get_running_loop().call_at(due, self._overdue)

    def _overdue(self) -> None:
        self._timer = None
        if self._trouble is not None:
            self._give_up(self._trouble)
        elif self._due is not None and self._due <= self._now:
            self._give_up(OutcomeUnknown(f"the stream {self._sender.stream} did not acknowledge in time"))
        else:
            self._watch()
