"""Moving a watcher's position on purpose: rewind, skip, start over, go on by another route.

Each move begins a new epoch, so that what is published again has ids of its own and what was published before no longer
counts. The watcher does not run meanwhile, on any instance: the registry and its task see to that.
"""

import structlog

from app.domain.errors import Conflict, HistoryLost, Invalid, StreamRefused, TokenRefused
from app.domain.errors import FieldProblem as Problem
from app.domain.evidence import Claim, claim_of_position
from app.domain.position import Checkpoint, Tail, check_scope, latest, next_epoch
from app.domain.status import TokenView
from app.domain.tokens import cluster_time, token_of
from app.domain.watcher import Start, StoredWatcher, Watcher
from app.pipeline.dependencies import Dependencies
from app.pipeline.proof import Proof
from app.pipeline.run_state import RunState
from app.pipeline.window_recovery import WindowRecovery

log = structlog.get_logger(__name__)


class Positions:
    """Stored positions, read and moved."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._dependencies = dependencies

    async def view(self, watcher: Watcher) -> TokenView:
        """Return the stored position. Raises StoreUnavailable, NotAuthorised."""
        return _view(await self._dependencies.mongo.checkpoints(watcher).read())

    async def move(self, watcher: Watcher, start: Start) -> TokenView:
        """Store a new position in a new epoch.

        Raises Invalid for a position that cannot be, Conflict where somebody else has moved it meanwhile, and what
        servers raise."""
        token = await self.locate(watcher, start)
        stored = await self._dependencies.mongo.checkpoints(watcher).read()
        moved = await self._begin(watcher, token, stored)
        if moved is None:
            raise Conflict(f"{watcher.name} was moved by somebody else at the same moment; look again")
        return _view(moved)

    async def carry_over(self, watcher: Watcher, run_state: RunState) -> None:
        """Where the position is one of another stream, subject or selection of changes, go on from it by the new route.

        The watcher runs on no instance. Its route is another one since it was replaced, or removed and added; a
        new epoch begins, since what was published by the old route does not count on the new one.
        Raises what servers raise."""
        stored = await self._dependencies.mongo.checkpoints(watcher).read()
        before = (stored.route if stored is not None else None) or run_state.route
        if before is None or before == watcher.route:
            return
        old = watcher.on_route(before)
        memory = run_state.reached if run_state.route == before else None
        tail = await self._settled_tail(old, stored, run_state)
        last = latest(stored, tail, memory)
        if last is not None:
            token, epoch = last
            await self._prove(
                claim_of_position(
                    token, epoch, tail=tail, checkpoint=stored, memory=memory, stream=old.sink.stream
                ), old, run_state,
            )  # fmt: skip
            moved = await self._begin(watcher, token, stored, old)
            log.info(
                "position_carried_over", watcher=watcher.name, token=token, before=before.stream,
                epoch=None if moved is None else moved.epoch,
            )  # fmt: skip
        run_state.forget_position()

    async def _prove(self, claim: Claim | None, old: Watcher, run_state: RunState) -> None:
        """Look whether a position is one of this deployment. Raises as `Proof.of`."""
        if claim is None:
            return
        source = self._dependencies.mongo.source(old)
        try:
            run_state.prepared(await source.prepare())
            await Proof(source, run_state).of_opening(claim)
        finally:
            await source.close()

    async def copy(self, before: StoredWatcher, after: Watcher) -> None:
        """Take the stored position to another collection, which holds none of another watcher. Raises Conflict."""
        place, target_place = before.watcher.checkpoint, after.checkpoint
        if (place and place.namespace) == (target_place and target_place.namespace):
            return
        stored = await self._dependencies.mongo.checkpoints(before.watcher).read()
        if before.begin is not None or (stored is not None and stored.watcher not in (None, before.name)):
            return  # it never ran: what is there is another watcher's
        target = self._dependencies.mongo.checkpoints(after)
        if stored is None or await target.create(stored):
            return
        there = await target.read()
        if (
            there is not None
            and there.watcher == stored.watcher
            and (
                there.epoch == stored.epoch
                # A watcher's name is its own: what is kept under it is from when it was kept there before.
                or (target_place is None and (there.epoch or 0) < (stored.epoch or 0))
            )
        ):
            await target.advance(stored)  # a copy of an earlier attempt, or from when it was kept there before
        else:
            where = "the state database" if target_place is None else target_place.namespace
            raise Conflict(
                f"{where} holds a position already, of another watcher or from an earlier time; "
                "name another checkpoint.collection, or delete what is there"
            )

    async def locate(self, watcher: Watcher, start: Start) -> str:
        """Return the token of a start position as of now, changing nothing.

        Raises Invalid on `token`, `timestamp` or `at`, and what servers raise."""
        if start.at == "token":
            await self._dependencies.mongo.check_token(watcher, str(start.value))
        source = self._dependencies.mongo.source(watcher)
        try:
            await source.prepare(may_create=False)
            return await source.locate(start)
        except (HistoryLost, TokenRefused) as error:
            field = start.at if start.value is not None else "at"
            raise Invalid(problems=(Problem(field, str(error)),)) from error
        finally:
            await source.close()

    async def _begin(
        self, watcher: Watcher, token: str, stored: Checkpoint | None, old: Watcher | None = None
    ) -> Checkpoint | None:
        """Store the first position of a new epoch; None where somebody else has begun that epoch meanwhile."""
        now = self._dependencies.clock()
        tails = [await self._tail(place) for place in (watcher, old) if place is not None]
        source = self._dependencies.mongo.source(watcher)
        try:
            operation_time = await source.prepare()
            scope = source.scope
        finally:
            await source.close()
        if stored is not None and old is not None:
            check_scope(stored, scope=scope, operation_time=operation_time)
        moved = Checkpoint(
            token=token_of(token),  # a snapshot's row has its place in the epoch before
            epoch=max(next_epoch(stored, tail, now) for tail in tails),
            scope=scope,
            watcher=watcher.name,
            route=watcher.route,
            updated_at=now,
        )  # no sequence, no stream: nothing of this epoch is on any stream yet
        return moved if await self._dependencies.mongo.checkpoints(watcher).begin(moved) else None

    async def _settled_tail(self, watcher: Watcher, stored: Checkpoint | None, run_state: RunState) -> Tail | None:
        """The stream's end, once it is certain that there is no hole before it. Raises PositionUndecidable."""
        tail = await self._tail(watcher)
        if tail is None:
            return None
        sink, checkpoints = self._dependencies.nats.sink(watcher), self._dependencies.mongo.checkpoints(watcher)
        try:
            await sink.prepare(may_create=False)
            window_recovery = WindowRecovery(watcher, sink, checkpoints, run_state)
            window_recovery.recall(stored)
            reached = stored or run_state.reached
            await window_recovery.settle((reached.epoch if reached is not None else 0) or 0, tail.end)
        finally:
            await sink.close()
        return tail

    async def _tail(self, watcher: Watcher) -> Tail | None:
        sink = self._dependencies.nats.sink(watcher)
        try:
            await sink.prepare(may_create=False)
            return await sink.tail()
        except StreamRefused:
            return None  # there is no such stream, so nothing was ever published in any epoch
        finally:
            await sink.close()


def _view(stored: Checkpoint | None) -> TokenView:
    if stored is None:
        return TokenView(None, None, None, 0, None)
    return TokenView(
        token=token_of(stored.token),
        cluster_time=float(cluster_time(stored.token).seconds),
        stream_sequence=stored.sequence,
        epoch=stored.epoch or 0,
        updated_at=stored.updated_at,
    )
