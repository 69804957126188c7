"""An observer that counts."""

from collections.abc import Mapping

from app.domain.lifecycle import State
from app.ports import Published


class NullObserver:
    """An observer that keeps the sums a test may ask for."""

    def __init__(self) -> None:
        self.published_events = 0
        self.skips: dict[str, int] = {}
        self.states: list[State] = []
        self.restarts: list[str] = []
        self.checkpoints = 0
        self.letters: dict[str, int | None] = {}
        self.at_risk: dict[str, bool] = {}
        self.overdues: dict[str, bool] = {}
        self.snapshots: dict[str, bool] = {}
        self.streams: dict[str, int] = {}
        self.members: dict[str, int] = {}
        self.shares: dict[str, int] = {}

    def published(self, batch: Published) -> None:
        self.published_events += len(batch.changes)

    def skipped(self, watcher: str, reason: str, count: int) -> None:
        self.skips[reason] = self.skips.get(reason, 0) + count

    def publish_failed(self, watcher: str, subject: str, count: int) -> None: ...

    def state(self, watcher: str, state: State) -> None:
        self.states.append(state)

    def restarted(self, watcher: str, reason: str) -> None:
        self.restarts.append(reason)

    def position(self, watcher: str, *, lag_seconds: float | None, headroom_seconds: float | None) -> None: ...

    def history_at_risk(self, watcher: str, at_risk: bool) -> None:
        self.at_risk[watcher] = at_risk

    def overdue(self, watcher: str, overdue: bool) -> None:
        self.overdues[watcher] = overdue

    def dead_letters(self, watcher: str, count: int | None) -> None:
        self.letters[watcher] = count

    def snapshot(self, watcher: str, *, running: bool) -> None:
        self.snapshots[watcher] = running

    def change_streams(self, *, shared: int, own: int, members: Mapping[str, int]) -> None:
        self.streams = {"shared": shared, "own": own}
        self.members = dict(members)

    def instances(self, name: str, *, watchers: int, live: int, gone: int, homeless: int) -> None:
        self.shares = {name: watchers, "live": live, "gone": gone, "homeless": homeless}

    def checkpointed(self, watcher: str, at: float) -> None:
        self.checkpoints += 1

    def forget(self, watcher: str) -> None: ...

    def command_started(self, database: str, command: str) -> None: ...

    def command_succeeded(self, database: str, command: str, seconds: float) -> None: ...

    def command_failed(self, database: str, command: str, seconds: float) -> None: ...
