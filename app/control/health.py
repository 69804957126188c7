"""How the watchers and both servers do, put together from what is known already.

Reading changes nothing, so two requests at once get the same answer. What has to be looked at again and again is
looked at by one task, `watch`, and only that writes it down. Asking whether the servers answer: `server_probe.py`.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping

import structlog

from app.control.fleet import Watched
from app.control.server_probe import ServerProbe
from app.domain import lag
from app.domain.errors import ChangewireError
from app.domain.lifecycle import State
from app.domain.status import Component, Health, Lag, Status
from app.pipeline.dependencies import Dependencies

log = structlog.get_logger(__name__)

RETRYING_IS_DOWN_SECONDS = 5.0
"""A watcher that has been trying again for longer than this is not well; shorter is a failover."""
WATCH_SECONDS = 5.0
"""How often every watcher is looked at."""
AT_ONCE = 100
"""Watchers that are looked at before other tasks have their turn."""
HEADROOM = "headroom"
"""Under which name a watcher's notes hold that its history is running out."""


class FleetHealth:
    """Health, lag and headroom of all watchers."""

    def __init__(self, dependencies: Dependencies, watchers: Mapping[str, Watched], server_probe: ServerProbe) -> None:
        self._dependencies = dependencies
        self._watchers = watchers
        self._server_probe = server_probe

    def health(self, load_problem: str | None, notices: Iterable[str] = ()) -> Health:
        """Return how the service does; `load_problem` is why the watchers are not loaded, or cannot be run; `notices`
        are what is said of them all the same."""
        now = self._dependencies.clock()
        statuses = {name: watched.status() for name, watched in self._watchers.items()}
        ill = [
            f"{name}: {status.overdue or status.state} ({status.reason or _last(status)})"
            for name, status in statuses.items()
            if status.state is State.FAILED
            or (status.state is State.RETRYING and now - status.since > RETRYING_IS_DOWN_SECONDS)
            or status.overdue is not None
        ]
        watchers = Component(
            up=not ill and load_problem is None,
            reason="; ".join(ill) or load_problem,
            warnings=(
                *notices,
                *(
                    f"{name}: {warning}"
                    for name in statuses
                    if (warning := self._watchers[name].statistics.notes.get(HEADROOM)) is not None
                ),
            ),
            counts=Counter(str(status.state) for status in statuses.values()),
        )
        return Health({"mongo": self._server_probe.mongo, "nats": self._server_probe.nats, "watchers": watchers})

    async def lags(self, watched: Mapping[str, Watched] | None = None) -> dict[str, Lag]:
        """Return how far these watchers, or all that this instance owns, are behind, by name. Raises as `lag`."""
        wanted = self._watchers if watched is None else watched
        found: dict[str, Lag] = {}

        async def look(name: str) -> None:
            with contextlib.suppress(KeyError):  # removed, or handed over
                task = wanted[name]
                found[name] = await self.lag(task)

        names = list(wanted)
        await in_parts(names, look)
        # Without those that were removed while the store was asked for positions.
        return {name: found[name] for name in names if name in found and name in wanted}

    async def lag(self, task: Watched) -> Lag:
        """Return how far a watcher is behind; where this process has no position, the stored one counts.

        Raises StoreUnavailable, NotAuthorised."""
        position, checkpointed_at = await self._position(task)
        seconds, headroom = self._distances(position, task)
        return Lag(
            seconds=seconds,
            oplog_headroom_seconds=headroom,
            oplog_headroom_why=self._server_probe.oplog_why if position else "the watcher has no position yet",
            last_event_at=task.statistics.last_event_at,
            checkpoint_age_seconds=None
            if checkpointed_at is None
            else max(0.0, self._dependencies.clock() - checkpointed_at),
        )

    async def watch(self, least: float) -> None:
        """Look at every watcher indefinitely, and note what shows: whether fewer than `least` seconds of oplog are left
        before its position, that position where only the store has it, and how many of its dead letters are left.

        One that is paused loses its history as well as one that lags: paused, failed and waiting ones are looked at
        too. A server that does not answer leaves what was noted before."""
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            for number, (name, task) in enumerate(list(self._watchers.items()), 1):
                if task.run_state.token is not None:  # nobody has to be asked
                    self._note_headroom(name, self._distances(task.run_state.token, task)[1], least)
                if number % AT_ONCE == 0:
                    await asyncio.sleep(0)
            unknown = [name for name, task in self._watchers.items() if task.run_state.token is None]
            await in_parts(unknown, lambda name: self._look_at_position(name, least))
            await in_parts([name for name, task in self._watchers.items() if task.statistics.dead_letters], self._count)

    async def _look_at_position(self, name: str, least: float) -> None:
        with contextlib.suppress(ChangewireError, KeyError):  # unreachable, or removed meanwhile
            task = self._watchers[name]
            position, _ = await self._position(task)
            if task.run_state.token is None:
                task.statistics.stored_token = position
            self._note_headroom(name, self._distances(position, task)[1], least)

    async def _count(self, name: str) -> None:
        """Count dead letters again: somebody may have removed one through another instance, or beside Changewire."""
        with contextlib.suppress(ChangewireError, KeyError):
            statistics = self._watchers[name].statistics
            before = statistics.dead_letters
            if before and self._server_probe.nats.up:
                left = await self._dependencies.nats.letters(self._watchers[name].stored.watcher).count()
                if statistics.dead_letters == before:  # else the watcher has set one more aside meanwhile
                    statistics.dead_letters = left

    def _note_headroom(self, name: str, left: float | None, least: float) -> None:
        statistics = self._watchers[name].statistics
        noted = HEADROOM in statistics.notes
        if left is None or not lag.running_out(left, self._server_probe.oplog, least):
            if noted:
                log.info("oplog_headroom_recovered", watcher=name, seconds=left)
            statistics.note(HEADROOM, None)
            return
        if not noted:
            log.warning("oplog_headroom_low", watcher=name, seconds=left, least=least)
        statistics.note(
            HEADROOM,
            f"{max(0.0, left):.0f} seconds of oplog are left before the watcher's position, fewer than {least:g}: let "
            "it catch up, or make the oplog larger, before changes are lost",
        )

    def observe_positions(self) -> None:
        """Tell the observer each watcher's lag, headroom (also whether it is short) and dead letters; scrapes ask."""
        for name, task in self._watchers.items():
            seconds, headroom = self._distances(task.run_state.token or task.statistics.stored_token, task)
            self._dependencies.observer.position(name, lag_seconds=seconds, headroom_seconds=headroom)
            self._dependencies.observer.history_at_risk(name, HEADROOM in task.statistics.notes)
            status = task.status()
            self._dependencies.observer.state(name, status.state)
            self._dependencies.observer.overdue(name, status.overdue is not None)
            self._dependencies.observer.dead_letters(name, task.statistics.dead_letters)

    async def _position(self, task: Watched) -> tuple[str | None, float | None]:
        """Return a watcher's position, and when it was stored: as this process has them, else as they are stored.

        Raises StoreUnavailable, NotAuthorised."""
        position, checkpointed_at = task.run_state.token, task.statistics.checkpointed_at
        if position is None or checkpointed_at is None:
            stored = await self._dependencies.mongo.checkpoints(task.stored.watcher).read()
            if stored is not None:
                return position or stored.token, checkpointed_at or stored.updated_at
        return position, checkpointed_at

    def _distances(self, position: str | None, task: Watched) -> tuple[float | None, float | None]:
        if position is None:
            return None, None
        now = task.run_state.operation_time
        if not task.statistics.caught_up:  # else the server would have answered, had there been anything since
            now = max(now, self._server_probe.operation_time)
        oplog = self._server_probe.oplog
        return lag.lag_seconds(now, position), None if oplog is None else lag.headroom_seconds(position, oplog.first)


async def in_parts(names: Iterable[str], look: Callable[[str], Awaitable[None]]) -> None:
    """Look at many watchers, some at the same time, since those that ask a server are answered together.

    Raises the first error, once those at the same time have ended."""
    left = list(names)
    while left:
        part, left = left[:AT_ONCE], left[AT_ONCE:]
        ended = await asyncio.gather(*(look(name) for name in part), return_exceptions=True)
        for each in ended:
            if isinstance(each, BaseException):
                raise each
        await asyncio.sleep(0)


def _last(status: Status) -> str:
    return "no error yet" if status.last_error is None else f"the last error: {status.last_error.message}"
