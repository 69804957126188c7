"""Where watchers are kept, and how the instances on one state database learn of each other."""

from collections.abc import Callable, Sequence
from typing import Protocol

from app.domain.overlap_index import OverlapIndex
from app.domain.snapshot import Snapshot
from app.domain.watcher import StoredWatcher

ALIVE_SECONDS = 20.0
"""Seconds. An instance reports that it is alive each time it has read the store: every five seconds, or later by a
drain."""

Check = Callable[[OverlapIndex], None]
"""Looks at all stored watchers and raises Conflict where they rule a change out. It changes nothing."""


class WatcherStore(Protocol):
    """The registry's memory, shared by every instance on the same state database.

    Changes are made one after another, each with a revision of its own, greater than any before. Every method raises
    StoreUnavailable.
    """

    async def load(self) -> list[StoredWatcher]:
        """Return all watchers, in the order in which they were added."""

    async def get(self, name: str) -> StoredWatcher | None:
        """Return one."""

    async def revision(self) -> int:
        """Return the last change's revision; 0 before the first."""

    async def check(self, check: Check) -> None:
        """Run a check on everything that is stored now. Raises what it raises."""

    async def insert(self, stored: StoredWatcher, check: Check | None = None) -> StoredWatcher:
        """Add one, and return it with its revision. Raises Conflict where the name is taken, and what `check` raises.

        Between `check` and the change nothing else is changed."""

    async def insert_all(
        self, wanted: Sequence[StoredWatcher], check: Check | None = None, runs: Sequence[Snapshot] = ()
    ) -> list[StoredWatcher]:
        """Add several in one change, all or none, and return them with its revision. Raises as `insert`.

        The same change stores the runs of snapshots that begin with them, and removes what an earlier watcher of such a
        name has left."""

    async def replace(
        self, stored: StoredWatcher, *, expected_revision: int, check: Check | None = None
    ) -> StoredWatcher:
        """Replace one whose revision is still the expected one, and return it with its new one.

        Raises Conflict where it is not, NotFound, and what `check` raises, as `insert`."""

    async def began(self, name: str, revision: int) -> None:
        """Take back `new_start` and `begin` of one that is still of this revision, which stays as it is.

        Those that are asked for at the same moment are written together."""

    async def delete(self, name: str, *, expected_revision: int | None = None) -> int:
        """Remove one and the run of its snapshot, and return the revision of that.

        Raises NotFound, and Conflict where a revision is expected and it has another one."""

    async def restore(self, lost: Sequence[StoredWatcher], applied: int) -> bool:
        """Put these back, as they were, into a store that has lost all watchers, and count that: higher than any
        revision of theirs.

        Returns False, and changes nothing, where it has one, or where it counted a change after revision `applied`."""

    async def attend(self, instance: str, applied: int) -> None:
        """Report that an instance is alive and has carried out every change up to this revision."""

    async def leave(self, instance: str) -> None:
        """Remove the report of an instance that has ended."""

    async def behind(self, instance: str, revision: int) -> int:
        """Count the other live instances that have not yet carried out every change up to this revision.

        One that has not been heard of for `ALIVE_SECONDS` is not alive."""
