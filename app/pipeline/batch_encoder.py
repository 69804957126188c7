"""A batch of raw events made into changes: messages, pointers to large ones, and what has to be set aside.

The bytes of a body come from the codec (`formats/`), which is handed in. Order and selection are checked here.
"""

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import repeat
from typing import TypeVar

from app.domain.dead_letters import NOT_ENCODABLE, OVERSIZE, Unpublishable, name_of
from app.domain.errors import EventNotEncodable, MessageTooLarge, PermanentError
from app.domain.events import Change
from app.domain.packed import PackedChanges
from app.domain.raw_events import RawEvents
from app.domain.row_events import RowHead, of_rows
from app.domain.snapshot import HEADER, ROW_OPERATIONS
from app.domain.watcher import Watcher
from app.pipeline.run_statistics import RunStatistics
from app.ports import EventSink, Observer, Rows, SourceBatch

T = TypeVar("T")

YIELD_BYTES = 256 * 1024
"""How much is encoded before other tasks get their turn."""
THREAD_BYTES = 128 * 1024
"""From which size on a batch is given to a thread to be transcoded; a smaller one is done before a thread has begun."""
_ROWS = frozenset(ROW_OPERATIONS)
LEAST_POINTER = 2
"""The bytes of an empty object: the least that a pointer's body takes."""


Pack = Callable[[RawEvents, str, str, Collection[str], tuple[int, int], Sequence[str] | None], PackedChanges | None]
"""Makes one block of a regular batch, or None, from: the events, what follows a token in an id, the token that all have
to be later than, the operations that are published, `EventSink.surely_fits`, and `Template.pieces`."""


PackRows = Callable[[RawEvents, RowHead, str, tuple[int, int], Sequence[str] | None], PackedChanges | None]
"""Makes one block of regular rows, or None, from: what was read, what the rows have in common, the position that all
have to be later than, `EventSink.surely_fits`, and `Template.pieces`."""


@dataclass(frozen=True, slots=True)
class Codec:
    """How a raw event becomes a message: `encode(raw, id_suffix)`, and `reduce(raw, limit)` for one that is too large.

    `identify(raw)` reads token, operation and the document's key of one that cannot be encoded, `names(raw)` database
    and collection, empty where an event has none. Options do a whole batch without the GIL
    (`formats/native.py`): `pack` makes one block of a regular batch, and leaves any other one; `transcode` makes its
    changes, and where it leaves None, `encode` is asked. `pack_rows` is to rows of a snapshot what `pack` is to events.
    """

    encode: Callable[[bytes, str], Change]
    reduce: Callable[[bytes, int], bytes]
    identify: Callable[[bytes], tuple[str, str, str | None]]
    names: Callable[[bytes], tuple[str, str]]
    transcode: Callable[[Sequence[bytes], str], list[Change | None]] | None = None
    pack: Pack | None = None
    pack_rows: PackRows | None = None

    async def transcoded(self, batch: SourceBatch, suffix: str) -> Iterable[Change | None]:
        """What can be made of the batch at once: for each event its change, or None where that is left to `encode`."""
        if self.transcode is None or not batch.events:
            return repeat(None, len(batch.events))
        return await _aside(batch.size, partial(self.transcode, batch.events, suffix))


async def _aside(size: int, work: Callable[[], T]) -> T:
    """Do what lets go of the GIL on a thread, where so many bytes are worth one."""
    return work() if size < THREAD_BYTES else await asyncio.get_running_loop().run_in_executor(None, work)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events are published, and how: these operations, with what follows the token in an id, and with headers."""

    operations: frozenset[str]
    suffix: str
    headers: tuple[tuple[str, str], ...] = ()


class BatchEncoder:
    """One capture's encoding."""

    def __init__(
        self, watcher: Watcher, codec: Codec, sink: EventSink, statistics: RunStatistics, observer: Observer
    ) -> None:
        self._watcher = watcher
        self._codec = codec
        self._sink = sink
        self._statistics = statistics
        self._observer = observer
        self._operations = watcher.operations
        self._subjects = watcher.subjects
        self._pieces = self._subjects.pieces
        self.failure: PermanentError | None = None
        """Why nothing after the last batch can be published. It ends the run once what comes before is published."""

    async def encode(self, batch: SourceBatch, suffix: str, last: str) -> Sequence[Change]:
        """Return the changes of a batch that are to be published, in their order, all later than the token `last`.

        `suffix` follows the token in their ids. The batch has no events afterwards, which frees their memory. Where an
        event cannot be published, the batch ends before it, and the error is the `failure`; where none of its changes
        comes before it, raises PermanentError (MessageTooLarge, EventNotEncodable)."""
        changes = await self._encode(batch, Selection(self._operations, suffix), last)
        if skipped := len(batch.events) - len(changes):
            self._statistics.skipped += skipped
            self._observer.skipped(self._watcher.name, "operation", skipped)
        batch.events = ()  # all is in the changes now, and the batch may be held until they are published
        return changes

    async def chunk(self, rows: Rows, head: RowHead, run: str, last: str) -> Sequence[Change]:
        """Return a chunk of a snapshot's run as changes, all later than the position `last`. Raises as `rows`."""
        documents, pack = rows.documents, self._codec.pack_rows
        if pack is not None and isinstance(documents, RawEvents):
            work = partial(pack, documents, head, last, self._sink.surely_fits, self._pieces)
            packed = await _aside(rows.size, work)
            if packed is not None:
                return packed.with_headers(((HEADER, run),))
        return await self.rows(of_rows(documents, rows.keys, head), run, last)

    async def rows(self, events: RawEvents, run: str, last: str) -> Sequence[Change]:
        """Return events of a snapshot's run as changes, all later than the position `last`. Raises PermanentError
        where one of them cannot be published."""
        batch = SourceBatch(events, last, 0, events.size)
        changes = await self._encode(batch, Selection(_ROWS, "", ((HEADER, run),)), last)
        if self.failure is not None:  # the run's, not the watcher's: its changes go on
            failure, self.failure = self.failure, None
            raise failure
        return changes

    async def _encode(self, batch: SourceBatch, selection: Selection, last: str) -> Sequence[Change]:
        changes = await self._packed(batch, selection, last)
        return await self._one_by_one(batch, selection, last) if changes is None else changes

    async def _packed(self, batch: SourceBatch, selection: Selection, last: str) -> Sequence[Change] | None:
        """Return the changes of a regular batch in one piece; None where it has to be looked at event by event."""
        events, pack = batch.events, self._codec.pack
        if pack is None or not isinstance(events, RawEvents) or not events or batch.reduced:
            return None
        operations = selection.operations
        work = partial(pack, events, selection.suffix, last, operations, self._sink.surely_fits, self._pieces)
        packed = await _aside(batch.size, work)
        return packed.with_headers(selection.headers) if packed is not None and selection.headers else packed

    async def _one_by_one(self, batch: SourceBatch, selection: Selection, last: str) -> Sequence[Change]:
        """Make a change of each event: the reference, for every batch. Raises as `encode`."""
        changes: list[Change] = []
        unyielded = 0
        transcoded = await self._codec.transcoded(batch, selection.suffix)
        for index, (raw, ready) in enumerate(zip(batch.events, transcoded, strict=True)):
            try:
                change = self._change(raw, ready, selection, batch.reduced, last)
            except PermanentError as error:
                if not changes:
                    raise
                self.failure = error
                batch.events, batch.position = batch.events[:index], last
                break
            last = change.token
            if change.operation in selection.operations:
                changes.append(change)
            unyielded += len(raw) if ready is None else 0
            if unyielded > YIELD_BYTES:
                unyielded = 0
                await asyncio.sleep(0)
        return changes

    def _change(
        self, raw: bytes, ready: Change | None, selection: Selection, reduced: tuple[str, ...], last: str
    ) -> Change:
        """Make one change; `ready` is what could be made of it already. Raises as `encode`."""
        try:
            change = self._codec.encode(raw, selection.suffix) if ready is None else ready
        except EventNotEncodable as error:
            change = self._not_encodable(raw, error, reduced)
        if self._pieces is not None and change.letter is None:
            change.subject = self._subjects.subject(*self._codec.names(raw), change.operation)
        if reduced or selection.headers:
            left_out = (("Changewire-Reduced", ", ".join(reduced)),) if reduced else ()
            change = replace(change, headers=(*selection.headers, *left_out))
        if change.token <= last:
            # The protocol rests on tokens that only grow; where they do not, stopping is the only right answer.
            raise PermanentError(
                f"MongoDB delivered token {name_of(change.token)} after {name_of(last)}: the order cannot be kept"
            )
        if change.operation in selection.operations and change.letter is None and self._sink.too_large(change):
            return self._pointing(change, raw, reduced)
        return change

    def _not_encodable(self, raw: bytes, error: EventNotEncodable, reduced: tuple[str, ...]) -> Change:
        """Stand in for a change that has no message. Raises EventNotEncodable where not even its token can be read."""
        token, operation, key = self._codec.identify(raw)
        letter = Unpublishable(token, operation, NOT_ENCODABLE, str(error), raw, key, reduced, self._namespace(raw))
        return Change(token, operation, b"", 0.0, token, letter=letter)

    def _namespace(self, raw: bytes) -> str | None:
        """Return the collection of a change, for its letter; None where the watcher has only one, or it has none."""
        if not self._watcher.source.is_scope:
            return None
        return ".".join(filter(None, self._codec.names(raw))) or None

    def _pointing(self, change: Change, raw: bytes, reduced: tuple[str, ...]) -> Change:
        """Give a change whose message would be too large the small body that will point to the large one, or make it a
        dead letter."""
        oversize, room = self._watcher.sink.oversize, self._sink.room(change)
        size = (
            f"its message of {len(change.body):,} bytes is more than the NATS server takes (max_payload), or the "
            "stream (max_msg_size, max_bytes)"
        )
        if (unusable := self._sink.unusable(change)) is not None:
            size = f"{unusable}; another sink.subject may fit"
        elif room < LEAST_POINTER:
            size = (
                f"its resume token of {len(change.token):,} characters, which holds the document's _id, does not fit "
                "into the headers of a message (64 KiB, and in all what max_payload, max_msg_size and max_bytes allow)"
            )
        if oversize == "dead_letter":
            _, _, key = self._codec.identify(raw)
            letter = Unpublishable(
                change.token, change.operation, OVERSIZE, size, raw, key, reduced, self._namespace(raw)
            )
            return replace(change, body=b"", letter=letter)
        if oversize == "fail" or room < LEAST_POINTER:
            what = f"the {change.operation} with token {name_of(change.token)} cannot be published: {size}"
            if room < LEAST_POINTER:
                raise MessageTooLarge(f"{what}; set sink.oversize to dead_letter, which keeps it beside the stream")
            raise MessageTooLarge(f"{what}; raise the limit, or set sink.oversize to claim_check")
        return replace(change, pointer=self._codec.reduce(raw, room))
