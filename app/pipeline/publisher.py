"""Publishing a batch for certain: fenced, and after any unknown outcome read back instead of guessed.

The capture hands over batches. This puts each change on the stream once and in order, or raises what ended the attempt.
Where the writer is on its stream is kept in the ledger (`ledger.py`). After an error the watcher's task decides when to
try again.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import structlog

from app.domain.dead_letters import Unpublishable, name_of
from app.domain.errors import Fenced, FenceLost, OutcomeUnknown, SeenBefore, SinkUnavailable, Stale, StreamFull
from app.domain.events import Change
from app.domain.gap import OPERATION as GAP
from app.domain.packed import are_plain, front
from app.domain.position import Reached
from app.domain.snapshot import ROW_OPERATIONS
from app.domain.tokens import is_row
from app.pipeline.ledger import Ledger
from app.pipeline.run import Run
from app.ports import Published

log = structlog.get_logger(__name__)

MAX_BYTES = 4 * 1024 * 1024
"""A batch is bounded by bytes too, so that a slow link can carry it before its deadline."""
HEADER_BYTES = 256
"""What a message's headers and subject come to, roughly, without its id."""
MAX_UNKNOWN = 5
"""Unknown outcomes in a row, without any progress, after which the connection counts as unusable."""
PATIENCE_SECONDS = (0.05, 0.1, 0.2, 0.4, 0.8)
"""The pauses in which a stream that does not even take one message may get room, before that ends the attempt: its
consumer may be just about to remove some."""


@dataclass(slots=True)
class Attempts:
    """What has happened since the last progress: outcomes that stayed unknown, and pauses for a stream without room."""

    unknown: int = 0
    pauses: int = 0

    def progressed(self) -> None:
        self.unknown = self.pauses = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """What did not pass as a whole: of the changes `waiting`, the first `tried` were sent, the first of them as `unit`,
    at `began` (by perf_counter), of which `error` tells what is stored."""

    error: StreamFull | OutcomeUnknown
    waiting: Sequence[Change]
    unit: Sequence[Change]
    tried: int
    began: float


class Publisher:
    """One capture's way onto its stream. One publish at a time."""

    def __init__(self, run: Run, ledger: Ledger) -> None:
        self._run = run
        self._watcher = watcher = run.watcher
        self._sink = run.ports.sink
        self._letters = run.ports.letters
        self._statistics = run.statistics
        self._observer = run.shared.observer
        self._ledger = ledger
        self._batch = run.state.batch
        self._subjects = {
            operation: watcher.subject(operation) for operation in (*watcher.sink.operations, *ROW_OPERATIONS, GAP)
        }

    async def publish(self, changes: Sequence[Change], read_at: float) -> None:
        """Put the changes on the stream, each once and in order, whatever other writers do.

        One that cannot be published is stored among the dead letters, when all before it is acknowledged.
        `read_at` is the perf_counter() at which they were read. Raises SinkUnavailable, StreamRefused, NotAuthorised,
        StoreUnavailable, PositionUndecidable, Stale, Fenced."""
        waiting = changes
        if changes[0].token <= self._ledger.reached.token:
            # Reading back may have moved the position past what was still on its way here.
            waiting = self._ledger.not_there_yet(changes)
        await self._publish(waiting, read_at, Attempts())

    async def publish_after(self, failure: Failure, read_at: float) -> None:
        """Find out what became of changes that were sent, and put the rest of them on the stream. Raises as
        `publish`."""
        attempts = Attempts()
        await self._publish(await self._failed(failure, read_at, attempts), read_at, attempts)

    async def _publish(self, waiting: Sequence[Change], read_at: float, attempts: Attempts) -> None:
        ledger = self._ledger
        while waiting:
            if waiting[0].letter is not None:
                waiting = await self._set_aside(waiting, waiting[0].letter)
                continue
            if ledger.behind:
                waiting = ledger.pass_over(waiting)
                continue
            unit = await self._cut(waiting)
            began = time.perf_counter()
            try:
                sequence = await self._sink.publish(unit, ledger.fence)
            except (StreamFull, OutcomeUnknown) as error:
                waiting = await self._failed(Failure(error, waiting, unit, len(unit), began), read_at, attempts)
                continue
            self.acknowledged(unit, sequence, began, read_at)
            waiting = waiting[len(unit) :]
            attempts.progressed()

    async def _failed(self, failure: Failure, read_at: float, attempts: Attempts) -> Sequence[Change]:
        """Take over what is stored of changes that did not pass as a whole; return what has still to be published.

        Raises `failure.error` or SinkUnavailable where patience is over, and as `publish`."""
        error, waiting = failure.error, failure.waiting
        if error.stored:
            self._acknowledged(failure.unit[: error.stored], error.sequence, failure.began, read_at)
            waiting = waiting[error.stored :]
        if isinstance(error, StreamFull):
            if error.stored:
                attempts.pauses = 0
            attempts.pauses = await self._make_do(error, attempts.pauses)
            return waiting
        rest = await self._resolve(waiting, failure.tried - error.stored, error)
        if len(rest) < len(failure.waiting):
            attempts.progressed()
        else:
            attempts.unknown += 1
        if attempts.unknown >= MAX_UNKNOWN:
            raise SinkUnavailable(f"{attempts.unknown} publishes in a row had no certain outcome: {error}") from error
        return self._fitting(rest)

    async def mark(self, marker: Change, before: Reached, fence: int) -> None:
        """Put a gap's marker on the stream after `fence`, and begin at the position that it stands for.

        `before` is where the stream is. Raises Stale where it is not certain that the marker is there, or another
        writer was faster: the stream tells, to an opening, whether there is still a gap to be marked. Raises
        SinkUnavailable, StreamRefused, NotAuthorised as well.
        """
        began = time.perf_counter()
        try:
            try:
                sequence = await self._sink.publish([marker], fence)
            except SeenBefore:  # this very marker was there; whether it has expired or was consumed since is no matter
                sequence = await self._sink.publish_singly(marker, fence)
        except OutcomeUnknown as error:
            raise Stale(f"whether the gap is marked on the stream is not certain: {error}") from error
        self._ledger.begin(replace(before, token=marker.token), fence)
        self._acknowledged([marker], sequence, began, began)

    async def publish_out_of_turn(self, change: Change) -> int:
        """Publish one message that does not move the position, and return its sequence. Raises as `EventSink.publish`.

        After an unknown outcome the ledger is read back next, with `out_of_turn=1`."""
        began = time.perf_counter()
        sequence = await self._sink.publish([change], self._ledger.fence)
        self._acknowledged([change], sequence, began, began)
        return sequence

    async def _set_aside(self, waiting: Sequence[Change], letter: Unpublishable) -> Sequence[Change]:
        """Store the first change among the dead letters, and then move past it; return what is left.

        Until the position after it is stored, or a later change published, every opening comes here again, and finds
        the letter there. A writer that was frozen looks first whether others are ahead of it."""
        name, ledger = self._watcher.name, self._ledger
        waiting = await ledger.read_back(waiting, None)
        if not waiting or waiting[0].letter is not letter:
            return waiting
        new = await self._letters.store(letter, ledger.reached.epoch)
        ledger.set_aside(letter, new=new)
        self._statistics.skipped += 1
        self._observer.skipped(name, letter.reason, 1)
        if new:
            self._statistics.add_dead_letter()
        log.warning(
            "dead_letter", watcher=name, token=name_of(letter.token), operation=letter.operation, reason=letter.reason,
            error=letter.error, bytes=len(letter.raw), new=new,
        )  # fmt: skip
        return waiting[1:]

    async def _make_do(self, error: StreamFull, pauses: int) -> int:
        """Prepare for another attempt after a definite refusal: a smaller batch, or a pause; return the pauses by now.

        Nothing of what was refused is stored, so nothing has to be read back. Raises `error` where patience is over.
        """
        if error.tried > 1:
            self._batch.refused(error.tried, error.limit)
            log.info(
                "batch_refused", watcher=self._watcher.name, tried=error.tried, next=self._batch.count,
                reason=str(error),
            )  # fmt: skip
            return pauses
        if pauses >= len(PATIENCE_SECONDS):
            raise error
        await asyncio.sleep(PATIENCE_SECONDS[pauses])
        return pauses + 1

    def _fitting(self, rest: Sequence[Change]) -> Sequence[Change]:
        """Return what is to be tried again. Raises SinkUnavailable where the server takes less than it did when the
        changes were encoded: they are read again then, and those that are too large dealt with as such."""
        if any(change.pointer is None and change.letter is None and self._sink.too_large(change) for change in rest):
            raise SinkUnavailable("the NATS server takes smaller messages than before; the changes are read again")
        return rest

    def cut(self, waiting: Sequence[Change]) -> Sequence[Change]:
        """Return as many changes from the front as go out together: one at least, up to the next dead letter."""
        return front(waiting, self._batch.count, MAX_BYTES, HEADER_BYTES)

    async def _cut(self, waiting: Sequence[Change]) -> Sequence[Change]:
        """The same; bodies too large go to the object store."""
        unit = self.cut(waiting)
        if are_plain(unit):
            return unit
        return [
            change if change.pointer is None else await self._sink.claim_check(change, change.pointer)
            for change in unit
        ]

    async def _resolve(self, waiting: Sequence[Change], tried: int, error: OutcomeUnknown) -> Sequence[Change]:
        """Find out what a publish of `tried` changes came to, and return what still has to be published."""
        ledger, before = self._ledger, self._ledger.reached.token
        if not isinstance(error, FenceLost | SeenBefore):
            ledger.went_out(waiting[tried - 1].token)
        rest = await ledger.read_back(waiting, error)
        if isinstance(error, FenceLost | SeenBefore):
            if ledger.reached.token > before:
                if ledger.reached.token > ledger.sent:  # else a late batch of our own was there first
                    self._count_loss()
            elif isinstance(error, SeenBefore):
                return await self._publish_singly(rest, tried)
        else:
            self._observer.publish_failed(self._watcher.name, self._subjects[waiting[0].operation], tried)
            self._batch.unanswered(tried)
        return rest

    async def _publish_singly(self, waiting: Sequence[Change], count: int) -> Sequence[Change]:
        """Publish the first `count` one by one: the duplicate window knows one of them, though the stream does not."""
        unit = await self._cut(waiting[:count])
        for index, change in enumerate(unit):
            began = time.perf_counter()
            try:
                sequence = await self._sink.publish_singly(change, self._ledger.fence)
            except OutcomeUnknown as error:
                if not isinstance(error, FenceLost | SeenBefore):
                    self._ledger.went_out(change.token)
                return await self._ledger.read_back(waiting[index:], error)
            self._acknowledged([change], sequence, began, began)
        return waiting[len(unit) :]

    def _count_loss(self) -> None:
        losses = self._run.shared.tuning.losses
        if self._run.state.lost_race() >= losses:
            self._run.state.gave_way()
            raise Fenced(f"another writer was faster {losses} times in a row")

    def acknowledged(self, unit: Sequence[Change], sequence: int, began: float, read_at: float) -> None:
        """Take over that the stream has all of what was sent together."""
        self._acknowledged(unit, sequence, began, read_at)
        self._batch.stored(len(unit))

    def _acknowledged(self, unit: Sequence[Change], sequence: int, began: float, read_at: float) -> None:
        now, wall = time.perf_counter(), self._run.now()
        self._ledger.acknowledged(unit[-1], sequence)
        self._statistics.add_published(len(unit), unit[-1].wall_time or wall, wall)
        if is_row(unit[-1].token):
            self._statistics.rows.add(len(unit), wall)
        self._observer.published(
            Published(
                watcher=self._watcher.name,
                collection=self._watcher.source.collection or self._watcher.source.namespace,
                subjects=self._subjects,
                changes=unit,
                read_seconds=now - read_at,
                publish_seconds=now - began,
                acked_at=wall,
            )
        )
