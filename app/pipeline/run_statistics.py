"""What a watcher's runs add up to in this process: counters and moments for status, lag, metrics and history.

Nothing here decides where a watcher goes on; that is `run_state.py`. A watcher's own tasks write it, and the one that
looks at all watchers (`control/health.py`). A read changes nothing, so two reads at once get the same answer. Times are
seconds since 1970.
"""

from collections import deque
from dataclasses import dataclass, field, replace

from app.domain.lifecycle import State
from app.domain.overdue import Overdue
from app.domain.snapshot import Snapshot
from app.domain.status import Happening, Reads, SnapshotView

_SECONDS = 60
REMEMBERED = 50
"""How many happenings of a watcher are kept; older ones are forgotten."""


@dataclass(slots=True)
class Rates:
    """Events per second, counted in one slot per second of the last minute."""

    _slots: list[int] = field(default_factory=lambda: [0] * _SECONDS)
    _newest: int = 0

    def add(self, count: int, now: float) -> None:
        self._turn(int(now))
        self._slots[int(now) % _SECONDS] += count

    def per_second(self, window: int, now: float) -> float:
        """Return the mean over the last `window` whole seconds (at most 60), the running one included."""
        first, last = max(int(now) - window, self._newest - _SECONDS) + 1, min(int(now), self._newest)
        if first > last:
            return 0.0
        begin, end = first % _SECONDS, last % _SECONDS + 1
        if begin < end:
            return sum(self._slots[begin:end]) / window
        return (sum(self._slots[begin:]) + sum(self._slots[:end])) / window

    def _turn(self, now: int) -> None:
        for second in range(max(self._newest + 1, now - _SECONDS + 1), now + 1):
            self._slots[second % _SECONDS] = 0
        self._newest = max(self._newest, now)


@dataclass(slots=True)
class RunStatistics:
    """One watcher's, kept over restarts of its capture."""

    published: int = 0
    skipped: int = 0
    rates: Rates = field(default_factory=Rates)
    last_event_at: float | None = None
    """When the last change that was published happened in MongoDB, or was published where that does not tell."""
    checkpointed_at: float | None = None
    stored_token: str | None = None
    """The stored position as last looked at, of a watcher that has reached none in this process."""
    caught_up: bool = False
    """Whether the last reply had no events, so that the server is waiting for some on the watcher's behalf."""
    dead_letters: int | None = None
    """How many there are, as far as is known."""
    publish_mode: str | None = None
    fence: str | None = None
    reads: Reads | None = None
    snapshot: Snapshot | None = None
    """The run of its snapshot: the one that runs, or the last one."""
    snapshot_known: bool = False
    """Whether that was looked up: None means that there is none."""
    snapshot_waits: str | None = None
    """Why no rows are read now, though watcher and run are running."""
    rows: Rates = field(default_factory=Rates)
    notes: dict[str, str] = field(default_factory=dict)
    """By topic, what is not an error and a person should know."""
    overdue: Overdue = field(default_factory=Overdue)
    history: deque[Happening] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """Oldest first."""

    def add_published(self, count: int, event_at: float, now: float) -> None:
        """So many changes were acknowledged, the last of which happened at `event_at`."""
        self.published += count
        self.last_event_at = event_at
        self.rates.add(count, now)
        self.overdue.progressed(now)

    def knows_snapshot(self, run: Snapshot | None) -> None:
        """This is what is stored of its snapshot."""
        self.snapshot, self.snapshot_known = run, True
        if run is None or not run.running:
            self.snapshot_waits = None

    def snapshot_view(self, state: State, now: float) -> SnapshotView | None:
        """Return what there is to say of its snapshot, where the watcher is in this state."""
        run = self.snapshot
        if run is None or not run.running:
            return None if run is None else SnapshotView(run)
        waits = self.snapshot_waits if state is State.RUNNING else f"the watcher is {state}"
        seconds = max(1, int(now - (run.started_at or now)) + 1)
        rate = self.rows.per_second(min(_SECONDS, seconds), now)
        left = None if run.estimated_total is None else run.estimated_total - run.documents
        known = left is not None and left >= 0 and rate > 0 and waits is None
        return SnapshotView(
            run, waits, self.rows.per_second(min(10, seconds), now), now + left / rate if known and left else None
        )

    def add_dead_letter(self) -> None:
        """One more change was set aside."""
        self.dead_letters = (self.dead_letters or 0) + 1

    def publishes(self, mode: str, *, exclusive: bool, slower: str | None) -> None:
        """The stream was looked at; `slower` says why it is not published to in the fastest mode."""
        self.publish_mode, self.fence = mode, "stream" if exclusive else "subject"
        self.note("mode", slower)

    def note(self, topic: str, text: str | None) -> None:
        """Keep a note on a topic, in place of the one before; None takes it back."""
        if text is None:
            self.notes.pop(topic, None)
        else:
            self.notes[topic] = text

    def forget_position(self) -> None:
        """The watcher is moved on purpose: what is stored is another position now."""
        self.stored_token = self.checkpointed_at = None

    def happened(self, state: State, reason: str | None, now: float) -> None:
        """Remember a state, or an error in it. One that comes again and again is one entry, with a count."""
        last = self.history[-1] if self.history else None
        if last is None or last.state is not state or (reason is not None and last.reason != reason):
            self.history.append(Happening(state, now, now, reason))
        elif reason is not None:
            self.history[-1] = replace(last, last=now, count=last.count + 1)
