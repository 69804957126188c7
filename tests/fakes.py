"""Servers in memory that misbehave on request: what a real one cannot be made to do at the right moment.

They keep the promises of `app/ports/__init__.py` and pass the same contract suites as the adapters (`tests/contract/`).
What they do wrong is scripted: `FakeStream.faults` and `FakeOplog.faults` are queues of deeds, one taken per call.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import bson

from app.domain.dead_letters import DeadLetter, Following, Receipt, Unpublishable
from app.domain.errors import (
    Conflict,
    FenceLost,
    HistoryLost,
    NotFound,
    OutcomeUnknown,
    SeenBefore,
    SinkUnavailable,
    SourceUnavailable,
    StoreUnavailable,
    StreamFull,
    StreamRefused,
    StreamUnsuitable,
    TokenRefused,
)
from app.domain.events import Change, namespace_of
from app.domain.lag import Oplog
from app.domain.lifecycle import State
from app.domain.position import Checkpoint, OwnMessage, Tail
from app.domain.streams import StoredMessage, StreamFacts
from app.domain.subjects import covers
from app.domain.tokens import MessageId, cluster_time, is_token, parse_message_id
from app.domain.watcher import Start, StoredWatcher, Watcher
from app.ports import Check, Published, SourceBatch

UUID = "4F21104B3626A4E42B629044FDF2A8DD"
BEGIN = 1_700_000_000


def event_token(moment: int, uuid: str = UUID) -> str:
    """The token of the event at a moment (counted from 1), as MongoDB 6.0 makes them."""
    return f"82{BEGIN + moment:08X}00000001" + f"2B022C0100296E5A1004{uuid}46645F696400290004"


def mark_token(moment: int) -> str:
    """A high-water mark: the token before whatever happened at that moment."""
    return f"82{BEGIN + moment:08X}00000001" + "2B0229296E04"


def raw_event(moment: int, operation: str = "insert", uuid: str = UUID, **fields: Any) -> bytes:
    """A change event like a server's, as raw BSON."""
    return bson.encode(
        {
            "_id": {"_data": event_token(moment, uuid)},
            "operationType": operation,
            "clusterTime": bson.Timestamp(BEGIN + moment, 1),
            "ns": {"db": "shop", "coll": "orders"},
            "documentKey": {"_id": moment},
            "fullDocument": {"_id": moment},
            **fields,
        }
    )


@dataclass
class FakeOplog:
    """What happened, shared by every source that reads it. `first` is the earliest moment still known."""

    events: list[tuple[str, bytes]] = field(default_factory=list)
    moment: int = 0
    first: int = 1
    faults: deque[BaseException | None] = field(default_factory=deque)
    misfortune: Exception | None = None
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    uuid: str = UUID
    """The collection's: another deployment's has another one."""

    def happen(self, operation: str = "insert", **fields: Any) -> str:
        """Let one change happen, and return its token."""
        self.moment += 1
        token = event_token(self.moment, self.uuid)
        self.events.append((token, raw_event(self.moment, operation, self.uuid, **fields)))
        self.arrived.set()
        self.arrived = asyncio.Event()
        return token

    @property
    def tokens(self) -> list[str]:
        return [token for token, _ in self.events]

    def misbehave(self) -> None:
        if self.misfortune is not None:
            raise self.misfortune
        if self.faults and (fault := self.faults.popleft()) is not None:
            raise fault


class FakeSource:
    """A change stream over a `FakeOplog`; `batch` is the most it returns at once."""

    def __init__(
        self, oplog: FakeOplog, batch: int = 500, patience: float = 0.0, *, collection: str = "orders"
    ) -> None:
        self._oplog = oplog
        self._collection = collection
        self._batch = batch
        self._patience = patience
        self._after: str | None = None
        self.scope = "fake/shop.orders"

    async def prepare(self, *, may_create: bool = True) -> int:
        await asyncio.sleep(0)
        self._oplog.misbehave()
        return BEGIN + self._oplog.moment + 1

    async def locate(self, start: Start) -> str:
        await asyncio.sleep(0)
        if start.at == "token":
            if not is_token(str(start.value)):
                raise TokenRefused(f"{start.value} is not a resume token")
            return str(start.value)
        if start.at == "timestamp":
            moment = int(float(start.value or 0)) - BEGIN
            if moment < self._oplog.first:
                raise HistoryLost("the oplog does not reach back to that moment")
            return mark_token(moment)
        return mark_token(self._oplog.first if start.at == "earliest" else self._oplog.moment + 1)

    async def has_event(self, token: str) -> bool | None:
        await asyncio.sleep(0)
        self._oplog.misbehave()
        self._reach_back(token)
        if token in self._oplog.tokens:
            return True
        return False if token < mark_token(self._oplog.moment + 1) else None

    async def open(self, after: str) -> None:
        await asyncio.sleep(0)
        self._oplog.misbehave()
        if not is_token(after):
            raise TokenRefused(f"{after} is not a resume token")
        self._reach_back(after)
        self._after = after

    def _reach_back(self, after: str) -> None:
        if cluster_time(after).seconds - BEGIN < self._oplog.first - 1:
            raise HistoryLost("the oplog does not reach back to the position")

    async def read(self) -> SourceBatch:
        await asyncio.sleep(0)
        self._oplog.misbehave()
        if self._after is None:
            raise SourceUnavailable("the source is not open")
        self._reach_back(self._after)
        found = self._next()
        if not found:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._oplog.arrived.wait(), self._patience or 0.002)
            found = self._next()
        position = found[-1][0] if found else max(self._after, mark_token(self._oplog.moment + 1))
        self._after = position
        raw = [event for _, event in found]
        return SourceBatch(raw, position, BEGIN + self._oplog.moment + 1, sum(map(len, raw)))

    def _next(self) -> list[tuple[str, bytes]]:
        after = self._after or ""
        found = [(token, raw) for token, raw in self._oplog.events if token > after][: self._batch]
        if self._collection == "orders":
            return found
        # Whatever happens happens in every collection.
        return [(token, bson.encode(bson.decode(raw) | {"ns": self._namespace})) for token, raw in found]

    @property
    def _namespace(self) -> dict[str, str]:
        return {"db": "shop", "coll": self._collection}

    async def close(self) -> None:
        self._after = None


@dataclass
class FakeMessage:
    sequence: int
    subject: str
    change: Change


Deed = Literal["ok", "timeout", "ack_lost", "late", "torn", "unavailable", "refused"]


@dataclass
class FakeStream:
    """A JetStream stream. A duplicate window keeps every id until `forget_ids`.

    Deeds: `timeout` stores nothing and does not answer, `ack_lost` stores and does not answer, `late` stores (fence
    permitting) some calls later, `torn` stores the front half one by one and does not answer.
    """

    name: str = "ORDERS"
    subjects: list[str] = field(default_factory=lambda: ["ORDERS.*"])
    exists: bool = True
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
    misfortune: Exception | None = None
    """What every look at the stream raises, for as long as it is set."""
    max_messages: int | None = None
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


MAX_ID = 65_000
"""The headers hold no longer one."""


class FakeSink:
    """A watcher's place on a `FakeStream`."""

    look_back = 200

    def __init__(self, stream: FakeStream, watcher: Watcher, max_payload: int = 1024 * 1024) -> None:
        self._stream = stream
        self._watcher = watcher
        self._max_payload = max_payload
        self.mode: Literal["atomic", "window", "single"] = "atomic"

    @property
    def exclusive(self) -> bool:
        return all(covers(self._watcher.space, subject) for subject in self._stream.subjects)

    async def prepare(self, *, may_create: bool) -> None:
        await asyncio.sleep(0)
        if self._stream.misfortune is not None:
            raise self._stream.misfortune
        if not self._stream.exists:
            if not may_create:
                raise StreamRefused(f"the stream {self._stream.name} does not exist")
            self._stream.exists = True
            self._stream.subjects = [self._watcher.space]
        if not any(covers(subject, self._watcher.space) for subject in self._stream.subjects):
            raise StreamUnsuitable("the stream's subjects do not cover the watcher's")

    async def tail(self, since: int = 0) -> Tail:
        await asyncio.sleep(0)
        stream = self._stream
        stream.arrive_late()
        if not stream.exists:
            raise StreamRefused(f"the stream {stream.name} does not exist")
        ours = [m for m in stream.messages if covers(self._watcher.space, m.subject)]
        foreign = 0
        own = None
        unsearched = False
        for message in reversed(ours):
            if message.sequence <= since or unsearched:
                break
            parsed = parse_message_id(message.change.id)
            told = namespace_of(message.change.body)
            if parsed is not None and told in (None, self._watcher.source.namespace):
                own = OwnMessage(message.sequence, parsed)
                break
            foreign += 1
            unsearched = foreign > self.look_back
        return Tail(
            stream.created, stream.last_sequence, ours[-1].sequence if ours else 0, own, foreign, unsearched,
            counts=self.exclusive, quiet=stream.quiet,
        )  # fmt: skip

    async def holds(self, message: OwnMessage) -> bool | None:
        await asyncio.sleep(0)
        for one in self._stream.messages:
            if one.sequence == message.sequence:
                return one.change.id == str(message.id) and covers(self._watcher.space, one.subject)
        return None

    async def publish(self, changes: Sequence[Change], fence: int) -> int:
        stream = self._stream
        await asyncio.sleep(0)
        if stream.before_publish is not None:
            stream.before_publish()
        if not stream.exists:
            raise StreamRefused(f"the stream {stream.name} does not exist")
        batch = [(self._watcher.subject(change.operation), replace(change)) for change in changes]
        deed = stream.faults.popleft() if stream.faults else "ok"
        if deed == "unavailable":
            raise SinkUnavailable("connection refused")
        if deed == "refused":
            raise StreamRefused("maximum bytes exceeded")
        if deed == "late":
            stream.late.append((batch, fence, self._watcher.space))
        elif deed == "torn":
            self._tear(batch, fence)
        elif deed != "timeout":
            stream.arrive_late()
            sequence = stream.store(batch, fence, self._watcher.space, exclusive=self.exclusive)
            await asyncio.sleep(0)
            if deed == "ok":
                return sequence
        raise OutcomeUnknown("no answer in time")

    def _tear(self, batch: list[tuple[str, Change]], fence: int) -> None:
        for index, one in enumerate(batch[: (len(batch) + 1) // 2]):
            try:
                self._stream.store([one], fence + index, self._watcher.space, exclusive=self.exclusive)
            except (OutcomeUnknown, StreamFull):
                return

    async def publish_singly(self, change: Change, fence: int) -> int:
        await asyncio.sleep(0)
        if change.id in self._stream.ids:
            return fence
        return await self.publish([change], fence)

    def too_large(self, change: Change) -> bool:
        return len(change.body) > self._max_payload or len(change.id) > MAX_ID

    async def published(self, id_: MessageId) -> bool:
        await asyncio.sleep(0)
        return any(message.change.id == str(id_) for message in self._stream.messages)

    def room(self, change: Change) -> int:
        return self._max_payload if len(change.id) <= MAX_ID else -1

    async def following(self, sequence: int) -> Following:
        await asyncio.sleep(0)
        stream = self._stream
        stream.arrive_late()
        after = [m for m in stream.messages if m.sequence > sequence and covers(self._watcher.space, m.subject)]
        first_sequence = stream.messages[0].sequence if stream.messages else stream.last_sequence + 1
        whole, moved = first_sequence <= sequence + 1, bool(after)
        if self.exclusive and stream.last_sequence > sequence:
            whole, moved = bool(after) and after[0].sequence == sequence + 1, True
        if not after:
            return Following(stream.created, moved=moved, whole=whole)
        first = after[0]
        return Following(stream.created, first.sequence, parse_message_id(first.change.id), True, moved, whole)

    async def claim_check(self, change: Change, pointer: bytes) -> Change:
        await asyncio.sleep(0)
        self._stream.objects[change.token] = change.body
        return replace(
            change,
            body=pointer,
            pointer=None,
            headers=(*change.headers, ("Changewire-Object", f"{self._stream.name}/{change.token}")),
        )

    async def close(self) -> None:
        return


@dataclass
class FakeBox:
    """A dead-letter stream. `faults` are raised, one per call that changes something; `lost` answers are not heard."""

    letters: dict[int, tuple[str, DeadLetter]] = field(default_factory=dict)
    """Watcher and letter, by sequence."""
    receipts: dict[tuple[str, str], Receipt] = field(default_factory=dict)
    sequence: int = 0
    faults: deque[Exception | None] = field(default_factory=deque)
    misfortune: Exception | None = None

    def change(self) -> None:
        self.reach()
        if self.faults and (fault := self.faults.popleft()) is not None:
            raise fault

    def reach(self) -> None:
        if self.misfortune is not None:
            raise self.misfortune

    def tokens(self) -> list[str]:
        return [letter.token for _, letter in self.letters.values()]


class FakeLetters:
    """One watcher's letters in a `FakeBox`."""

    def __init__(self, box: FakeBox, watcher: Watcher) -> None:
        self._box = box
        self._name = watcher.name

    def _own(self) -> list[DeadLetter]:
        return [letter for name, letter in self._box.letters.values() if name == self._name]

    async def store(self, letter: Unpublishable, epoch: int) -> bool:
        await asyncio.sleep(0)
        self._box.change()
        if any(there.token == letter.token for there in self._own()):
            return False
        self._box.sequence += 1
        sequence = self._box.sequence
        stored = DeadLetter(
            sequence, letter.token, letter.operation, letter.reason, letter.error, 0.0, len(letter.raw), epoch,
            key=letter.key, reduced=", ".join(letter.reduced) or None, raw=letter.raw,
        )  # fmt: skip
        self._box.letters[sequence] = self._name, stored
        await asyncio.sleep(0)
        return True

    async def keep_receipt(self, receipt: Receipt) -> bool:
        await asyncio.sleep(0)
        self._box.change()
        if (self._name, receipt.token) in self._box.receipts:
            return False
        self._box.sequence += 1
        self._box.receipts[self._name, receipt.token] = replace(receipt, sequence=self._box.sequence)
        await asyncio.sleep(0)
        return True

    async def page(self, after: int, limit: int) -> list[DeadLetter]:
        await asyncio.sleep(0)
        self._box.reach()
        return [replace(letter, raw=None) for letter in self._own() if letter.sequence > after][:limit]

    async def get(self, sequence: int) -> DeadLetter | None:
        await asyncio.sleep(0)
        self._box.reach()
        return next((letter for letter in self._own() if letter.sequence == sequence), None)

    async def receipt(self, token: str) -> Receipt | None:
        await asyncio.sleep(0)
        self._box.reach()
        return self._box.receipts.get((self._name, token))

    async def remove(self, letter: DeadLetter) -> bool:
        await asyncio.sleep(0)
        self._box.change()
        there = self._box.letters.pop(letter.sequence, None) is not None
        await asyncio.sleep(0)
        return there

    async def drop_receipt(self, receipt: Receipt) -> None:
        await asyncio.sleep(0)
        self._box.change()
        there = self._box.receipts.get((self._name, receipt.token))
        if there is not None and there.sequence == receipt.sequence:
            del self._box.receipts[self._name, receipt.token]

    async def count(self) -> int:
        await asyncio.sleep(0)
        self._box.reach()
        return len(self._own())


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
        self.place["newest"] = replace(checkpoint, doubts=stored.doubts) if stored is not None else checkpoint
        return True

    async def doubt(self, doubts: tuple[OwnMessage, ...], epoch: int) -> None:
        await self._reach()
        stored = self.place.get("newest")
        if stored is not None and (stored.epoch or 0) <= epoch:
            self.place["newest"] = replace(stored, doubts=doubts)

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


class FakeWatchers:
    """The registry's store. `reachable` false: every call raises StoreUnavailable."""

    def __init__(self, watchers: Iterable[StoredWatcher] = ()) -> None:
        self.last = 0
        self.stored: dict[str, StoredWatcher] = {}
        self.instances: dict[str, int] = {}
        """Those that live, and how far each has followed."""
        self.reachable = True
        self.misfortune: Exception | None = None
        self.put(*watchers)

    def put(self, *watchers: StoredWatcher) -> None:
        """Have these stored, as by an earlier process."""
        for one in watchers:
            self.last += 1
            self.stored[one.name] = replace(one, revision=self.last, added=self.last)

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if self.misfortune is not None:
            raise self.misfortune
        if not self.reachable:
            raise StoreUnavailable("connection refused")

    async def load(self) -> list[StoredWatcher]:
        await self._reach()
        return self._in_order()

    def _in_order(self) -> list[StoredWatcher]:
        return sorted(self.stored.values(), key=lambda one: one.added)

    async def get(self, name: str) -> StoredWatcher | None:
        await self._reach()
        return self.stored.get(name)

    async def revision(self) -> int:
        await self._reach()
        return self.last

    async def insert(self, stored: StoredWatcher, check: Check | None = None) -> StoredWatcher:
        await self._reach()
        if check is not None:
            check(self._in_order())
        if stored.name in self.stored:
            raise Conflict(f"there is a watcher {stored.name} already")
        self.put(stored)
        return self.stored[stored.name]

    async def replace(
        self, stored: StoredWatcher, *, expected_revision: int, check: Check | None = None
    ) -> StoredWatcher:
        await self._reach()
        if check is not None:
            check(self._in_order())
        if stored.name not in self.stored:
            raise NotFound(f"there is no watcher {stored.name}")
        if self.stored[stored.name].revision != expected_revision:
            raise Conflict(f"{stored.name} was changed meanwhile")
        self.last += 1
        self.stored[stored.name] = replace(stored, revision=self.last)
        return self.stored[stored.name]

    async def began(self, name: str, revision: int) -> None:
        await self._reach()
        stored = self.stored.get(name)
        if stored is not None and stored.revision == revision:
            self.stored[name] = replace(stored, new_start=False, begin=None)

    async def delete(self, name: str, *, expected_revision: int | None = None) -> int:
        await self._reach()
        if name not in self.stored:
            raise NotFound(f"there is no watcher {name}")
        if expected_revision is not None and self.stored[name].revision != expected_revision:
            raise Conflict(f"{name} was changed meanwhile")
        del self.stored[name]
        self.last += 1
        return self.last

    async def restore(self, lost: Sequence[StoredWatcher], applied: int) -> bool:
        await self._reach()
        if self.stored or self.last > applied:
            return False
        self.stored = {one.name: one for one in lost}
        self.last = applied + 1
        return True

    async def attend(self, instance: str, applied: int) -> None:
        await self._reach()
        self.instances[instance] = applied

    async def leave(self, instance: str) -> None:
        await self._reach()
        self.instances.pop(instance, None)

    async def behind(self, instance: str, revision: int) -> int:
        await self._reach()
        return sum(name != instance and applied < revision for name, applied in self.instances.items())


class NullObserver:
    """An observer that keeps the sums a test may ask for."""

    def __init__(self) -> None:
        self.published_events = 0
        self.skips: dict[str, int] = {}
        self.states: list[State] = []
        self.restarts: list[str] = []
        self.checkpoints = 0
        self.letters: dict[str, int | None] = {}
        self.at_risk: dict[str, bool] = {}
        self.overdues: dict[str, bool] = {}

    def published(self, batch: Published) -> None:
        self.published_events += len(batch.changes)

    def skipped(self, watcher: str, reason: str, count: int) -> None:
        self.skips[reason] = self.skips.get(reason, 0) + count

    def publish_failed(self, watcher: str, subject: str, count: int) -> None: ...

    def state(self, watcher: str, state: State) -> None:
        self.states.append(state)

    def restarted(self, watcher: str, reason: str) -> None:
        self.restarts.append(reason)

    def position(self, watcher: str, *, lag_seconds: float | None, headroom_seconds: float | None) -> None: ...

    def history_at_risk(self, watcher: str, at_risk: bool) -> None:
        self.at_risk[watcher] = at_risk

    def overdue(self, watcher: str, overdue: bool) -> None:
        self.overdues[watcher] = overdue

    def dead_letters(self, watcher: str, count: int | None) -> None:
        self.letters[watcher] = count

    def checkpointed(self, watcher: str, at: float) -> None:
        self.checkpoints += 1

    def forget(self, watcher: str) -> None: ...

    def command_started(self, database: str, command: str) -> None: ...

    def command_succeeded(self, database: str, command: str, seconds: float) -> None: ...

    def command_failed(self, database: str, command: str, seconds: float) -> None: ...


class FakeMongo:
    """A deployment over one `FakeOplog`; every watcher has its own checkpoint place."""

    def __init__(self, oplog: FakeOplog, batch: int = 500) -> None:
        self.oplog = oplog
        self.batch = batch
        self.places: dict[str, dict[str, Checkpoint]] = {}
        self.refusal: Exception | None = None
        self.undeletable: Exception | None = None
        self.full = False
        """Whether the oplog drops its oldest entries for new ones."""

    async def ping(self) -> int:
        self.oplog.misbehave()
        return BEGIN + self.oplog.moment + 1

    async def read_oplog(self) -> Oplog | None:
        return Oplog(BEGIN + self.oplog.first, self.full)

    async def check_source(self, watcher: Watcher) -> None:
        if self.refusal is not None:
            raise self.refusal

    async def check_token(self, watcher: Watcher, token: str) -> None:
        return

    def source(self, watcher: Watcher) -> FakeSource:
        return FakeSource(self.oplog, self.batch, collection=watcher.source.collection)

    def checkpoints(self, watcher: Watcher) -> FakeCheckpoints:
        checkpoints = FakeCheckpoints(self.places.setdefault(watcher.checkpoint.namespace, {}))
        checkpoints.undeletable = self.undeletable
        return checkpoints


class FakeNats:
    """An account with one stream per name."""

    def __init__(self, *streams: FakeStream) -> None:
        self.streams = {stream.name: stream for stream in streams}
        self.boxes: dict[str, FakeBox] = {}
        self.max_payload = 1024 * 1024
        self.refusal: Exception | None = None
        self.up = True

    async def ping(self) -> None:
        if not self.up:
            raise SinkUnavailable("connection refused")

    async def check_sink(self, watcher: Watcher) -> None:
        if self.refusal is not None:
            raise self.refusal

    def sink(self, watcher: Watcher) -> FakeSink:
        stream = self.streams.setdefault(watcher.sink.stream, FakeStream(watcher.sink.stream, exists=False))
        return FakeSink(stream, watcher, self.max_payload)

    def letters(self, watcher: Watcher) -> "FakeLetters":
        return FakeLetters(self.boxes.setdefault(watcher.sink.stream, FakeBox()), watcher)

    def reader(self, watcher: Watcher) -> "FakeReader":
        stream = self.streams.setdefault(watcher.sink.stream, FakeStream(watcher.sink.stream, exists=False))
        return FakeReader(self, stream, watcher)


class FakeReader:
    """A look at a `FakeStream`."""

    def __init__(self, account: FakeNats, stream: FakeStream, watcher: Watcher) -> None:
        self._account = account
        self._stream = stream
        self._space = watcher.space

    async def _reach(self) -> list[StoredMessage]:
        await asyncio.sleep(0)
        if not self._account.up:
            raise SinkUnavailable("connection refused")
        if self._stream.misfortune is not None:
            raise self._stream.misfortune
        return [
            StoredMessage(m.sequence, 1.7e9, m.subject, {"Nats-Msg-Id": m.change.id}, m.change.body)
            for m in self._stream.messages
            if covers(self._space, m.subject)
        ]

    async def facts(self) -> StreamFacts | None:
        await self._reach()
        stream = self._stream
        if not stream.exists:
            return None
        first = stream.messages[0].sequence if stream.messages else stream.last_sequence + 1
        return StreamFacts(
            stream.name, tuple(stream.subjects), stream.created, "file", "limits", "old", 1, 0, -1, -1, 120,
            len(stream.messages), sum(len(m.change.body) for m in stream.messages), first, stream.last_sequence, 0, (),
        )  # fmt: skip

    async def newest(self) -> int:
        found = await self._reach()
        return found[-1].sequence if found else 0

    async def last(self, count: int) -> list[StoredMessage]:
        return (await self._reach())[-count:] if count else []

    async def after(self, sequence: int, limit: int) -> list[StoredMessage]:
        return [message for message in await self._reach() if message.sequence > sequence][:limit]
