"""How far a watcher came in this process: kept over restarts of its capture, read by status, lag and metrics.

Plain data with one writer, the capture. Not its business: deciding anything from it (`domain/position.py`).
"""

from collections import deque
from dataclasses import dataclass, field, replace

from app.domain.arrears import Arrears
from app.domain.batching import BatchSize
from app.domain.lifecycle import State
from app.domain.position import OwnMessage, Reached
from app.domain.status import Happening
from app.domain.watcher import Route

_SECONDS = 60
REMEMBERED = 50
"""Happenings of a watcher; older ones are forgotten."""


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
        self._turn(int(now))
        return sum(self._slots[(int(now) - back) % _SECONDS] for back in range(window)) / window

    def _turn(self, now: int) -> None:
        for second in range(max(self._newest + 1, now - _SECONDS + 1), now + 1):
            self._slots[second % _SECONDS] = 0
        self._newest = max(self._newest, now)


@dataclass(slots=True)
class Progress:
    """What a watcher's capture has reached and counted. Times are seconds since 1970."""

    reached: Reached | None = None
    stored: str | None = None
    """The stored position as last read, of a watcher that has reached none in this process."""
    route: Route | None = None
    """What `reached` is a position of."""
    doubts: tuple[OwnMessage, ...] = ()
    """Messages of ours that may not be where they should be; a checkpoint holds them too, where it could be written."""
    ahead: int = 0
    """Openings in a row that found the checkpoint ahead of the server's operationTime."""
    unmet: int = 0
    """Looks in a row for a position's event that MongoDB's history had not come to yet."""
    operation_time: int = 0
    """The server's operationTime in the last reply."""
    caught_up: bool = False
    """Whether that reply had no events, so that the server is waiting for some on the watcher's behalf."""
    last_event_at: float | None = None
    checkpointed_at: float | None = None
    published: int = 0
    skipped: int = 0
    losses: int = 0
    """Races lost in a row to another writer."""
    dead_letters: int | None = None
    """How many there are, as far as is known."""
    batch: BatchSize = field(default_factory=BatchSize)
    """How many changes the stream takes at once, as far as was found out."""
    publish_mode: str | None = None
    fence: str | None = None
    notes: dict[str, str] = field(default_factory=dict)
    rates: Rates = field(default_factory=Rates)
    arrears: Arrears = field(default_factory=Arrears)
    history: deque[Happening] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    """Oldest first."""

    def happened(self, state: State, reason: str | None, now: float) -> None:
        """Remember a state, or an error in it. One that comes again and again is one entry, with a count."""
        last = self.history[-1] if self.history else None
        if last is None or last.state is not state or (reason is not None and last.reason != reason):
            self.history.append(Happening(state, now, now, reason))
        elif reason is not None:
            self.history[-1] = replace(last, last=now, count=last.count + 1)
