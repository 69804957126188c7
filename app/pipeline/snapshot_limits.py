"""How much the snapshots of a process may take, whatever they read: so many at once, and none while changes lag."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class SnapshotLimits:
    """Shared by all watchers of a process."""

    at_once: int = 4
    """How many runs read at the same time; the others wait."""
    max_lag_seconds: float = 10.0
    """A run waits while the watcher's changes are further behind."""
    _reading: set[str] = field(default_factory=set, init=False)

    def take(self, watcher: str) -> bool:
        """Whether a watcher's run may read now; it keeps its place until `release`."""
        if watcher not in self._reading:
            if len(self._reading) >= self.at_once:
                return False
            self._reading.add(watcher)
        return True

    def release(self, watcher: str) -> None:
        """The run is over, or the watcher does not run."""
        self._reading.discard(watcher)
