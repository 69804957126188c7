"""What is told of each watcher as it happens, for metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from app.domain.events import Change
from app.domain.lifecycle import State


@dataclass(frozen=True, slots=True)
class Published:
    """A batch that is acknowledged. Times are seconds; `acked_at` is since 1970."""

    watcher: str
    collection: str
    """The collection, or what else is watched: a label that does not grow in number with the collections."""
    subjects: dict[str, str] = field(repr=False)
    """The subject of each operation that is in the batch; a filter where each collection has its own."""
    changes: Sequence[Change] = field(repr=False)
    read_seconds: float
    """From the read to the acknowledgement."""
    publish_seconds: float
    """From the publish to the acknowledgement."""
    acked_at: float


class Observer(Protocol):
    """Who is told what happens, for metrics. Never raises, never waits."""

    def published(self, batch: Published) -> None: ...
    def skipped(self, watcher: str, reason: str, count: int) -> None: ...
    def publish_failed(self, watcher: str, subject: str, count: int) -> None: ...
    def state(self, watcher: str, state: State) -> None: ...
    def restarted(self, watcher: str, reason: str) -> None: ...
    def position(self, watcher: str, *, lag_seconds: float | None, headroom_seconds: float | None) -> None: ...
    def history_at_risk(self, watcher: str, at_risk: bool) -> None: ...
    def overdue(self, watcher: str, overdue: bool) -> None: ...
    def dead_letters(self, watcher: str, count: int | None) -> None: ...
    def snapshot(self, watcher: str, *, running: bool) -> None: ...
    def checkpointed(self, watcher: str, at: float) -> None: ...
    def change_streams(self, *, shared: int, own: int, members: Mapping[str, int]) -> None:
        """How many are open; `members`: how many watchers read from shared ones, by database."""

    def instances(self, name: str, *, watchers: int, live: int, gone: int, homeless: int) -> None:
        """This instance's name and how many watchers it owns; how many instances there are; how many watchers no
        instance owns."""

    def forget(self, watcher: str) -> None: ...
    def command_started(self, database: str, command: str) -> None: ...
    def command_succeeded(self, database: str, command: str, seconds: float) -> None: ...
    def command_failed(self, database: str, command: str, seconds: float) -> None: ...
