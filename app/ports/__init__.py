"""The seams: what the pipeline needs of the outside, as protocols in the project's own terms.

Each has an adapter for the real server in `mongodb/` or `jetstream/` and a scripted fake in `tests/fakes/`; both pass
the same contract suite in `tests/contract/`. No vendor's type and no vendor's error crosses these lines: adapters raise
the errors of `domain/errors.py`, with the vendor's error as their cause.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from app.domain.dead_letters import DeadLetter, Following, Receipt, Unpublishable
from app.domain.events import Change
from app.domain.lag import Oplog
from app.domain.lifecycle import State
from app.domain.position import Checkpoint, OwnMessage, Tail
from app.domain.tokens import MessageId
from app.domain.watcher import Start, StoredWatcher, Watcher

if TYPE_CHECKING:  # needed when somebody looks at a stream, not at the start
    from app.domain.streams import StoredMessage, StreamFacts

ALIVE_SECONDS = 20.0
"""An instance says that it is alive each time it has followed the store, every five seconds, or later by a drain."""


@dataclass(slots=True)
class SourceBatch:
    """What one read brought, possibly nothing but a newer position.

    `events` are raw BSON change events in stream order, `position` the token that covers all of them (MongoDB's
    postBatchResumeToken), `operation_time` the server's own in seconds since 1970, `size` the events' bytes.
    """

    events: list[bytes]
    position: str
    operation_time: int
    size: int
    reduced: tuple[str, ...] = ()
    """The fields that had to be left out of the only event, since with them MongoDB could not send it."""


class ChangeSource(Protocol):
    """One watcher's change stream. One reader at a time."""

    @property
    def scope(self) -> str:
        """Deployment and collection a token of this source is good for, for example `rs0/shop.orders`.

        Known after `prepare`."""

    async def prepare(self, *, may_create: bool = True) -> int:
        """Reach the server and return its operationTime (seconds since 1970). Where the watcher asks for images and
        `may_create` is true, create the collection with them or switch them on.

        Raises SourceUnavailable, NotAuthorised, SourceRefused (standalone server, view, bad pipeline)."""

    async def locate(self, start: Start) -> str:
        """Return the token of a start position. Reading after it delivers everything from that position on.

        Raises HistoryLost where the oplog does not reach back to it, TokenRefused for a token that is not one."""

    async def open(self, after: str) -> None:
        """Begin to read after a token (an event's, an invalidate's or a high-water mark).

        A token that the server refuses though its moment is still in the oplog (280: the options changed) is replaced
        by its cluster time, and what is not later than it is skipped.
        Raises SourceUnavailable, HistoryLost, TokenRefused, NotAuthorised, SourceRefused."""

    async def has_event(self, token: str) -> bool | None:
        """Look whether MongoDB's history has the event with this token; None where it has not come to its time yet.

        Reads without the watcher's pipeline, beside what is open, and changes nothing. Errors as `open`."""

    async def read(self) -> SourceBatch:
        """Wait for events, for half a second at most, and return them, or an empty batch.

        Survives drop, rename and invalidate (reads on with `startAfter`). An event of more than MongoDB can send comes
        alone: put together from its parts where the server can split it, else without its large fields (`reduced`).
        Errors as `open`, and EventTooLarge where not even that helps; after one, open again.
        Being cancelled leaves the source usable for `close` only."""

    async def close(self) -> None:
        """End the cursor on the server. Never raises; may be called twice."""


class EventSink(Protocol):
    """One watcher's place on its stream. One writer at a time in this process; others may exist elsewhere."""

    @property
    def exclusive(self) -> bool:
        """Whether the stream carries this watcher's subjects alone, so that its last sequence is the fence."""

    @property
    def mode(self) -> Literal["atomic", "window", "single"]:
        """How a batch is published: one atomic batch, a chained window of single messages, or one by one."""

    async def prepare(self, *, may_create: bool) -> None:
        """Find the stream, or create it; switch atomic batches and direct reads on where that is allowed.

        Raises SinkUnavailable, StreamRefused (absent while `may_create` is false), StreamUnsuitable (its subjects do
        not cover the watcher's; neither atomic batches nor a safe fallback), NotAuthorised."""

    async def tail(self, since: int = 0) -> Tail:
        """Read the stream's end from its leader; `exclusive` and `mode` may be others afterwards.

        Where it ends in messages of others, ours is searched for down to sequence `since`, what is before that being
        known; `unsearched` where even that was too far.

        Raises SinkUnavailable, StreamRefused, NotAuthorised, StreamUnsuitable."""

    async def holds(self, message: OwnMessage) -> bool | None:
        """Look whether the stream has this message at its sequence: False for another one there, None for none.

        Asked of the leader. Raises SinkUnavailable, StreamRefused, NotAuthorised."""

    async def publish(self, changes: Sequence[Change], fence: int) -> int:
        """Store the changes after sequence `fence`, all in order, and return the new last sequence.

        At most `limits.max_batch` changes; a change that is `too_large` first needs `claim_check`.
        Raises FenceLost, SeenBefore, OutcomeUnknown: the changes may be stored, wholly or from the front on; read back,
        and look at what the error's `doubts` name. What its `stored` counts is acknowledged already.
        Raises StreamFull: after its `stored`, nothing of them is stored; fewer may be taken, or the same ones later.
        Raises StreamRefused, SinkUnavailable, NotAuthorised: nothing of them is stored, or in the modes without atomic
        batches the first of them; the next opening finds them on the stream."""

    async def publish_singly(self, change: Change, fence: int) -> int:
        """Publish one change; where the duplicate window knows its id it counts as published.

        Returns the stream's last sequence as far as known: the new message's, or `fence` for a known one.
        Errors as `publish`."""

    def too_large(self, change: Change) -> bool:
        """Whether server or stream would refuse the message: body and headers together, or the headers alone, in which
        the id stands."""

    def room(self, change: Change) -> int:
        """The bytes that are left for a pointer's body in the message that stands for this change; below 0: none."""

    async def following(self, sequence: int) -> Following:
        """Look at what comes after a sequence on the stream, asked of the leader.

        Raises SinkUnavailable, StreamRefused, NotAuthorised."""

    async def published(self, id_: MessageId) -> bool:
        """Look whether the stream has a message with this id in its place, by the order of the ids before and after.

        Asked of the leader. Raises SinkUnavailable, StreamRefused, NotAuthorised."""

    async def claim_check(self, change: Change, pointer: bytes) -> Change:
        """Store the body in the object store, under the token's name, and return the change that points to it.

        Idempotent. Raises SinkUnavailable, StreamRefused."""

    async def close(self) -> None:
        """Release what the sink holds. Never raises."""


class DeadLetterQueue(Protocol):
    """One watcher's dead letters, in a stream beside its own, which is made when the first one is stored.

    Every method raises SinkUnavailable, StreamRefused (full, sealed, not made for letters) and NotAuthorised; only the
    first two make the stream.
    """

    async def store(self, letter: Unpublishable, epoch: int) -> bool:
        """Keep a letter, for certain once this returns; False where it was there already."""

    async def keep_receipt(self, receipt: Receipt) -> bool:
        """Keep a receipt, for certain once this returns; False where there is one for this token."""

    async def page(self, after: int, limit: int) -> list[DeadLetter]:
        """Return the letters after a sequence, oldest first, without their events."""

    async def get(self, sequence: int) -> DeadLetter | None:
        """Return one of this watcher's letters with its event, where that can be had."""

    async def receipt(self, token: str) -> Receipt | None:
        """Return the receipt of a change's replay."""

    async def remove(self, letter: DeadLetter) -> bool:
        """Delete a letter, and its event from the object store; False where it was gone."""

    async def drop_receipt(self, receipt: Receipt) -> None:
        """Delete a receipt; fine where it is gone."""

    async def count(self) -> int:
        """Return how many letters there are; 0 without the stream."""


class CheckpointStore(Protocol):
    """One watcher's stored position.

    A write that is cancelled has ended, one way or the other, when the call is over."""

    async def check(self) -> None:
        """Look whether the place can hold positions, changing nothing.

        Raises Invalid where it is a view or holds somebody else's documents, StoreUnavailable, NotAuthorised."""

    async def read(self) -> Checkpoint | None:
        """Return the newest stored position. Raises StoreUnavailable, NotAuthorised."""

    async def create(self, checkpoint: Checkpoint) -> bool:
        """Store the first position, durably (majority); False, changing nothing, where there is one by now.

        Atomic: of two instances that start at once, one gets True (a fixed `_id`, lower than any the predecessor's
        driver makes, collides for the other). Raises StoreUnavailable, NotAuthorised."""

    async def advance(self, checkpoint: Checkpoint) -> bool:
        """Store a later position, durably (majority): of a later epoch, or of the same one with a greater token.

        Returns False, and changes nothing, where what is stored is of a later epoch or not earlier: another instance
        was there. What is of an earlier epoch was put back (from a backup), and the stream knew better. Where
        there is none (dropped meanwhile) it is created. Raises StoreUnavailable, NotAuthorised."""

    async def doubt(self, doubts: tuple[OwnMessage, ...], epoch: int) -> None:
        """Store, durably (majority), which messages of ours may not be where they should be; none: all are.

        `advance` keeps them, `begin` drops them. Changes nothing where there is no position, or one of a later epoch.
        Raises StoreUnavailable, NotAuthorised."""

    async def uncount(self, epoch: int) -> None:
        """Store, durably (majority), that messages after the stored position are not to be counted as changes.

        The next `advance` or `begin` says again whether they are. Changes nothing where there is no position, or one of
        a later epoch. Raises StoreUnavailable, NotAuthorised."""

    async def begin(self, checkpoint: Checkpoint) -> bool:
        """Store a position of a new epoch: a deliberate move. Creates where there is none.

        Returns False, and changes nothing, where what is stored is of that epoch or a later one.
        Raises StoreUnavailable, NotAuthorised."""

    async def delete(self) -> None:
        """Forget the position. Raises StoreUnavailable, NotAuthorised."""


Check = Callable[[Sequence[StoredWatcher]], None]
"""Looks at all that is stored and raises Conflict where a change may not be made beside it."""


class WatcherStore(Protocol):
    """The registry's memory, shared by every instance on the same state database.

    Changes are made one after another, each with a revision of its own, greater than any before. Every method raises
    StoreUnavailable.
    """

    async def load(self) -> list[StoredWatcher]:
        """Return all watchers, in the order in which they were added."""

    async def get(self, name: str) -> StoredWatcher | None:
        """Return one."""

    async def revision(self) -> int:
        """Return the last change's revision; 0 before the first."""

    async def insert(self, stored: StoredWatcher, check: Check | None = None) -> StoredWatcher:
        """Add one, and return it with its revision. Raises Conflict where the name is taken, and what `check` raises.

        Between `check` and the change nobody else changes anything."""

    async def replace(
        self, stored: StoredWatcher, *, expected_revision: int, check: Check | None = None
    ) -> StoredWatcher:
        """Replace one whose revision is still the expected one, and return it with its new one.

        Raises Conflict where it is not, NotFound, and what `check` raises, as `insert`."""

    async def began(self, name: str, revision: int) -> None:
        """Take back `new_start` and `begin` of one that is still of this revision, which stays as it is."""

    async def delete(self, name: str, *, expected_revision: int | None = None) -> int:
        """Remove one, and return the revision of that.

        Raises NotFound, and Conflict where a revision is expected and it has another one."""

    async def restore(self, lost: Sequence[StoredWatcher], applied: int) -> bool:
        """Put these back, as they were, into a store that has lost all watchers, and count that.

        Returns False, and changes nothing, where it has one, or where it counted a change after revision `applied`."""

    async def attend(self, instance: str, applied: int) -> None:
        """Say that an instance is alive and has carried out every change up to this revision."""

    async def leave(self, instance: str) -> None:
        """Take an instance back that has ended."""

    async def behind(self, instance: str, revision: int) -> int:
        """Count the other live instances that have not yet carried out every change up to this revision.

        One that has not been heard of for `ALIVE_SECONDS` is not alive."""


@dataclass(frozen=True, slots=True)
class Published:
    """A batch that is acknowledged. Times are seconds; `acked_at` is since 1970."""

    watcher: str
    collection: str
    subjects: dict[str, str] = field(repr=False)
    """The subject of each operation that is in the batch."""
    changes: Sequence[Change] = field(repr=False)
    read_seconds: float
    """From the read to the acknowledgement."""
    publish_seconds: float
    """From the publish to the acknowledgement."""
    acked_at: float


class Observer(Protocol):
    """Who is told what happens, for metrics. Never raises, never waits."""

    def published(self, batch: Published) -> None: ...
    def skipped(self, watcher: str, reason: str, count: int) -> None: ...
    def publish_failed(self, watcher: str, subject: str, count: int) -> None: ...
    def state(self, watcher: str, state: State) -> None: ...
    def restarted(self, watcher: str, reason: str) -> None: ...
    def position(self, watcher: str, *, lag_seconds: float | None, headroom_seconds: float | None) -> None: ...
    def history_at_risk(self, watcher: str, at_risk: bool) -> None: ...
    def overdue(self, watcher: str, overdue: bool) -> None: ...
    def dead_letters(self, watcher: str, count: int | None) -> None: ...
    def checkpointed(self, watcher: str, at: float) -> None: ...
    def forget(self, watcher: str) -> None: ...
    def command_started(self, database: str, command: str) -> None: ...
    def command_succeeded(self, database: str, command: str, seconds: float) -> None: ...
    def command_failed(self, database: str, command: str, seconds: float) -> None: ...


class Mongo(Protocol):
    """The deployment as a whole: what the registry and the probes ask of it."""

    async def ping(self) -> int:
        """Return the server's operationTime, in seconds since 1970.

        Raises SourceUnavailable with the reason, within two seconds; a standalone server is one, too."""

    async def read_oplog(self) -> Oplog | None:
        """Return what the oplog holds; None where the account may not read it. Raises SourceUnavailable."""

    async def check_source(self, watcher: Watcher) -> None:
        """Try the watcher's change stream without keeping it: pipeline, view, privileges, server kind.

        Raises Invalid for what the user has to change, Unavailable where the server cannot be reached."""

    async def check_token(self, watcher: Watcher, token: str) -> None:
        """Refuse a token of another collection, of the future, or that the server does not take.

        Raises Invalid, Unavailable."""

    def source(self, watcher: Watcher) -> ChangeSource: ...

    def checkpoints(self, watcher: Watcher) -> CheckpointStore: ...


class Nats(Protocol):
    """The NATS account as a whole: what the registry and the probes ask of it."""

    async def ping(self) -> None:
        """Raises SinkUnavailable with the reason, within two seconds."""

    async def check_sink(self, watcher: Watcher) -> None:
        """Look whether the stream can carry the watcher, changing nothing.

        Raises Conflict (subjects do not cover, taken by another stream, no room for dead letters that are asked for),
        Invalid, Unavailable."""

    def sink(self, watcher: Watcher) -> EventSink: ...

    def letters(self, watcher: Watcher) -> DeadLetterQueue: ...

    def reader(self, watcher: Watcher) -> "StreamReader": ...


class StreamReader(Protocol):
    """A watcher's stream, to look at: nothing is changed, and nothing is kept on the server.

    Messages are those of the watcher's subjects, in the stream's order; where there is no stream, there are none.
    Every method raises SinkUnavailable, NotAuthorised, StreamRefused.
    """

    async def facts(self) -> "StreamFacts | None":
        """Return what the stream is and holds; None where it does not exist."""

    async def newest(self) -> int:
        """Return the last message's sequence; 0 where there is none."""

    async def last(self, count: int) -> "list[StoredMessage]":
        """Return the newest messages; fewer than `count` too where others' messages lie far between them."""

    async def after(self, sequence: int, limit: int) -> "list[StoredMessage]":
        """Return the first messages behind a sequence."""
