"""How the watchers and both servers do, put together from what is known already.

Not its business: asking the servers (`monitor.py`), changing anything (`registry.py`).
"""

from collections import Counter

from app.domain import lag
from app.domain.lifecycle import State
from app.domain.status import Component, Health, Lag
from app.monitor import Monitor
from app.supervisor import Supervisor
from app.world import World

RETRYING_IS_DOWN_SECONDS = 5.0
"""A watcher that has been trying again for longer than this is not well; shorter is a failover."""


class Overview:
    """Health, lag and headroom of everything a supervisor runs."""

    def __init__(self, world: World, supervisor: Supervisor, monitor: Monitor) -> None:
        self._world = world
        self._supervisor = supervisor
        self._monitor = monitor

    def health(self, load_problem: str | None) -> Health:
        """Return how the service does; `load_problem` is why the watchers are not loaded, if they are not."""
        now = self._world.clock()
        statuses = {name: self._supervisor[name].status() for name in self._supervisor.names()}
        ill = [
            f"{name}: {status.state} ({status.reason})"
            for name, status in statuses.items()
            if status.state is State.FAILED
            or (status.state is State.RETRYING and now - status.since > RETRYING_IS_DOWN_SECONDS)
        ]
        watchers = Component(
            up=not ill and load_problem is None,
            reason="; ".join(ill) or load_problem,
            counts=Counter(str(status.state) for status in statuses.values()),
        )
        return Health({"mongo": self._monitor.mongo, "nats": self._monitor.nats, "watchers": watchers})

    async def lag(self, name: str) -> Lag:
        """Return how far a watcher is behind; where this process has no position, the stored one counts.

        Raises StoreUnavailable, NotAuthorised."""
        task = self._supervisor[name]
        progress = task.progress
        position = progress.reached.token if progress.reached else None
        checkpointed_at = progress.checkpointed_at
        if position is None or checkpointed_at is None:
            stored = await self._world.mongo.checkpoints(task.stored.watcher).read()
            if stored is not None:
                position = position or stored.token
                checkpointed_at = checkpointed_at or stored.updated_at
        seconds, headroom = self._distances(position, progress.operation_time)
        return Lag(
            seconds=seconds,
            oplog_headroom_seconds=headroom,
            oplog_headroom_why=self._monitor.oplog_why if position else "the watcher has no position yet",
            last_event_at=progress.last_event_at,
            checkpoint_age_seconds=None if checkpointed_at is None else max(0.0, self._world.clock() - checkpointed_at),
        )

    def observe_positions(self) -> None:
        """Tell the observer every watcher's lag, headroom and dead letters, as they are now; each scrape asks."""
        for name in self._supervisor.names():
            progress = self._supervisor[name].progress
            position = progress.reached.token if progress.reached else None
            seconds, headroom = self._distances(position, progress.operation_time)
            self._world.observer.position(name, lag_seconds=seconds, headroom_seconds=headroom)
            self._world.observer.dead_letters(name, progress.dead_letters)

    def _distances(self, position: str | None, operation_time: int) -> tuple[float | None, float | None]:
        if position is None:
            return None, None
        now = max(operation_time, self._monitor.operation_time)
        first = self._monitor.oplog_first
        return lag.lag_seconds(now, position), None if first is None else lag.headroom_seconds(position, first)
