"""One named task per watcher: start it, try again after trouble, stop it with a reason.

A task that ends is always news: it was asked to, or the watcher is FAILED and says why. Watchers share nothing here, so
one's trouble never reaches another. Not its business: which watchers there are (`registry.py`), what a change's way is
(`pipeline/capture.py`), which state follows which (`domain/lifecycle.py`).
"""

import asyncio
import random
from dataclasses import replace
from typing import Protocol

import structlog

from app.control.positions import Positions
from app.domain import backoff
from app.domain.dead_letters import Replay
from app.domain.errors import ChangewireError, Conflict, Fenced, HistoryLost, PermanentError, Stale
from app.domain.lifecycle import AT_WORK, Signal, State, move
from app.domain.second_look import SecondLook
from app.domain.status import ErrorSeen, Status
from app.domain.watcher import StoredWatcher
from app.pipeline.capture import Capture, unless_asked
from app.pipeline.dependencies import Dependencies
from app.pipeline.progress import Progress
from app.pipeline.standby import Standby

log = structlog.get_logger(__name__)

LAST_SECONDS = 7.0
"""How long a task that is cancelled may take to end: it waits for the write of a position that has begun (5 s)."""
STABLE_SECONDS = 30.0
"""A run that lasted this long starts the backoff afresh when it ends."""


WELL_SECONDS = 5.0
"""A stay in standby that lasted this long had both servers' answers, whatever they said before."""


class Orders(Protocol):
    """What a watcher's task asks of whoever follows the store."""

    async def still_wanted(self, stored: StoredWatcher) -> bool:
        """Whether the store still says what the task was started with. Raises StoreUnavailable."""

    async def began(self, stored: StoredWatcher) -> None:
        """Take back what only a watcher's first opening needs. Raises StoreUnavailable."""

    async def followed(self) -> bool:
        """Wait until every other live instance has carried out what is stored by now; False where none had to be
        waited for. Raises StoreUnavailable."""


class WatcherTask:
    """One watcher's task and what there is to say about it."""

    def __init__(self, stored: StoredWatcher, dependencies: Dependencies, orders: "Orders") -> None:
        self.stored = stored
        self.progress = Progress()
        self.refused = False
        self.settled = asyncio.Event()
        """Set once the watcher has come to more than STARTING."""
        self._dependencies = dependencies
        self._orders = orders
        self._positions = Positions(dependencies)
        self._second_look = SecondLook()
        self._followed = False
        self._state = State.STARTING
        self._since = dependencies.clock()
        self._reason: str | None = None
        self._last_error: ErrorSeen | None = None
        self._restarts = 0
        self._task: asyncio.Task[None] | None = None
        self._capture: Capture | None = None
        self._stopping = asyncio.Event()
        dependencies.observer.state(stored.name, self._state)

    # Orders

    def start(self) -> None:
        """Begin to run. Fine while it runs."""
        if self._task is not None and not self._task.done():
            return
        self._stopping = asyncio.Event()
        self.progress.arrears.forget()
        self._signal(Signal.START)
        self._task = asyncio.create_task(self._run(), name=f"watcher:{self.stored.name}")
        self._task.add_done_callback(self._ended)

    async def stop(self, deadline: float) -> bool:
        """Drain and stand still; False where the drain did not finish within `deadline` seconds and was cut short.

        What was cut short is on the stream or is read again at the next start."""
        task, drained = self._task, True
        self._stopping.set()
        if self._capture is not None:
            self._capture.stop()
        if task is not None and not task.done():
            if self._state is not State.RUNNING:
                task.cancel()
            _, pending = await asyncio.wait([task], timeout=deadline)
            if pending:
                drained = self._state is not State.RUNNING
                log.warning("drain_cut_short", watcher=self.stored.name, after_seconds=deadline)
                task.cancel()
                await asyncio.wait([task], timeout=LAST_SECONDS)
        self.progress.arrears.forget()
        self._signal(Signal.STOP)
        return drained

    def stand(self) -> None:
        """Stand still from the beginning: the watcher is paused."""
        self._signal(Signal.STOP)

    def refuse(self, reason: str) -> None:
        """Mark a watcher that cannot be run at all, with the reason."""
        self.refused = True
        self._note_error(PermanentError(reason))
        self._signal(Signal.FAILURE, reason)

    def remember(self, before: "WatcherTask") -> None:
        """Go on with the history of the task whose place this one takes: a pause or a restart does not wipe it."""
        self._last_error, self._restarts = before._last_error, before._restarts

    def forget_position(self) -> None:
        """Drop what this process remembers: somebody has moved the watcher on purpose."""
        self.progress.reached = self.progress.stored = None
        self.progress.checkpointed_at = None

    async def replay(self, sequence: int) -> Replay:
        """Publish a dead letter in its turn. Raises NotFound, Conflict where the watcher does not run, Unavailable."""
        name, state, capture = self.stored.name, self._state, self._capture
        if state is State.RUNNING and capture is not None:
            return await capture.replay(sequence)
        if state is State.FENCED:
            raise Conflict(f"{name} is FENCED here: another instance publishes it, and replays too; ask that one")
        why = f": {self._reason}" if self._reason else ""
        raise Conflict(f"{name} is {state}, and only a RUNNING watcher replays{why}")

    # What there is to say

    @property
    def active(self) -> bool:
        """Whether the task is there, whatever its state."""
        return self._task is not None and not self._task.done()

    @property
    def state(self) -> State:
        return self._state

    def status(self) -> Status:
        progress, now = self.progress, self._dependencies.clock()
        return Status(
            state=self._state,
            since=self._since,
            reason=self._reason,
            last_error=self._last_error,
            restarts=self._restarts,
            published=progress.published,
            skipped=progress.skipped,
            rate_10s=progress.rates.per_second(10, now),
            rate_60s=progress.rates.per_second(60, now),
            publish_mode=progress.publish_mode,
            fence=progress.fence,
            dead_letters=progress.dead_letters,
            notes=tuple(progress.notes.values()),
            overdue=progress.arrears.problem(now) if self._state in AT_WORK else None,
        )

    # The task

    async def _run(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            began = self._dependencies.clock()
            try:
                if not await unless_asked(self._capture_or_stand_by()):
                    return
            except Exception as error:  # noqa: BLE001 - whatever it is, the watcher says so and tries again
                if self._is_certain(error):
                    self._fail(error)
                    return
                attempt = 1 if self._dependencies.clock() - began >= STABLE_SECONDS else attempt + 1
                self._trouble(error, attempt)
                stale = isinstance(error, Stale)
                if not stale or attempt > 1:
                    await self._pause_before(attempt)
                if stale and not await self._wanted():
                    return
                self._restarted(type(error).__name__)

    async def _capture_or_stand_by(self) -> bool:
        """Capture, and where another writer keeps winning, stand by; True where it has gone silent, so that the watcher
        is to be opened again, False where the watcher is to stop. Raises what ends either."""
        try:
            await self._capture_once()
        except Fenced as fenced:
            self._second_look.forget()
            self._signal(Signal.OUTRUN, str(fenced))
            self.progress.arrears.forget()
        else:
            return False
        if not await self._outlast():
            return False
        self._restarted("takeover")
        self._signal(Signal.START)
        return True

    def _is_certain(self, error: Exception) -> bool:
        """Whether an error is permanent and was looked at again; to be asked of every error."""
        if not isinstance(error, PermanentError):
            self._second_look.forget()
            return False
        return self._second_look.believes(error, now=self._dependencies.clock(), well_at=self.progress.arrears.well_at)

    def _fail(self, error: Exception) -> None:
        self._note_error(error)
        self._signal(Signal.FAILURE, str(error))
        log.error("watcher_failed", watcher=self.stored.name, type=type(error).__name__, reason=str(error))

    async def _capture_once(self) -> None:
        watcher, dependencies = self.stored.watcher, self._dependencies
        if not self._followed:
            self._reason = "waiting until the other instances have followed the last change"
            await self._orders.followed()
            self._followed, self._reason = True, None
        await self._positions.carry_over(watcher, self.progress)
        self._capture = Capture(
            watcher,
            source=dependencies.mongo.source(watcher),
            sink=dependencies.nats.sink(watcher),
            letters=dependencies.nats.letters(watcher),
            checkpoints=dependencies.mongo.checkpoints(watcher),
            codec=dependencies.codec,
            observer=dependencies.observer,
            progress=self.progress,
            new_start=self.stored.new_start,
            begin=self.stored.begin,
            losses=dependencies.tuning.losses,
            memory_budget=dependencies.memory_budget,
            clock=dependencies.clock,
            begun=self._begun,
            prompt_checkpoints=self.stored.origin == "file",
        )
        try:
            await unless_asked(self._capture.run(self._opened))
        finally:
            self._capture = None

    async def _begun(self) -> None:
        """Forget the start as of when the watcher was added: its position is stored. It would count again where both
        stream and position are lost, and what was published since would come once more.
        """
        stored = self.stored
        if stored.begin is None and not stored.new_start:
            return
        try:
            await self._orders.began(stored)
        except ChangewireError as error:  # the registry's next round does it
            log.info("start_not_taken_back", watcher=stored.name, error=str(error))
            return
        if self.stored.revision == stored.revision:
            self.stored = replace(self.stored, new_start=False, begin=None)

    async def _outlast(self) -> bool:
        """Stand by until the other writer goes silent; False where the watcher is no longer wanted as it is."""
        watcher, dependencies = self.stored.watcher, self._dependencies
        attempt = 0
        while not self._stopping.is_set():
            began = dependencies.clock()
            standby = Standby(
                source=dependencies.mongo.source(watcher),
                sink=dependencies.nats.sink(watcher),
                checkpoints=dependencies.mongo.checkpoints(watcher),
                watcher=watcher,
                codec=dependencies.codec,
                progress=self.progress,
                silence=dependencies.tuning.silence_seconds,
                clock=dependencies.clock,
            )
            try:
                await unless_asked(standby.until_silent())
            except Stale:
                return await self._wanted()
            except Exception as error:  # noqa: BLE001 - as in a capture
                if isinstance(error, HistoryLost) and watcher.on_history_lost != "fail":
                    return await self._wanted()  # to go on behind the gap is a publish: a capture's business
                if dependencies.clock() - began > WELL_SECONDS:
                    self._second_look.forget()
                attempt = 1 if dependencies.clock() - began >= STABLE_SECONDS else attempt + 1
                await self._get_over(error, attempt)
            else:
                return await self._wanted()
        return False

    async def _wanted(self) -> bool:
        """Ask the registry whether the watcher is still to run as it is; while it cannot say, wait."""
        attempt = 0
        while not self._stopping.is_set():
            try:
                return await self._orders.still_wanted(self.stored)
            except Exception as error:  # noqa: BLE001 - as in a capture
                attempt += 1
                await self._get_over(error, attempt)
        return False

    def _opened(self) -> None:
        self._signal(Signal.OPENED)

    def _trouble(self, error: Exception, attempt: int) -> None:
        self._note_error(error)
        self.progress.arrears.interrupted(self._dependencies.clock())
        self._signal(Signal.TROUBLE, str(error))
        self._log_trouble(error, attempt)

    async def _get_over(self, error: Exception, attempt: int) -> None:
        """As `_trouble`, where the state stays, and wait. Raises an error that is certain to be permanent."""
        if self._is_certain(error):
            raise error
        self._note_error(error)
        self.progress.happened(self._state, str(error), self._dependencies.clock())
        self._log_trouble(error, attempt)
        await self._pause_before(attempt)

    def _log_trouble(self, error: Exception, attempt: int) -> None:
        if isinstance(error, ChangewireError):
            log.warning(
                "watcher_retrying", watcher=self.stored.name, type=type(error).__name__, reason=str(error),
                attempt=attempt,
            )  # fmt: skip
        else:
            log.error("watcher_error", watcher=self.stored.name, attempt=attempt, exc_info=error)

    def _restarted(self, reason: str) -> None:
        if self._stopping.is_set():
            return
        self._restarts += 1
        self._dependencies.observer.restarted(self.stored.name, reason)

    async def _pause_before(self, attempt: int) -> None:
        seconds, due = backoff.delay(attempt, random.random()), self._second_look.due(self._dependencies.clock())
        if due is not None:  # not later than the look that decides
            seconds = min(seconds, due)
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return

    def _note_error(self, error: Exception) -> None:
        kind, message = type(error).__name__, str(error)
        if not isinstance(error, ChangewireError):
            message = f"an error of Changewire itself ({kind}); the log has the details"
        last = self._last_error
        count = last.count + 1 if last is not None and last.type == kind and last.message == message else 1
        self._last_error = ErrorSeen(kind, message, self._dependencies.clock(), count)

    def _signal(self, signal: Signal, reason: str | None = None) -> None:
        before = self._state
        self._state = move(before, signal)
        self._reason = reason
        self.progress.happened(self._state, reason, self._dependencies.clock())
        if self._state is not State.STARTING:
            self.settled.set()
        if self._state is not before:
            self._since = self._dependencies.clock()
            self._dependencies.observer.state(self.stored.name, self._state)
            log.info(
                "watcher_state", watcher=self.stored.name, state=str(self._state), before=str(before), reason=reason
            )

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():
            if not self._stopping.is_set():
                log.error("watcher_task_ended", watcher=self.stored.name, error="cancelled, but not by a stop")
            return
        error = task.exception()
        if error is not None:
            self._note_error(error if isinstance(error, Exception) else PermanentError(repr(error)))
            self._signal(Signal.FAILURE, self._last_error.message if self._last_error else None)
            log.error("watcher_task_ended", watcher=self.stored.name, exc_info=error)


class Supervisor:
    """All watcher tasks of this process, by name."""

    def __init__(self, dependencies: Dependencies, orders: Orders) -> None:
        self._dependencies = dependencies
        self._orders = orders
        self._tasks: dict[str, WatcherTask] = {}

    def __getitem__(self, name: str) -> WatcherTask:
        return self._tasks[name]

    def __contains__(self, name: str) -> bool:
        return name in self._tasks

    def get(self, name: str) -> WatcherTask | None:
        return self._tasks.get(name)

    def names(self) -> list[str]:
        return sorted(self._tasks)

    def adopt(self, stored: StoredWatcher) -> WatcherTask:
        """Take a watcher in, standing still. What is remembered of it is kept, unless it was removed and added."""
        task = WatcherTask(stored, self._dependencies, self._orders)
        before = self._tasks.get(stored.name)
        if before is not None and before.stored.added == stored.added:
            task.progress = before.progress
            task.remember(before)
        self._tasks[stored.name] = task
        return task

    async def stop(self, name: str, deadline: float) -> bool:
        """Drain one watcher; see `WatcherTask.stop`."""
        return await self._tasks[name].stop(deadline)

    async def dismiss(self, name: str, deadline: float) -> None:
        """Stop a watcher and forget it, its metrics too."""
        await self.stop(name, deadline)
        del self._tasks[name]
        self._dependencies.observer.forget(name)

    async def stop_all(self, deadline: float) -> bool:
        """Drain all at once; False where one did not finish in time."""
        return all(await asyncio.gather(*(task.stop(deadline) for task in self._tasks.values())))
