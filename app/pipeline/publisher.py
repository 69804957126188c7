"""Publishing a batch for certain: fenced, and after any unknown outcome read back instead of guessed.

The capture hands over batches; this puts each change on the stream once and in order, or raises what ended the attempt.
It holds the fence (the sequence that the next publish expects) and moves `RunState.reached` forward. Not its business:
where the changes come from, when to try again after the server is gone (`control/supervisor.py`).
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from app.domain.counted import Counted
from app.domain.dead_letters import Unpublishable, name_of
from app.domain.errors import (
    Fenced,
    FenceLost,
    OutcomeUnknown,
    SeenBefore,
    SinkUnavailable,
    Stale,
    StreamFull,
)
from app.domain.events import Change
from app.domain.evidence import claim_of_read_back
from app.domain.gap import OPERATION as GAP
from app.domain.position import GoOn, OwnMessage, Reached, Tail, count_gone, decide_read_back, last_own, unseen
from app.domain.tokens import parse_message_id
from app.domain.watcher import Watcher
from app.pipeline.proof import Proof
from app.pipeline.run_state import RunState
from app.pipeline.run_statistics import RunStatistics
from app.pipeline.window_recovery import WindowRecovery
from app.ports import DeadLetterQueue, EventSink, Observer, Published

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


async def is_displaced(sink: EventSink, tail: Tail, reached: Reached | None) -> bool:
    """Look whether another message has the place of our last one.

    Raises SinkUnavailable, StreamRefused, NotAuthorised."""
    own = unseen(tail, reached)
    return own is not None and await sink.holds(own) is False


class Publisher:
    """One capture's way onto its stream. One caller at a time."""

    def __init__(
        self,
        watcher: Watcher,
        sink: EventSink,
        letters: DeadLetterQueue,
        run_state: RunState,
        statistics: RunStatistics,
        window_recovery: WindowRecovery,
        proof: Proof,
        observer: Observer,
        *,
        losses: int,
        clock: Callable[[], float],
    ) -> None:
        self._watcher = watcher
        self._sink = sink
        self._letters = letters
        self._run_state = run_state
        self._statistics = statistics
        self._window_recovery = window_recovery
        self._proof = proof
        self._observer = observer
        self._losses = losses
        self._clock = clock
        self._subjects = {operation: watcher.subject(operation) for operation in (*watcher.sink.operations, GAP)}
        self._fence = 0
        self._batch = run_state.batch
        self._sent = ""
        """The last token of what went out and may still arrive: nothing was heard of it."""
        self._gone = Counted()

    def begin(self, reached: Reached, fence: int, *, gone: int = 0, until: int = 0) -> None:
        """Take over the position that the opening has decided.

        The next `gone` changes are published already, and none of them is later than `until` (in seconds since 1970).
        """
        if self._run_state.begin(reached, self._watcher.route):
            self._statistics.overdue.progressed(self._clock())  # somebody has published what waited
        self._fence, self._gone = fence, Counted(gone, until)

    @property
    def behind(self) -> bool:
        """Whether changes are still to come that are published already."""
        return self._gone.left > 0

    @property
    def reached(self) -> Reached:
        """The position up to which all is acknowledged."""
        assert self._run_state.reached is not None, "begin comes first"
        return self._run_state.reached

    @property
    def fence(self) -> int:
        """The sequence that the next publish expects."""
        return self._fence

    async def publish(self, changes: Sequence[Change], read_at: float) -> None:
        """Put the changes on the stream, each once and in order, whoever else may be writing.

        One that cannot be published is stored among the dead letters, when all before it is acknowledged.
        `read_at` is the perf_counter() at which they were read. Raises SinkUnavailable, StreamRefused, NotAuthorised,
        StoreUnavailable, PositionUndecidable, Stale, Fenced."""
        waiting = changes
        if changes[0].token <= self.reached.token:
            # Reading back may have moved the position past what was still on its way here.
            waiting = self._not_there_yet(changes, self.reached.token)
        unknown = pauses = 0
        while waiting:
            if waiting[0].letter is not None:
                waiting = await self._set_aside(waiting, waiting[0].letter)
                continue
            if self._gone.left:
                waiting = self._pass_over(waiting)
                continue
            unit = await self._cut(waiting)
            began = time.perf_counter()
            try:
                sequence = await self._sink.publish(unit, self._fence)
            except StreamFull as error:
                if error.stored:
                    waiting = self._begun(waiting, unit, error, began, read_at)
                    pauses = 0
                pauses = await self._make_do(error, pauses)
                continue
            except OutcomeUnknown as error:
                before = len(waiting)
                if error.stored:
                    waiting = self._begun(waiting, unit, error, began, read_at)
                await self._window_recovery.keep(error, self.reached.epoch)
                rest = await self._resolve(waiting, len(unit) - error.stored, error)
                unknown, pauses = (0, 0) if len(rest) < before else (unknown + 1, pauses)
                if unknown >= MAX_UNKNOWN:
                    raise SinkUnavailable(f"{unknown} publishes in a row had no certain outcome: {error}") from error
                waiting = self._fitting(rest)
                continue
            self._acknowledged(unit, sequence, began, read_at)
            self._batch.stored(len(unit))
            waiting = waiting[len(unit) :]
            unknown = pauses = 0

    async def mark(self, marker: Change, before: Reached, fence: int) -> None:
        """Put a gap's marker on the stream after `fence`, and begin at the position that it stands for.

        `before` is where the stream is. Raises Stale where it is not certain that the marker is there, or somebody
        else was faster: the stream tells, to an opening, whether there is still a gap to be marked. Raises
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
        self.begin(replace(before, token=marker.token), fence)
        self._acknowledged([marker], sequence, began, began)

    async def refresh(self) -> None:
        """Read the stream's end, and take its position and fence over. Raises as `publish`."""
        await self._read_back((), None)

    async def publish_out_of_turn(self, change: Change) -> int:
        """Publish one message that does not move the position, and return its sequence. Raises as `EventSink.publish`.

        After an unknown outcome `recover` comes next."""
        began = time.perf_counter()
        sequence = await self._sink.publish([change], self._fence)
        self._acknowledged([change], sequence, began, began)
        return sequence

    async def recover(self, error: OutcomeUnknown) -> None:
        """Find out where the stream stands after a message out of turn. Raises as `publish`."""
        await self._window_recovery.keep(error, self.reached.epoch)
        await self._read_back((), error, out_of_turn=1)

    def come_to(self, position: str) -> None:
        """Give the count up where the changes that it tells of should have come by now. Raises PositionUndecidable.

        Where no change was passed over, the messages were not the watcher's, and nothing is missing."""
        gone, reached = self._gone, self.reached
        if not gone.overdue(position):
            return
        if gone.since is not None:
            self._run_state.took_back(gone.since)  # the next opening finds the same
            raise gone.refusal(gone.since, self._watcher.space)
        log.warning("count_given_up", watcher=self._watcher.name, token=reached.token, left=gone.left)
        self._run_state.gave_up_count(gone.give_up(reached))

    def _pass_over(self, waiting: Sequence[Change]) -> Sequence[Change]:
        """Leave out the changes that were counted as published, up to the next dead letter. Raises as `come_to`."""
        passed, reached = self._gone.pass_over(waiting, self.reached)
        if passed:
            self._run_state.passed_over(reached)
            self._statistics.overdue.progressed(self._clock())
            self._already_there(passed)
        rest = waiting[passed:]
        if rest and rest[0].letter is None:
            self.come_to(rest[0].token)
        return rest

    async def _set_aside(self, waiting: Sequence[Change], letter: Unpublishable) -> Sequence[Change]:
        """Store the first change among the dead letters, and then move past it; return what is left.

        Until the position behind it is stored, or a later change published, whoever opens the watcher comes here
        again, and finds the letter there. A writer that was frozen looks first whether others have gone past it.
        """
        name = self._watcher.name
        waiting = await self._read_back(waiting, None)
        if not waiting or waiting[0].letter is not letter:
            return waiting
        new = await self._letters.store(letter, self.reached.epoch)
        self._statistics.overdue.progressed(self._clock())
        if new and self._gone.left:  # by other settings it may have been a message, and counted as one
            log.warning("count_given_up", watcher=name, token=letter.token, left=self._gone.left)
            self._run_state.gave_up_count(self._gone.give_up(self.reached))
        self._run_state.came_to(letter.token)
        self._statistics.skipped += 1
        self._observer.skipped(name, letter.reason, 1)
        if new:
            self._statistics.add_dead_letter()
        log.warning(
            "dead_letter", watcher=name, token=name_of(letter.token), operation=letter.operation, reason=letter.reason,
            error=letter.error, bytes=len(letter.raw), new=new,
        )  # fmt: skip
        return waiting[1:]

    def _begun(
        self,
        waiting: Sequence[Change],
        unit: Sequence[Change],
        error: OutcomeUnknown | StreamFull,
        began: float,
        read_at: float,
    ) -> Sequence[Change]:
        """Take over what is stored of a unit that did not pass as a whole; return what is left."""
        self._acknowledged(unit[: error.stored], error.sequence, began, read_at)
        return waiting[error.stored :]

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

    async def _cut(self, waiting: Sequence[Change]) -> Sequence[Change]:
        """Take as many changes from the front as one publish carries; bodies too large go to the object store."""
        unit: list[Change] = []
        size = 0
        for change in waiting[: self._batch.count]:
            if change.letter is not None:
                break
            size += len(change.body if change.pointer is None else change.pointer) + len(change.id) + HEADER_BYTES
            if unit and size > MAX_BYTES:
                break
            unit.append(change if change.pointer is None else await self._sink.claim_check(change, change.pointer))
        return unit

    async def _resolve(self, waiting: Sequence[Change], tried: int, error: OutcomeUnknown) -> Sequence[Change]:
        """Find out what a publish of `tried` changes came to, and return what still has to be published."""
        before = self.reached.token
        if not isinstance(error, FenceLost | SeenBefore):
            self._sent = max(self._sent, waiting[tried - 1].token)
        rest = await self._read_back(waiting, error)
        if isinstance(error, FenceLost | SeenBefore):
            if self.reached.token > before:
                if self.reached.token > self._sent:  # else a late batch of our own was there first
                    self._count_loss()
            elif isinstance(error, SeenBefore):
                return await self._publish_singly(rest, tried)
        else:
            self._observer.publish_failed(self._watcher.name, self._subjects[waiting[0].operation], tried)
            self._batch.doubted(tried)
        return rest

    async def _read_back(
        self, waiting: Sequence[Change], error: OutcomeUnknown | None, *, out_of_turn: int = 0
    ) -> Sequence[Change]:
        """Read the stream's end, take its position and fence over, and return what is not there yet.

        `error` is what made that necessary, None for a look beforehand; `out_of_turn` how many messages that are no
        changes may be there because of it. Raises Fenced where the stream counts messages that are gone and that this
        writer has not sent: another instance's, as long as nobody else may publish here."""
        reached = self.reached
        tail = await self._sink.tail(since=reached.sequence or 0)
        await self._window_recovery.settle(reached.epoch)
        displaced = await is_displaced(self._sink, tail, reached)
        now: GoOn = decide_read_back(reached=reached, tail=tail, exclusive=self._sink.exclusive, displaced=displaced)
        stream, tokens = self._watcher.sink.stream, {change.token for change in waiting}
        await self._proof.of(claim_of_read_back(now, reached=reached, tail=tail, waiting=tokens, stream=stream))
        if now.token > reached.token:
            self._statistics.overdue.progressed(self._clock())
        rest = self._not_there_yet(waiting, now.token)
        if now.token > reached.token:
            self._gone.left = 0  # what was counted lies before that
        hidden = max(0, count_gone(tail, reached) - self._gone.left - out_of_turn)
        # Consumed before we could look: so many of those that were sent are stored.
        sent = sum(change.token <= self._sent for change in rest) if hidden else 0
        strange = hidden > sent
        token = rest[hidden - 1].token if hidden and not strange else now.token
        own = last_own(tail, reached.epoch, reached.own)
        counted = reached.counted and tail.counts and not tail.foreign and not strange
        end = tail.end - self._gone.left
        self._run_state.read_back(replace(reached, token=token, sequence=end, own=own, counted=counted))
        self._fence = now.fence
        rest = self._not_there_yet(rest, token)
        level = log.debug if error is None else log.info
        level(
            "read_back", watcher=self._watcher.name, cause=type(error).__name__, error=str(error),
            there=len(waiting) - len(rest), rest=len(rest), fence=now.fence, hidden=hidden,
        )  # fmt: skip
        if strange:
            self._run_state.gave_way()
            raise Fenced(f"another writer has published {hidden} messages that are gone already; waiting for it")
        return rest

    def _not_there_yet(self, waiting: Sequence[Change], position: str) -> Sequence[Change]:
        rest = [change for change in waiting if change.token > position]
        if there := len(waiting) - len(rest):
            self._already_there(there)
        return rest

    def _already_there(self, count: int) -> None:
        self._statistics.skipped += count
        self._observer.skipped(self._watcher.name, "already_there", count)

    async def _publish_singly(self, waiting: Sequence[Change], count: int) -> Sequence[Change]:
        """Publish the first `count` one by one: the duplicate window knows one of them, though the stream does not."""
        unit = await self._cut(waiting[:count])
        for index, change in enumerate(unit):
            began = time.perf_counter()
            try:
                sequence = await self._sink.publish_singly(change, self._fence)
            except OutcomeUnknown as error:
                if not isinstance(error, FenceLost | SeenBefore):
                    self._sent = max(self._sent, change.token)
                return await self._read_back(waiting[index:], error)
            self._acknowledged([change], sequence, began, began)
        return waiting[len(unit) :]

    def _count_loss(self) -> None:
        if self._run_state.lost_race() >= self._losses:
            self._run_state.gave_way()
            raise Fenced(f"another writer was faster {self._losses} times in a row")

    def _acknowledged(self, unit: Sequence[Change], sequence: int, began: float, read_at: float) -> None:
        now, wall = time.perf_counter(), self._clock()
        id_ = parse_message_id(unit[-1].id)
        own = self.reached.own
        if id_ is not None and sequence > self._fence:  # else the stream knew the change and has no message of it
            own = OwnMessage(sequence, id_)
        self._fence, self._sent = sequence, ""  # what went out before and has not arrived never will
        self._run_state.published(unit[-1].token, sequence, own)
        self._statistics.add_published(len(unit), unit[-1].wall_time or wall, wall)
        self._observer.published(
            Published(
                watcher=self._watcher.name,
                collection=self._watcher.source.collection,
                subjects=self._subjects,
                changes=unit,
                read_seconds=now - read_at,
                publish_seconds=now - began,
                acked_at=wall,
            )
        )
