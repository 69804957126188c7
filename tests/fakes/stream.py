"""A JetStream stream in memory, which stores late, in part, or without an answer where a test says so."""

import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from app.domain.errors import (
    FenceLost,
    OutcomeUnknown,
    SeenBefore,
    StreamFull,
)
from app.domain.events import Change
from app.domain.subjects import covers


@dataclass
class FakeMessage:
    sequence: int
    subject: str
    change: Change


PipelinedMode = Literal["fast_ingest", "atomic"]
Deed = Literal["ok", "timeout", "ack_lost", "late", "torn", "unavailable", "refused"]


@dataclass
class FakeStream:
    """A JetStream stream. A duplicate window keeps every id until `forget_ids`.

    Deeds: `timeout` stores nothing and does not answer, `ack_lost` stores and does not answer, `late` stores (fence
    permitting) some calls later, `torn` stores the front half one by one and does not answer.

    `mode` is how a stream of the watcher's own is published to: `fast_ingest` stores one change after the other up to
    the first one that is refused, `atomic` all of a batch or nothing.
    """

    name: str = "ORDERS"
    subjects: list[str] = field(default_factory=lambda: ["ORDERS.*"])
    exists: bool = True
    mode: PipelinedMode = field(default_factory=lambda: FakeStream.usual)
    created: str = "2026-01-01T00:00:00Z"
    messages: list[FakeMessage] = field(default_factory=list)
    consumed: list[FakeMessage] = field(default_factory=list)
    last_sequence: int = 0
    ids: set[str] = field(default_factory=set)
    faults: deque[Deed] = field(default_factory=deque)
    late: list[tuple[list[tuple[str, Change]], int, str]] = field(default_factory=list)
    lateness: Callable[[], bool] = lambda: True
    objects: dict[str, bytes] = field(default_factory=dict)
    before_publish: Callable[[], None] | None = None
    keeps: bool = True
    """Whether messages stay when they are consumed."""
    misfortune: Exception | None = None
    """What every look at the stream raises, for as long as it is set."""
    max_messages: int | None = None
    usual: ClassVar[PipelinedMode] = "atomic"
    """The mode where a test says nothing."""
    quiet: float = 0.0
    """For how many seconds nothing has come, as far as it tells."""

    def published(self) -> list[str]:
        """The tokens that are or were on the stream, in order."""
        return [message.change.token for message in (*self.consumed, *self.messages)]

    def last(self, space: str) -> int:
        return max((m.sequence for m in self.messages if covers(space, m.subject)), default=0)

    def store(self, batch: Sequence[tuple[str, Change]], fence: int, space: str, *, exclusive: bool = True) -> int:
        """Store all or nothing, as an atomic batch."""
        if any(change.id in self.ids for _, change in batch):
            raise SeenBefore("10201")
        expected = self.last_sequence if exclusive else self.last(space)
        if expected != fence:
            raise FenceLost(f"10071 wrong last sequence: {expected}")
        if self.max_messages is not None and len(self.messages) + len(batch) > self.max_messages:
            full = StreamFull("10077 maximum messages exceeded")
            full.tried = len(batch)
            raise full
        for subject, change in batch:
            self.last_sequence += 1
            self.messages.append(FakeMessage(self.last_sequence, subject, change))
            self.ids.add(change.id)
        return self.last_sequence

    def store_front(self, batch: Sequence[tuple[str, Change]], fence: int, space: str) -> int:
        """Store one after the other, as a fast-ingest batch; what is refused ends it, and tells what is stored."""
        for count, one in enumerate(batch):
            try:
                self.store([one], fence + count, space)
            except (OutcomeUnknown, StreamFull) as error:
                error.stored, error.sequence = count, fence + count
                raise
        return fence + len(batch)

    def arrive_late(self) -> None:
        """Let what was on its way arrive now, where the script says so."""
        still: list[tuple[list[tuple[str, Change]], int, str]] = []
        for batch, fence, space in self.late:
            if not self.lateness():
                still.append((batch, fence, space))
                continue
            with contextlib.suppress(OutcomeUnknown, StreamFull):
                self.store(batch, fence, space)
        self.late = still

    def neighbour(self, subject: str, count: int = 1) -> None:
        """Let somebody else publish."""
        for _ in range(count):
            self.last_sequence += 1
            self.messages.append(FakeMessage(self.last_sequence, subject, Change("", "insert", b"{}", 0.0, "")))

    def purge(self) -> None:
        self.messages.clear()

    def consume(self, count: int) -> None:
        """Have the first messages consumed, as on a work queue: they are gone, and the duplicate window has passed."""
        self.consumed += self.messages[:count]
        del self.messages[:count]
        self.forget_ids()

    def forget_ids(self) -> None:
        """Let the duplicate window pass."""
        self.ids.clear()

    def lose_end(self, count: int) -> None:
        """Lose the last messages, as a server does that had not synced when the power went."""
        for message in self.messages[len(self.messages) - count :]:
            self.ids.discard(message.change.id)
        del self.messages[len(self.messages) - count :]
        self.last_sequence = self.messages[-1].sequence if self.messages else 0
