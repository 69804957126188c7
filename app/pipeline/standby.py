"""Standing by while another instance publishes the same watcher, and noticing when it has gone silent.

A writer that keeps losing races stops competing. It follows the stream's end, one small request a second. Only while
that end does not move does it look whether changes are waiting. Before it takes over, the watcher's task asks whether
the watcher is still wanted.
"""

import asyncio
from dataclasses import replace

from app.domain.errors import EventNotEncodable, Stale
from app.domain.evidence import claim_of_message
from app.domain.position import Reached, check_searched, news
from app.domain.tokens import token_of
from app.pipeline.proof import Proof
from app.pipeline.run import Run

LOOK_SECONDS = 1.0
PROVE_SECONDS = 10.0
"""How often what the other writer publishes is proved to be of this deployment, while it does."""


class Standby:
    """One stay in FENCED. The run state holds the position that was known to be on the stream when it began."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._source, self._sink, self._checkpoints = run.ports.source, run.ports.sink, run.ports.checkpoints
        self._operations = frozenset(run.watcher.sink.operations)
        self._codec = run.shared.codec
        self._run_state = run.state
        self._proof = Proof(self._source, run.state)
        self._prove_at = 0.0
        self._end = 0
        """The stream's last sequence as last seen."""

    async def until_silent(self) -> None:
        """Return once changes have waited for `silence_seconds` and no instance has published.

        Raises Stale where a later epoch began or the stream was recreated, TransientError, PermanentError."""
        reading = False
        waiting_since: float | None = None
        try:
            await self._source.prepare()
            await self._sink.prepare(may_create=False)
            while True:
                if await self._moved():
                    waiting_since = None
                    if reading:
                        await self._source.close()
                        reading = False
                elif waiting_since is None:
                    if not reading:
                        await self._catch_up()
                        await self._source.open(token_of(self._reached.token))
                        reading = True
                    if await self._changes_wait():
                        waiting_since = self._run.now()
                elif self._run.now() - waiting_since >= self._run.shared.tuning.silence_seconds:
                    await self._catch_up()
                    return
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await self._source.close()
            await self._sink.close()

    @property
    def _reached(self) -> Reached:
        if self._run_state.reached is None:
            raise Stale("nothing was reached yet")
        return self._run_state.reached

    async def _moved(self) -> bool:
        """Whether another instance has published since the last look; takes the position over."""
        reached = self._reached
        tail = news(await self._sink.tail(since=reached.sequence or 0), reached)
        if tail.created != reached.stream_created:
            raise Stale("the stream was deleted and recreated")
        check_searched(tail)
        if tail.own is not None and tail.own.id.epoch > reached.epoch:
            raise Stale(f"another instance publishes in epoch {tail.own.id.epoch}")
        went_on, self._end = 0 < self._end < tail.end, tail.end
        if tail.own is None or tail.own.id.epoch < reached.epoch or tail.own.id.position <= reached.token:
            if not tail.counts:  # not to search again through what others publish here
                self._run_state.saw_end(tail.end)
            elif went_on:  # what came is gone already; its writer stores how far it is
                return await self._catch_up()
            return False
        proved = self._run.now() >= self._prove_at
        if proved:
            await self._proof.of(claim_of_message(tail.own, self._run.watcher.sink.stream))
            self._prove_at = self._run.now() + PROVE_SECONDS
        own, later = tail.own, tail.own.sequence > (reached.sequence or 0)
        self._run_state.followed(Reached(
            own.id.position, reached.epoch, own.sequence if tail.counts else tail.end, tail.created, own,
            proved=proved, counted=tail.counts and not tail.foreign and (reached.counted or later), ahead=reached.ahead,
        ))  # fmt: skip
        return True

    async def _catch_up(self) -> bool:
        """Take the stored position over where it is later: like the oplog, it moves on in the quiet too.

        With its sequence, since what comes after a position is counted from there. Returns whether it is later."""
        stored, reached = await self._checkpoints.read(), self._reached
        if stored is None or stored.epoch != reached.epoch or stored.token <= reached.token:
            return False
        if stored.sequence is None or stored.sequence < (reached.sequence or 0):
            self._run_state.followed(replace(reached, token=stored.token, counted=False))
        else:
            own = stored.own if stored.own is not None else reached.own
            self._run_state.followed(Reached(
                stored.token, reached.epoch, stored.sequence, stored.stream_created, own,
                proved=stored.native is True, counted=stored.counted, ahead=reached.ahead,
            ))  # fmt: skip
        return True

    async def _changes_wait(self) -> bool:
        batch = await self._source.read()
        self._run_state.replied(batch.operation_time)
        return any(self._operation(raw) in self._operations for raw in batch.events)

    def _operation(self, raw: bytes) -> str:
        try:
            return self._codec.encode(raw, "").operation
        except EventNotEncodable:
            return self._codec.identify(raw)[1]
