"""What a watcher's state is, since when, and why: the state machine of `domain/lifecycle.py`, with its memory.

Every change of state goes through `signal`, so that metrics and history tell the same story. Deciding which signal to
give is the work of `watcher_task.py`.

The log has one event for each state, at one level, where the fact is known with its details: `watcher_opened` (RUNNING)
in the opening, `watcher_stopped` (PAUSED) in the task, and those of trouble here.
"""

import asyncio
from collections.abc import Callable

import structlog

from app.domain.errors import ChangewireError
from app.domain.lifecycle import AT_WORK, Signal, State, move
from app.domain.outage import Outage
from app.domain.status import ErrorSeen, Status
from app.pipeline.run_statistics import RunStatistics
from app.ports import Observer

log = structlog.get_logger(__name__)

SAY_SECONDS = 30.0
"""The least time between two reasons that are logged of a watcher whose state stays the same."""


class WatcherState:
    """One watcher's. Errors and restarts are remembered over a pause or a restart."""

    def __init__(
        self,
        name: str,
        observer: Observer,
        clock: Callable[[], float],
        statistics: RunStatistics,
        outage: Outage,
        before: "WatcherState | None" = None,
    ) -> None:
        """`before` is that of the task whose place the watcher's task takes."""
        self._name = name
        self._observer = observer
        self._clock = clock
        self._statistics = statistics
        self._outage = outage
        self.now = State.STARTING
        self.since = clock()
        self.reason: str | None = None
        """Why the state is as it is, or what a watcher that starts waits for."""
        self.last_error: ErrorSeen | None = None if before is None else before.last_error
        self.restarts: int = 0 if before is None else before.restarts
        self._said: tuple[str, float] = ("", float("-inf"))
        """The last reason that was logged, and when."""
        self.settled = asyncio.Event()
        """Set once the watcher has come to more than STARTING."""
        observer.state(name, self.now)

    def signal(self, signal: Signal, reason: str | None = None) -> None:
        """Change the state as the table says. Raises ImpossibleTransition, and then changes nothing."""
        before = self.now
        self.now = move(before, signal)
        self.reason = reason
        self._statistics.happened(self.now, reason, self._clock())
        if self.now is not State.STARTING:
            self.settled.set()
        if self.now is not before:
            self.since = self._clock()
            self._observer.state(self._name, self.now)

    def failed(self, error: Exception) -> None:
        """A person has to act: the error is permanent. One that was said already is not said again."""
        before, reason = (self.now, self.reason), self._note_error(error)
        self.signal(Signal.FAILURE, reason)
        if before != (self.now, reason):
            own = None if isinstance(error, ChangewireError) else error
            log.error("watcher_failed", watcher=self._name, type=type(error).__name__, reason=reason, exc_info=own)

    def fenced(self, reason: str) -> None:
        """Another writer keeps winning."""
        self.signal(Signal.OUTRUN, reason)
        log.warning("watcher_fenced", watcher=self._name, reason=reason)

    def troubled(self, error: Exception, attempt: int) -> None:
        """A run was interrupted, and is tried again."""
        before, reason = self.now, self._note_error(error)
        self.signal(Signal.TROUBLE, reason)
        self._say(error, reason, attempt, changed=before is not self.now)

    def survived(self, error: Exception, attempt: int) -> None:
        """An error that leaves the state as it is."""
        reason = self._note_error(error)
        self._statistics.happened(self.now, reason, self._clock())
        self._say(error, reason, attempt, changed=False)

    def _say(self, error: Exception, reason: str, attempt: int, *, changed: bool) -> None:
        """Log an error with a change of state, and later ones where they are new, but not with every attempt."""
        said, at = self._said
        if not changed and (reason == said or self._clock() - at < SAY_SECONDS):
            return
        self._said = reason, self._clock()
        if isinstance(error, ChangewireError):
            kind = type(error).__name__
            log.warning("watcher_retrying", watcher=self._name, type=kind, reason=reason, attempt=attempt)
        else:
            log.error("watcher_error", watcher=self._name, attempt=attempt, exc_info=error)

    def restarted(self, reason: str) -> None:
        """The watcher opens again by itself."""
        self.restarts += 1
        self._observer.restarted(self._name, reason)

    def status(self, instance: str | None = None) -> Status:
        """Return what there is to say; `instance` is this one's name."""
        statistics, now = self._statistics, self._clock()
        state, since, reason = self.now, self.since, self.reason
        if state is State.RUNNING and (outage := self._outage.now) is not None:
            # It has nothing to publish, so it has not met the trouble yet.
            state, (since, reason) = State.RETRYING, outage
        return Status(
            state=state,
            since=since,
            reason=reason,
            last_error=self.last_error,
            restarts=self.restarts,
            published=statistics.published,
            skipped=statistics.skipped,
            rate_10s=statistics.rates.per_second(10, now),
            rate_60s=statistics.rates.per_second(60, now),
            publish_mode=statistics.publish_mode,
            fence=statistics.fence,
            reads=statistics.reads,
            dead_letters=statistics.dead_letters,
            notes=tuple(statistics.notes.values()),
            overdue=statistics.overdue.problem(now) if self.now in AT_WORK else None,
            snapshot=statistics.snapshot_view(self.now, now),
            instance=instance,
        )

    def _note_error(self, error: Exception) -> str:
        """Remember an error, and return what is said about it. One that comes again and again is counted.

        The words of an error that is not Changewire's own may hold a secret: they are for the log alone."""
        kind, message = type(error).__name__, str(error)
        if not isinstance(error, ChangewireError):
            message = f"an error of Changewire itself ({kind}); the log has the details"
        last = self.last_error
        count = last.count + 1 if last is not None and last.type == kind and last.message == message else 1
        self.last_error = ErrorSeen(kind, message, self._clock(), count)
        return message
