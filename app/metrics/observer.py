"""What happens, counted for Prometheus: the Observer behind `/metrics`.

Batches bring up to a thousand changes, so nothing is done per change that can be done per batch: durations go into bulk
histograms, operations and wall times are tallied in C. All numbers live in plain dictionaries under one lock (the
driver reports commands from threads of its own). Not its business: the text format (`exposition.py`), serving it
(`api/routes/status.py`), and what is worth an alert (`deploy/`).
"""

import threading
import time
from collections import defaultdict
from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, TypeVar

from app.domain.lifecycle import State
from app.metrics.families import (
    DELAY_BUCKETS,
    SIZE_BUCKETS,
    CounterFamily,
    Family,
    GaugeFamily,
    HistogramFamily,
    Labels,
)
from app.ports import Published

if TYPE_CHECKING:
    from app.metrics.exposition import Exposition

T = TypeVar("T")

_operation_of = attrgetter("operation")
_wall_time_of = attrgetter("wall_time")


class PrometheusObserver:
    """Implements `ports.Observer`. Thread-safe. `clock` gives seconds since 1970."""

    def __init__(self, *, version: str, clock: Callable[[], float] = time.time) -> None:
        self._version = version
        self._clock = clock
        self._lock = threading.Lock()
        self._states: dict[str, State] = {}
        self._checkpoints: dict[str, float] = {}
        self._subjects: defaultdict[str, set[str]] = defaultdict(set)
        by_command, by_subject = ("database", "command"), ("subject",)
        self._processing = HistogramFamily(
            "connector_change_event_processing_duration_seconds",
            "From reading a change to its acknowledgement, in seconds.",
            ("collection", "subject"),
        )
        self._started = CounterFamily("mongodb_commands_started_total", "Commands sent to MongoDB.", by_command)
        self._succeeded = CounterFamily(
            "mongodb_commands_succeeded_total", "MongoDB commands that succeeded.", by_command
        )
        self._failed = CounterFamily("mongodb_commands_failed_total", "MongoDB commands that failed.", by_command)
        self._duration = HistogramFamily(
            "mongodb_command_duration_seconds", "Duration of MongoDB commands in seconds.", by_command
        )
        self._published = CounterFamily(
            "nats_messages_published_total", "Messages acknowledged by the stream.", by_subject
        )
        self._refused = CounterFamily("nats_messages_failed_total", "Messages whose publish failed.", by_subject)
        self._publishing = HistogramFamily(
            "nats_message_duration_seconds", "From publishing a message to its acknowledgement, in seconds.", by_subject
        )
        self._lag = GaugeFamily(
            "changewire_watcher_lag_seconds", "Seconds between the server's operation time and the watcher's position."
        )
        self._headroom = GaugeFamily(
            "changewire_watcher_oplog_headroom_seconds",
            "Seconds of oplog before the watcher's position; 0: history is lost.",
        )
        self._at_risk = GaugeFamily(
            "changewire_watcher_history_at_risk",
            "1 where a full oplog has fewer than CHANGEWIRE_MIN_HEADROOM_SECONDS left before the watcher's position.",
        )
        self._overdue = GaugeFamily(
            "changewire_watcher_overdue",
            "1 where changes have waited for 15 seconds and nothing was published, whatever the watcher's state.",
        )
        self._letters = GaugeFamily("changewire_watcher_dead_letters", "Changes set aside as dead letters.")
        self._restarts = CounterFamily(
            "changewire_watcher_restarts_total", "How often a watcher was opened again, and why.", ("watcher", "reason")
        )
        self._events = CounterFamily(
            "changewire_events_total", "Changes published and acknowledged.", ("watcher", "operation")
        )
        self._skipped = CounterFamily(
            "changewire_events_skipped_total", "Changes read and not published, and why.", ("watcher", "reason")
        )
        self._batches = HistogramFamily(
            "changewire_batch_events", "Changes in a published batch.", ("watcher",), SIZE_BUCKETS
        )
        self._delays = HistogramFamily(
            "changewire_event_delay_seconds",
            "From the change in MongoDB (wallTime) to its acknowledgement, in seconds.",
            ("watcher",),
            DELAY_BUCKETS,
        )
        self._by_subject: tuple[CounterFamily | HistogramFamily, ...] = (
            self._published, self._refused, self._publishing, self._processing,
        )  # fmt: skip
        self._by_watcher: tuple[Family, ...] = (
            self._lag, self._headroom, self._at_risk, self._overdue, self._letters, self._restarts, self._events,
            self._skipped, self._batches, self._delays,
        )  # fmt: skip
        self._by_command: tuple[CounterFamily | HistogramFamily, ...] = (
            self._started, self._succeeded, self._failed, self._duration,
        )  # fmt: skip
        self._exposition: Exposition | None = None

    # What the Observer is told.

    def published(self, batch: Published) -> None:
        """Count an acknowledged batch."""
        watcher, changes, acked_at = batch.watcher, batch.changes, batch.acked_at
        operations = list(map(_operation_of, changes))
        wall_times = sorted(map(_wall_time_of, changes))  # nearly sorted as they come, so nearly free
        with self._lock:
            self._batches.series[(watcher,)].observe(len(changes))
            self._delays.series[(watcher,)].observe_since(wall_times, acked_at)
            for operation in set(operations):
                count = operations.count(operation)
                self._events.series[watcher, operation] += count
                subject = batch.subjects.get(operation)
                if subject is None:
                    continue
                self._subjects[watcher].add(subject)
                self._published.series[(subject,)] += count
                self._publishing.series[(subject,)].observe(batch.publish_seconds, count)
                self._processing.series[batch.collection, subject].observe(batch.read_seconds, count)

    def skipped(self, watcher: str, reason: str, count: int) -> None:
        with self._lock:
            self._skipped.series[watcher, reason] += count

    def publish_failed(self, watcher: str, subject: str, count: int) -> None:
        with self._lock:
            self._subjects[watcher].add(subject)
            self._refused.series[(subject,)] += count

    def state(self, watcher: str, state: State) -> None:
        with self._lock:
            self._states[watcher] = state

    def restarted(self, watcher: str, reason: str) -> None:
        with self._lock:
            self._restarts.series[watcher, reason] += 1

    def position(self, watcher: str, *, lag_seconds: float | None, headroom_seconds: float | None) -> None:
        with self._lock:
            self._lag.set(watcher, lag_seconds)
            self._headroom.set(watcher, headroom_seconds)

    def history_at_risk(self, watcher: str, at_risk: bool) -> None:
        with self._lock:
            self._at_risk.set(watcher, float(at_risk))

    def overdue(self, watcher: str, overdue: bool) -> None:
        with self._lock:
            self._overdue.set(watcher, float(overdue))

    def dead_letters(self, watcher: str, count: int | None) -> None:
        with self._lock:
            self._letters.set(watcher, count)

    def checkpointed(self, watcher: str, at: float) -> None:
        with self._lock:
            self._checkpoints[watcher] = at

    def forget(self, watcher: str) -> None:
        """Remove every series of a watcher, those of its subjects too."""
        with self._lock:
            self._states.pop(watcher, None)
            self._checkpoints.pop(watcher, None)
            gone = self._subjects.pop(watcher, set()).difference(*self._subjects.values())
            for family in self._by_watcher:
                _drop(family, lambda labels: labels[0] == watcher)
            for family in self._by_subject:
                _drop(family, lambda labels: labels[-1] in gone)

    def command_started(self, database: str, command: str) -> None:
        with self._lock:
            self._started.series[database, command] += 1

    def command_succeeded(self, database: str, command: str, seconds: float) -> None:
        with self._lock:
            self._succeeded.series[database, command] += 1
            self._duration.series[database, command].observe(seconds)

    def command_failed(self, database: str, command: str, seconds: float) -> None:
        with self._lock:
            self._failed.series[database, command] += 1
            self._duration.series[database, command].observe(seconds)

    # What Prometheus reads.

    def render(self) -> tuple[bytes, str]:
        """The metrics in the text format, and its content type."""
        if self._exposition is None:  # who is not scraped, or has just started, does without prometheus_client
            from app.metrics.exposition import Exposition

            self._exposition = Exposition(self.each_family)
        return self._exposition.render()

    def each_family(self, convert: Callable[[Family], T]) -> list[T]:
        """Every family, also one without a series yet, as `convert` makes of it; nothing changes meanwhile."""
        states = GaugeFamily(
            "changewire_watcher_state", "1 for the watcher's state, 0 for the others.", ("watcher", "state")
        )
        ages = GaugeFamily("changewire_watcher_checkpoint_age_seconds", "Seconds since the last checkpoint.")
        build = GaugeFamily("changewire_build_info", "The version that runs; always 1.", ("version",))
        build.series[(self._version,)] = 1.0
        with self._lock:
            for watcher, current in self._states.items():
                for state in State:
                    states.series[watcher, state.value] = float(state is current)
            for watcher, at in self._checkpoints.items():
                ages.series[(watcher,)] = max(0.0, self._clock() - at)
            return list(map(convert, (*self._by_subject, *self._by_command, *self._by_watcher, states, ages, build)))


def _drop(family: Family, gone: Callable[[Labels], bool]) -> None:
    for labels in [labels for labels in family.series if gone(labels)]:
        del family.series[labels]
