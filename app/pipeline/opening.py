"""Opening a watcher: find where to go on, and be ready to read and publish from there.

Theory of operation
===================

Three places tell how far a watcher has got. None of them is right always, and each is lost in another way:

    place          written                      knows                            does not know
    -------------  ---------------------------  -------------------------------  -----------------------------------
    stream's end   by each publish, atomically  the last change that is really   changes that were not published
                   with the message             there, and its epoch             (skipped, dead letters, quiet time);
                                                                                 what was purged, expired, consumed
    checkpoint     after the acknowledgement,   a position that was true some    what was published since; whether it
                   at most twice a second       time ago, with the stream's      is a copy from another deployment
                                                sequence and creation time       (its `home` tells)
    memory         with each acknowledgement    exactly how far this process     anything after a restart; what other
                   (`run_state.py`)             got                              instances did since

The rule is: **go on at the latest position of the latest epoch that any of the three tells.** Each of them is true of
its time, and tokens of one deployment compare in stream order, so the latest is the one to trust. The epoch comes
first: a rewind begins a new one, and what was published before it says nothing any more.

The order of reading
--------------------

1. MongoDB's operationTime, then the checkpoint. A checkpoint later than that time is another deployment's, or a
   server lags. The look is repeated for some seconds before the checkpoint is refused.
2. The stream is found, or created. It is created only where neither checkpoint nor memory has seen one. Otherwise its
   messages would be missing silently.
3. The stream's end, *after* the checkpoint. The other way round, an instance that publishes and stores between the two
   reads would leave us with an old end and a new checkpoint, which looks as if the stream had lost messages. This way
   the end can only be later than what the checkpoint knows. Where messages of others came after our last one, the
   search for it goes back to what the earlier of checkpoint and memory has seen; nothing before that can be news.
4. Where the stream's creation time is another one, our last known message is looked up in its place. It is there: the
   stream was restored or moved, and is the same. It is not: the stream was recreated, and is read again from its end
   without what was known of the old one's sequences.
5. Where the end is earlier than our last known message, its place is looked at. Nothing there: it expired or was
   consumed, which is no loss. Another message there, or an end before that place: the server lost its end (it syncs
   lazily). What is left of ours lies before what was searched, so the end is read once more, from further back, and
   the place is looked at again: others may have published up to it meanwhile.

The decision
------------

Then everything is known, and `domain/opening.py` decides without awaiting, by the first row that fits:

    what is known                            where it goes on
    ---------------------------------------  ------------------------------------------------------------------------
    no position, an explicit start is asked  at that start, in a new epoch: what the stream holds is of an earlier life
    for
    no position, a message of ours           after that message
    no position at all                       at the watcher's start
    the stream was recreated                 after a gap that is marked, in a new epoch; FAILED if the user wants that
    the stream lost its end                  after our last message that is left, so what was lost is published again;
                                             FAILED if none is left
    anything else                            at the latest position

It is FAILED, too, where so many messages of others came last that the search for ours was given up. A person who sets
the token answers all of this: such a checkpoint has an epoch of its own and no sequence yet.

The act
-------

The plan is carried out in an order that any crash may interrupt:

6. *Prove* the position, if the plan says so. Nothing has been written yet, so a refusal changes nothing.
7. *Settle* places on the stream that another message may have taken. They were stored for this moment.
8. On a first start, resolve the start position and *store* it, if no instance was faster. This comes before the first
   read: a crash later finds a checkpoint, not a start that would mean a later moment by then.
9. Where the count of messages is no longer certain, *withdraw* it from the stored position. The next checkpoint may be
   far off, and until then a crash would count messages of others as changes.
10. *Open* the change stream. If MongoDB no longer has the position (or the stream was recreated) and the user wants to
   go on, *mark the gap* on the stream, as a fenced publish, and store the position after it at once: where the marker
   is consumed, only the checkpoint tells that the gap is marked.
11. *Begin*: the ledger takes over position, fence and count.

What each crash leaves behind
-----------------------------

    a crash                                the next opening
    -------------------------------------  --------------------------------------------------------------------------
    before 8                               finds what this one found
    between 8 and the first publish        goes on at the stored first position
    between publish and acknowledgement    finds the batch on the stream, whole or not at all (without atomic batches:
                                           from its front on), and goes on after what is there
    between acknowledgement and            finds the stream's end ahead of the checkpoint. If the messages are gone by
    checkpoint                             then (a work queue), the stream's sequence counts them: as many changes
                                           after the checkpoint are passed over
    between marker and its checkpoint      finds the marker on the stream; its id holds the position to go on from
    after a race was lost                  finds what the winner has published, and the fence after it

Two instances may do all this at once. Nothing here excludes that, and nothing needs to: the fence does. Whichever
publishes second expects a sequence that is no longer the last one.
"""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import structlog

from app.domain.counted import published_until
from app.domain.dead_letters import name_of
from app.domain.errors import ChangewireError, HistoryLost, SourceUnavailable, Stale
from app.domain.gap import OPERATION as GAP
from app.domain.gap import Gap, history_gap, moment
from app.domain.opening import Facts, FirstStart, Plan, Refill, decide_opening
from app.domain.position import Checkpoint, Reached, check_scope, known_until, last_known, recreated
from app.domain.tokens import token_of
from app.domain.watcher import Start
from app.pipeline.checkpointer import Checkpointer
from app.pipeline.entry_positions import EntryPositions
from app.pipeline.ledger import Ledger
from app.pipeline.proof import Proof
from app.pipeline.publisher import Publisher
from app.pipeline.run import Run
from app.pipeline.stream_end import is_displaced, recognised
from app.pipeline.window_recovery import WindowRecovery

log = structlog.get_logger(__name__)


class Opening:
    """One opening of one watcher. The numbers are those of the theory of operation."""

    def __init__(
        self,
        run: Run,
        ledger: Ledger,
        publisher: Publisher,
        checkpointer: Checkpointer,
        gap_comes: Callable[[str], Awaitable[None]],
    ) -> None:
        self._run = run
        self._watcher = run.watcher
        self._source, self._sink, self._checkpoints = run.ports.source, run.ports.sink, run.ports.checkpoints
        self._ledger = ledger
        self._publisher = publisher
        self._checkpointer = checkpointer
        self._gap_comes = gap_comes
        self._window_recovery = WindowRecovery(run.watcher, self._sink, self._checkpoints, run.state)
        self._proof = Proof(self._source, run.state)
        self._until = 0
        """The time up to which the changes were published whose messages are gone, in seconds since 1970."""

    async def open(self) -> Reached:
        """Open the watcher, and return the position from which the change stream is read.

        Raises TransientError, PermanentError, and Stale where another instance was faster."""
        async with self._run.shared.opening_gate.passing():  # not while the stream opens, which waits for the others
            plan, facts, reached = await self._find_place()
        gap = await self._open_source(plan, token_of(reached.token))  # 10
        if gap is None:
            self._ledger.begin(reached, plan.beginning.fence, gone=plan.count.gone, until=self._until)  # 11
        else:
            await self._gap_comes(reached.token)
            await self._mark_gap(gap, reached, plan.beginning.fence)
        await self._tell(plan, facts.checkpoint)
        return self._ledger.reached

    async def _find_place(self) -> tuple[Plan, Facts, Reached]:
        """Decide where to go on, and store what has to be stored before the first read: 1 to 9."""
        facts = await self._look()
        plan = decide_opening(facts, self._run.stored, self._run.now())
        await self._proof.of_opening(plan.claim)  # 6
        self._window_recovery.recall(facts.checkpoint)
        await self._window_recovery.settle(plan.beginning.epoch, facts.tail.end)  # 7
        reached = plan.reached(await self._position(plan), facts.tail)
        if self._watcher.entries and facts.checkpoint is not None:
            reached = replace(reached, ahead=facts.checkpoint.ahead)
            self._source.pass_over(reached.ahead)
        if plan.lost_end:
            last = facts.tail.last_sequence
            log.warning("stream_lost_its_end", watcher=self._watcher.name, token=reached.token, last=last)
        # Asked for again, since another instance may have published until the stream's end was read.
        if plan.count.gone:
            self._until = published_until(await self._source.prepare(), facts.tail)
        await self._store(plan, reached)  # 8, 9
        await self._complete(facts, reached)
        return plan, facts, reached

    async def _look(self) -> Facts:
        """Read what the decision needs: 1 to 5."""
        source, sink, memory = self._source, self._sink, self._run.state.reached
        operation_time = await source.prepare()
        self._run.state.prepared(operation_time)
        checkpoint = await self._checkpoints.read()
        self._check_scope(checkpoint, operation_time)
        was_there = any(known is not None and known.stream_created for known in (checkpoint, memory))
        await sink.prepare(may_create=not was_there)
        tail = await sink.tail(since=known_until(checkpoint, memory))
        checkpoint = await recognised(checkpoint, tail, sink, self._watcher)
        memory = await recognised(memory, tail, sink, self._watcher)
        if any(recreated(tail, known) for known in (checkpoint, memory) if known is not None):
            tail = await sink.tail()
        displaced = await is_displaced(sink, tail, last_known(tail, checkpoint, memory))
        if Facts(tail, checkpoint, memory, sink.exclusive, displaced).lost_end:
            tail = await sink.tail()
            # Other messages may have come between the two looks, and filled the place: the end is lost all the same.
            displaced = displaced or await is_displaced(sink, tail, last_known(tail, checkpoint, memory))
        if tail.foreign:
            name, space = self._watcher.name, self._watcher.space
            log.warning("foreign_messages", watcher=name, space=space, count=tail.foreign)
            self._run.shared.observer.skipped(name, "foreign", tail.foreign)
        facts = Facts(tail, checkpoint, memory, sink.exclusive, displaced)
        return await EntryPositions(self._run, self._proof).told(facts) if self._watcher.entries else facts

    def _check_scope(self, checkpoint: Checkpoint | None, operation_time: int) -> None:
        if checkpoint is not None:
            looks = self._run.state.look_at_checkpoint()
            for known, scope in self._scopes(checkpoint):
                check_scope(known, scope=scope, operation_time=operation_time, looks=looks)
            self._run.state.checkpoint_passed()

    def _scopes(self, checkpoint: Checkpoint) -> list[tuple[Checkpoint, str]]:
        """Return each stored position with the scope that it has to be of: one, or one for each entry that has any."""
        entries, deployment = self._watcher.entries, self._source.scope.partition("/")[0]
        scopes = [f"{deployment}/{entry.source.namespace}" for entry in entries]
        parts = [(part, scope) for part, scope in zip(checkpoint.parts, scopes, strict=True) if part is not None]
        return parts or [(checkpoint, self._source.scope)]

    async def _position(self, plan: Plan) -> str:
        """Return the token to go on from: the decided one, or what the watcher's start means.

        What it meant when the watcher was added, where that is known: what happened since belongs to the watcher."""
        if isinstance(plan.beginning, FirstStart):
            return self._run.stored.begin or await self._source.locate(self._watcher.start)
        return plan.beginning.token

    async def _store(self, plan: Plan, reached: Reached) -> None:
        """Store a first position, or that the stored one is no longer to be counted from."""
        if isinstance(plan.beginning, FirstStart) and not await self._checkpoints.create(self._run.checkpoint(reached)):
            raise Stale("another instance has just stored the first position")
        if plan.count.withdrawn:
            await self._checkpoints.uncount(reached.epoch)

    async def _complete(self, facts: Facts, reached: Reached) -> None:
        """Store where entries begin that have no position yet, before the first event is read, as on a first start."""
        if facts.checkpoint is not None and None in facts.checkpoint.parts:
            await self._checkpoints.advance(self._run.checkpoint(reached))

    async def _open_source(self, plan: Plan, token: str) -> Gap | None:
        """Begin to read after the position, or where that cannot be, from where the user wants; return the gap."""
        wish, beginning = self._watcher.on_history_lost, plan.beginning
        if not isinstance(beginning, Refill):
            try:
                await self._source.open(token)
            except HistoryLost:
                if wish == "fail":
                    raise
            else:
                return None
        try:
            resumed = await self._source.locate(Start("latest" if wish == "latest" else "earliest"))
            await self._source.open(resumed)
        except HistoryLost as error:
            raise SourceUnavailable(f"the oplog moves on faster than it is opened: {error}") from error
        if isinstance(beginning, Refill):
            return Gap("stream_recreated", token, resumed, beginning.epoch)
        return history_gap(token, resumed, beginning.epoch)

    async def _mark_gap(self, gap: Gap, reached: Reached, fence: int) -> None:
        """Mark a gap on the stream, take over the position after it, and store that at once."""
        name = self._watcher.name
        await self._publisher.mark(gap.marker(self._watcher), reached, fence)
        after = self._ledger.reached
        self._run.statistics.note("gap", f"{gap}; a message on {self._watcher.subjects.subject('', '', GAP)} marks it")
        log.warning(
            "gap_marked", watcher=name, reason=gap.reason, after=moment(gap.reached), until=moment(gap.resumed),
            reached=gap.reached, resumed=gap.resumed, epoch=gap.epoch, sequence=after.sequence,
        )  # fmt: skip
        self._checkpointer.note(self._run.checkpoint(after))
        await self._checkpointer.flush()

    async def _tell(self, plan: Plan, checkpoint: Checkpoint | None) -> None:
        """Note what is only shown, and log the opening."""
        statistics, sink = self._run.statistics, self._sink
        with suppress(ChangewireError):
            statistics.dead_letters = await self._run.ports.letters.count()
        statistics.publishes(sink.mode, exclusive=sink.exclusive, slower=sink.slower)
        if checkpoint is not None:
            statistics.checkpointed_at = checkpoint.updated_at
        log.info(
            "watcher_opened", watcher=self._watcher.name, stream=self._watcher.sink.stream,
            token=name_of(self._ledger.reached.token), epoch=plan.beginning.epoch, fence=plan.beginning.fence,
            mode=sink.mode, exclusive=sink.exclusive,
            first=isinstance(plan.beginning, FirstStart), gone=plan.count.gone,
        )  # fmt: skip
