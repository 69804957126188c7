"""One watcher's task: it opens a capture, tries again after trouble, and stands by while another writer wins.

    capture ─┬─ drained, because it was asked to stop ───────────────► end
             ├─ transient error ── wait ─────────────────────────────► capture
             ├─ permanent error, seen again some seconds later ──────► FAILED, end
             ├─ stale: the watcher was changed or moved elsewhere ───► capture, if it is still wanted
             └─ fenced: another writer keeps winning ────────────────► standby

    standby ─┬─ changes wait and nobody publishes, or stale ─────────► capture, if it is still wanted
             └─ errors: as in a capture, and the state stays FENCED ─► standby

*Still wanted* is a question to the store: does it say what the task was started with? If it does not, the run ends. The
task decides nothing else about its own end, and calls nobody: the reconciler sees in its next round that the run is
over, and starts what is stored by then. Only asked to stop, or FAILED with a reason, a watcher stays without a run.
Watchers share nothing here, so one's trouble never reaches another.
"""

import asyncio
import random
from dataclasses import replace

import structlog

from app.control.instance import Instance
from app.control.positions import Positions
from app.control.watcher_state import WatcherState
from app.domain import backoff
from app.domain.dead_letters import Replay
from app.domain.errors import ChangewireError, Conflict, Fenced, HistoryLost, PermanentError, Stale
from app.domain.lifecycle import Desired, Signal, State
from app.domain.second_look import SecondLook
from app.domain.status import Status
from app.domain.watcher import StoredWatcher
from app.pipeline.capture import Capture, unless_asked
from app.pipeline.dependencies import Dependencies
from app.pipeline.run import Run
from app.pipeline.run_state import RunState
from app.pipeline.run_statistics import RunStatistics
from app.pipeline.standby import Standby
from app.ports import WatcherStore

log = structlog.get_logger(__name__)

LAST_SECONDS = 7.0
"""How long a task that is cancelled may take to end: it waits for the write of a position that has begun (5 s)."""
STABLE_SECONDS = 30.0
"""A run that lasted this long starts the backoff afresh when it ends."""
WELL_SECONDS = 5.0
"""A stay in standby that lasted this long had both servers' answers, whatever they said before."""


class WatcherTask:
    """One watcher as it is stored in one revision. The next revision is another task, which goes on from this one."""

    def __init__(
        self,
        stored: StoredWatcher,
        dependencies: Dependencies,
        store: WatcherStore,
        instance: Instance,
        before: "WatcherTask | None" = None,
    ) -> None:
        """`before` is the task whose place this one takes: what it reached, counted and remembered goes on here."""
        self.stored = stored
        self.run_state: RunState = RunState() if before is None else before.run_state
        self.statistics: RunStatistics = RunStatistics() if before is None else before.statistics
        self.refused = False
        self.elsewhere = False
        """Whether another instance owns it: nothing runs here, and this task's state says nothing."""
        self.run_by: str | None = None
        """This instance's name, where it has one."""
        self._dependencies = dependencies
        self._store = store
        self._instance = instance
        self._positions = Positions(dependencies)
        self._second_look = SecondLook()
        self._followed = False
        self._state: WatcherState = WatcherState(
            stored.name,
            dependencies.observer,
            dependencies.clock,
            self.statistics,
            dependencies.outage,
            None if before is None else before._state,
        )
        self._task: asyncio.Task[None] | None = None
        self._capture: Capture | None = None
        self._stopping = asyncio.Event()

    # For the reconciler alone

    def start(self) -> None:
        """Begin to run. Fine while it runs."""
        if self._task is not None and not self._task.done():
            return
        self._stopping = asyncio.Event()
        self.statistics.overdue.forget()
        self._state.signal(Signal.START)
        self._task = asyncio.create_task(self._run(), name=f"watcher:{self.stored.name}")
        self._task.add_done_callback(self._ended)

    async def stop(self, deadline: float) -> bool:
        """Drain and end; False where the drain did not finish within `deadline` seconds and was cut short.

        What was cut short is on the stream or is read again at the next start."""
        task, drained = self._task, True
        says = task is not None and self.state not in (State.PAUSED, State.FAILED)
        self._stopping.set()
        if self._capture is not None:
            self._capture.stop()
        if task is not None and not task.done():
            if self.state is not State.RUNNING:
                task.cancel()
            _, pending = await asyncio.wait([task], timeout=deadline)
            if pending:
                drained = self.state is not State.RUNNING
                says = False
                log.warning("drain_cut_short", watcher=self.stored.name, after_seconds=deadline)
                task.cancel()
                await asyncio.wait([task], timeout=LAST_SECONDS)
        if says:
            log.info("watcher_stopped", watcher=self.stored.name)
        self.statistics.overdue.forget()
        self._state.signal(Signal.STOP)
        return drained

    def pause(self) -> None:
        """Do not run: the watcher is stored as paused."""
        self._state.signal(Signal.STOP)

    def refuse(self, reason: str) -> None:
        """Mark a watcher that cannot be run at all, with the reason."""
        self.refused = True
        self._state.failed(PermanentError(reason))

    def rest(self, *, refused: bool) -> None:
        """Another instance owns the watcher; `refused` as there."""
        self.elsewhere, self.refused = True, refused
        self._state.settled.set()

    def forget_position(self) -> None:
        """Drop what this process remembers: somebody has moved the watcher on purpose."""
        self.run_state.forget_position()
        self.statistics.forget_position()

    async def forget_start(self) -> None:
        """Take back what only the first opening needs: the position it led to is stored.

        It would count again where both stream and position are lost, and what was published since would come twice.
        Where the store cannot be reached the reconciler's next round asks for this again."""
        stored = self.stored
        if stored.begin is None and not stored.new_start:
            return
        try:
            await self._store.began(stored.name, stored.revision)
        except ChangewireError as error:
            log.info("start_not_taken_back", watcher=stored.name, reason=str(error))
            return
        if self.stored.revision == stored.revision:
            self.stored = replace(self.stored, new_start=False, begin=None)

    @property
    def over(self) -> bool:
        """Whether a run has ended though nobody asked for that, and nothing is wrong: what is stored has to be looked
        at again."""
        return self._task is not None and self._task.done() and self.state not in (State.PAUSED, State.FAILED)

    @property
    def settled(self) -> asyncio.Event:
        """Set once the watcher has come to more than STARTING."""
        return self._state.settled

    # For everyone

    async def replay(self, sequence: int) -> Replay:
        """Publish a dead letter in its turn. Raises NotFound, Conflict where the watcher does not run, Unavailable."""
        name, state, capture = self.stored.name, self.state, self._capture
        if state is State.RUNNING and capture is not None:
            return await capture.replay(sequence)
        if state is State.FENCED:
            raise Conflict(f"{name} is FENCED here: another instance publishes it, and replays too; ask that one")
        why = f": {self._state.reason}" if self._state.reason else ""
        raise Conflict(f"{name} is {state}, and only a RUNNING watcher replays{why}")

    def look_at_snapshot(self) -> None:
        """A run of the snapshot began, or was ended. A watcher that does not run finds that when it is opened."""
        if self._capture is not None:
            self._capture.look_at_snapshot()

    @property
    def active(self) -> bool:
        """Whether there is a run, in whatever state."""
        return self._task is not None and not self._task.done()

    @property
    def state(self) -> State:
        return self._state.now

    def status(self) -> Status:
        if not self.elsewhere:
            return self._state.status(self.run_by)
        paused = self.stored.desired is Desired.PAUSED
        state = State.PAUSED if paused else State.STARTING
        return Status(
            state,
            self._state.since,
            None if paused else "an instance takes it over",
            snapshot=self.statistics.snapshot_view(state, self._dependencies.clock()),
        )

    # The run

    async def _run(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            began = self._dependencies.clock()
            try:
                if not await unless_asked(self._capture_or_stand_by()):
                    return
            except Exception as error:  # noqa: BLE001 - whatever it is, the watcher says so and tries again
                if self._is_certain(error):
                    self._state.failed(error)
                    return
                attempt = 1 if self._dependencies.clock() - began >= STABLE_SECONDS else attempt + 1
                self.statistics.overdue.interrupted(self._dependencies.clock())
                self._state.troubled(error, attempt)
                stale = isinstance(error, Stale)
                if not stale or attempt > 1:
                    await self._wait_before(attempt)
                if stale and not await self._wanted():
                    return
                self._restarted(type(error).__name__)

    async def _capture_or_stand_by(self) -> bool:
        """Capture, and where another writer keeps winning, stand by. Raises what ends either.

        Returns True if the other writer has gone silent and the watcher has to be opened again, False if it has to
        stop."""
        try:
            await self._capture_once()
        except Fenced as fenced:
            self._second_look.forget()
            self._state.fenced(str(fenced))
            self.statistics.overdue.forget()
        else:
            return False
        if not await self._stand_by():
            return False
        self._restarted("takeover")
        self._state.signal(Signal.START)
        return True

    def _is_certain(self, error: Exception) -> bool:
        """Whether an error is permanent and was looked at again; to be asked of every error."""
        if not isinstance(error, PermanentError):
            self._second_look.forget()
            return False
        well_at = self.statistics.overdue.well_at
        return self._second_look.believes(error, now=self._dependencies.clock(), well_at=well_at)

    async def _capture_once(self) -> None:
        if self.stored.begin is not None:  # nobody waits for its changes yet
            await self._dependencies.waves.passing()
        if not self._followed:
            await self._instance.others_followed(self._waits_for_others)
            self._followed, self._state.reason = True, None
        await self._positions.carry_over(self.stored.watcher, self.run_state)
        self._capture = Capture(self._new_run(), begun=self.forget_start)
        try:
            await unless_asked(self._capture.run(lambda: self._state.signal(Signal.OPENED)))
        finally:
            self._capture = None

    def _waits_for_others(self) -> None:
        self._state.reason = "waiting until the other instances have followed the last change"

    async def _stand_by(self) -> bool:
        """Stand by until the other writer goes silent; False where the watcher is no longer wanted as it is."""
        clock, attempt = self._dependencies.clock, 0
        while not self._stopping.is_set():
            began = clock()
            try:
                await unless_asked(Standby(self._new_run()).until_silent())
            except Stale:
                return await self._wanted()
            except Exception as error:  # noqa: BLE001 - as in a capture
                if isinstance(error, HistoryLost) and self.stored.watcher.on_history_lost != "fail":
                    return await self._wanted()  # to go on after the gap is a publish: a capture's business
                if clock() - began > WELL_SECONDS:
                    self._second_look.forget()
                attempt = 1 if clock() - began >= STABLE_SECONDS else attempt + 1
                await self._survive(error, attempt)
            else:
                return await self._wanted()
        return False

    def _new_run(self) -> Run:
        return Run.of(self.stored, self._dependencies, self.run_state, self.statistics)

    async def _wanted(self) -> bool:
        """Whether the store still says what this task was started with; while the store cannot be reached, wait."""
        attempt = 0
        while not self._stopping.is_set():
            try:
                now = await self._store.get(self.stored.name)
                return now is not None and now.revision == self.stored.revision and now.desired is Desired.RUNNING
            except Exception as error:  # noqa: BLE001 - as in a capture
                attempt += 1
                await self._survive(error, attempt)
        return False

    async def _survive(self, error: Exception, attempt: int) -> None:
        """Note an error that leaves the state as it is, and wait. Raises one that is certain to be permanent."""
        if self._is_certain(error):
            raise error
        self._state.survived(error, attempt)
        await self._wait_before(attempt)

    def _restarted(self, reason: str) -> None:
        if not self._stopping.is_set():
            self._state.restarted(reason)

    async def _wait_before(self, attempt: int) -> None:
        seconds, due = backoff.delay(attempt, random.random()), self._second_look.due(self._dependencies.clock())
        if due is not None:  # not later than the look that decides
            seconds = min(seconds, due)
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if not self._stopping.is_set():
                log.error("watcher_task_ended", watcher=self.stored.name, reason="cancelled, but not by a stop")
            return
        error = task.exception()
        if error is not None:
            self._state.failed(error if isinstance(error, Exception) else PermanentError(repr(error)))
