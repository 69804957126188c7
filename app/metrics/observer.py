"""What happens, counted for Prometheus: the Observer behind `/metrics`.

Batches bring up to a thousand changes, so nothing is done per change that can be done per batch: durations go into bulk
histograms, operations and wall times are tallied in C. All numbers live in plain dictionaries under one lock (the
driver reports commands from threads of its own). Which metrics there are is in `families.py`.
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from app.domain.lifecycle import State
from app.domain.packed import operations_of, wall_times_of
from app.domain.snapshot import OPERATION as ROWS
from app.metrics.families import Families
from app.metrics.text import Seen, seen
from app.ports import Published

if TYPE_CHECKING:
    from app.metrics.exposition import Exposition


class PrometheusObserver:
    """Implements `ports.Observer`. Thread-safe. `clock` gives seconds since 1970."""

    def __init__(self, *, version: str, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._families = Families()
        self._families.build_info.series[(version,)] = 1.0
        self._checkpoints: dict[str, float] = {}
        self._subjects: defaultdict[str, set[str]] = defaultdict(set)
        """Which subjects a watcher's messages went to."""
        self._exposition: Exposition | None = None

    # What the Observer is told.

    def published(self, batch: Published) -> None:
        """Count an acknowledged batch."""
        watcher, changes, acked_at = batch.watcher, batch.changes, batch.acked_at
        operations, wall_times = operations_of(changes), wall_times_of(changes)
        with self._lock:
            self._families.batch_events.series[(watcher,)].observe(len(changes))
            self._families.event_delay.series[(watcher,)].observe_since(wall_times, acked_at)
            if ROWS in operations:
                self._families.snapshot_documents.series[(watcher,)] += operations[ROWS]
            for operation, count in operations.items():
                self._families.events.series[watcher, operation] += count
                subject = batch.subjects.get(operation)
                if subject is None:
                    continue
                self._subjects[watcher].add(subject)
                self._families.messages_published.series[(subject,)] += count
                self._families.message_duration.series[(subject,)].observe(batch.publish_seconds, count)
                self._families.processing_duration.series[batch.collection, subject].observe(batch.read_seconds, count)

    def skipped(self, watcher: str, reason: str, count: int) -> None:
        with self._lock:
            self._families.events_skipped.series[watcher, reason] += count

    def publish_failed(self, watcher: str, subject: str, count: int) -> None:
        with self._lock:
            self._subjects[watcher].add(subject)
            self._families.messages_failed.series[(subject,)] += count

    def state(self, watcher: str, state: State) -> None:
        with self._lock:
            for each in State:
                self._families.state.series[watcher, each.value] = float(each is state)

    def restarted(self, watcher: str, reason: str) -> None:
        with self._lock:
            self._families.restarts.series[watcher, reason] += 1

    def position(self, watcher: str, *, lag_seconds: float | None, headroom_seconds: float | None) -> None:
        with self._lock:
            self._families.lag.set(watcher, lag_seconds)
            self._families.oplog_headroom.set(watcher, headroom_seconds)

    def history_at_risk(self, watcher: str, at_risk: bool) -> None:
        with self._lock:
            self._families.history_at_risk.set(watcher, float(at_risk))

    def overdue(self, watcher: str, overdue: bool) -> None:
        with self._lock:
            self._families.overdue.set(watcher, float(overdue))

    def dead_letters(self, watcher: str, count: int | None) -> None:
        with self._lock:
            self._families.dead_letters.set(watcher, count)

    def snapshot(self, watcher: str, *, running: bool) -> None:
        with self._lock:
            self._families.snapshot_running.set(watcher, float(running))
            self._families.snapshot_documents.series[(watcher,)] += 0  # there from the beginning, so that it can grow

    def change_streams(self, *, shared: int, own: int, members: Mapping[str, int]) -> None:
        with self._lock:
            self._families.change_streams.series.update({("shared",): float(shared), ("own",): float(own)})
            self._families.feed_members.series.clear()
            self._families.feed_members.series.update({(name,): float(count) for name, count in members.items()})

    def instances(self, name: str, *, watchers: int, live: int, gone: int, homeless: int) -> None:
        with self._lock:
            self._families.instance_watchers.series[(name,)] = float(watchers)
            self._families.instances.series.update({("live",): float(live), ("gone",): float(gone)})
            self._families.without_instance.series[()] = float(homeless)

    def checkpointed(self, watcher: str, at: float) -> None:
        with self._lock:
            self._checkpoints[watcher] = at

    def forget(self, watcher: str) -> None:
        """Remove every series of a watcher, those of its subjects too where no other watcher has them."""
        with self._lock:
            self._checkpoints.pop(watcher, None)
            gone = self._subjects.pop(watcher, set()).difference(*self._subjects.values())
            self._families.forget(watcher, gone)

    def command_started(self, database: str, command: str) -> None:
        with self._lock:
            self._families.commands_started.series[database, command] += 1

    def command_succeeded(self, database: str, command: str, seconds: float) -> None:
        with self._lock:
            self._families.commands_succeeded.series[database, command] += 1
            self._families.command_duration.series[database, command].observe(seconds)

    def command_failed(self, database: str, command: str, seconds: float) -> None:
        with self._lock:
            self._families.commands_failed.series[database, command] += 1
            self._families.command_duration.series[database, command].observe(seconds)

    # What Prometheus reads.

    def render(self) -> tuple[bytes, str]:
        """The metrics in the text format, and its content type."""
        if self._exposition is None:  # a start, and a service that is not scraped, do without prometheus_client
            from app.metrics.exposition import Exposition

            self._exposition = Exposition()
        return self._exposition.render(self._all_seen())

    def _all_seen(self) -> list[Seen]:
        """Every family, also one without a series yet, as all of them are at one moment."""
        with self._lock:
            now = self._clock()
            for watcher, at in self._checkpoints.items():
                self._families.checkpoint_age.set(watcher, max(0.0, now - at))
            return list(map(seen, self._families))
