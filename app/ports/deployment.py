"""The two servers as a whole: what the service asks them, and how it reaches one watcher's place on each."""

from collections.abc import Iterable
from typing import Protocol

from app.domain.lag import Oplog
from app.domain.watcher import Watcher
from app.ports.checkpoint_store import CheckpointStore
from app.ports.dead_letter_queue import DeadLetterQueue
from app.ports.row_source import RowSource
from app.ports.sink import EventSink
from app.ports.snapshot_store import SnapshotStore
from app.ports.source import ChangeSource
from app.ports.stream_reader import StreamReader


class Mongo(Protocol):
    """The deployment as a whole: what the registry and the probes ask of it."""

    async def ping(self) -> int:
        """Return the server's operationTime, in seconds since 1970.

        Raises SourceUnavailable with the reason, within two seconds, also of a standalone server."""

    async def read_oplog(self) -> Oplog | None:
        """Return what the oplog holds; None where the account may not read it. Raises SourceUnavailable."""

    async def check_source(self, watcher: Watcher) -> str:
        """Try the watcher's change stream without keeping it: pipeline, view, privileges, server kind. Return the token
        of the present, where it was tried: what a start at `latest` means.

        Raises Invalid for what the user has to change, Unavailable where the server cannot be reached."""

    async def check_token(self, watcher: Watcher, token: str) -> None:
        """Refuse a token of another collection, of the future, or that the server does not take.

        Raises Invalid, Unavailable."""

    async def database_names(self) -> list[str]:
        """Return the names of the databases that the account may see. Raises SourceUnavailable, NotAuthorised."""

    async def collection_names(self, database: str, most: int) -> tuple[list[str], bool]:
        """Return the names of collections of a database that have change streams and that the account may see, at most
        so many, and whether there are more. Raises SourceUnavailable, NotAuthorised."""

    def expect(self, watchers: Iterable[Watcher]) -> None:
        """Say that the sources of these watchers will be opened soon, so that they can be opened together."""

    def source(self, watcher: Watcher) -> ChangeSource: ...

    def checkpoints(self, watcher: Watcher) -> CheckpointStore: ...

    def rows(self, watcher: Watcher) -> RowSource: ...

    def snapshots(self) -> SnapshotStore: ...


class Nats(Protocol):
    """The NATS account as a whole: what the registry and the probes ask of it."""

    async def ping(self) -> None:
        """Raises SinkUnavailable with the reason, within two seconds."""

    async def check_sink(self, watcher: Watcher) -> None:
        """Look whether the stream can carry the watcher, changing nothing.

        Raises Conflict (subjects do not cover, taken by another stream, no room for dead letters that are asked for),
        Invalid, Unavailable."""

    async def stream_names(self) -> tuple[list[str], bool]:
        """Return the names of streams, some thousands at most, and whether there are more. Raises SinkUnavailable,
        NotAuthorised."""

    def sink(self, watcher: Watcher) -> EventSink: ...

    def letters(self, watcher: Watcher) -> DeadLetterQueue: ...

    def reader(self, watcher: Watcher) -> StreamReader: ...
