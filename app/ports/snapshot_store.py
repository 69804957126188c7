"""Where the runs of snapshots are kept, one of each watcher: the one that runs, or the last one."""

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from app.domain.snapshot import Snapshot


class Summary(NamedTuple):
    """A run without the chunks that are planned, and whether it is `open`."""

    run: Snapshot
    open: bool


class SnapshotStore(Protocol):
    """Every method raises StoreUnavailable, and StateOutOfReach where the account has no right."""

    async def all(self) -> Mapping[str, "Summary"]:
        """Return every watcher's run. Those who ask at the same moment share the answer."""

    async def running(self) -> Mapping[str, str]:
        """Return the names of the runs that are neither complete nor ended, by watcher."""

    async def read(self, watcher: str) -> Snapshot | None:
        """Return a watcher's run."""

    async def put(self, snapshot: Snapshot, before: Snapshot | None) -> bool:
        """Store a new run in the place of the one before, durably (majority).

        Returns False, and changes nothing, where there is another one by now."""

    async def change(self, before: Snapshot, after: Snapshot) -> bool:
        """Store what has changed in a run, durably (majority).

        Returns False, and changes nothing, where the stored one is not the version `before` any more: somebody else
        has moved it on, ended it, or begun another one."""

    async def delete(self, watcher: str) -> None:
        """Forget a watcher's run; fine where there is none."""
