"""The watchers of mongodb-nats-connector's file: at each start the file wins over what is stored.

`config/connector_yaml.py` reads the file; the reconciler runs what is stored.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from app.control.positions import Positions
from app.domain.errors import ChangewireError, PermanentError, StoreUnavailable, TransientError
from app.domain.names import apart
from app.domain.namespaces import Namespaces
from app.domain.second_look import SecondLook
from app.domain.watcher import StoredWatcher, Watcher, outside
from app.ports import WatcherStore

log = structlog.get_logger(__name__)


class FileWatchers:
    """One file's watchers, on their way into the store."""

    def __init__(
        self,
        store: WatcherStore,
        positions: Positions,
        watchers: Sequence[Watcher] | None,
        allowed: Namespaces | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`watchers` is None where there is no file: what an earlier file left stays then. `allowed`: see `Rules`."""
        self._store = store
        self._positions = positions
        self._allowed = allowed
        self._watchers = watchers
        self._names: set[str] | None = None
        self._left: list[Watcher] = []
        self.pending: dict[str, str] = {}
        """Those that are not stored yet, and why; what is stored under their names must not run meanwhile."""
        self._clock = clock
        self._second_looks: defaultdict[str, SecondLook] = defaultdict(SecondLook)
        self.start_over()

    def start_over(self) -> None:
        """Forget what was stored: the store is another one."""
        watchers = self._watchers
        self._names = None if watchers is None else {watcher.name for watcher in watchers}
        self._left = list(watchers or ())
        self.pending = {watcher.name: "it is not stored yet" for watcher in self._left}

    async def settle(self) -> None:
        """Make the store agree with the file, as far as the servers allow now. Call again while any is `pending`.

        A watcher that cannot be stored holds back no other. Raises StoreUnavailable."""
        if self._names is None:
            return
        stored = {one.name: one for one in await self._store.load()}
        for watcher in list(self._left):
            try:
                await self._settle(watcher, stored.get(watcher.name))
            except StoreUnavailable:
                raise
            except ChangewireError as error:
                if str(error) != self.pending[watcher.name]:
                    log.warning("file_watcher_not_stored", watcher=watcher.name, reason=str(error))
                self.pending[watcher.name] = str(error)
            else:
                self._left.remove(watcher)
                del self.pending[watcher.name]
        if self._left:
            return
        for one in stored.values():
            if one.origin == "file" and one.name not in self._names:
                log.info("watcher_left_file", watcher=one.name)
                await self._store.delete(one.name)
        self._names = None

    async def _settle(self, watcher: Watcher, known: StoredWatcher | None) -> None:
        if known is None:
            await self._store.insert(StoredWatcher(watcher, origin="file", begin=await self._begin(watcher)))
            return
        if known.watcher == watcher and known.origin == "file":
            return
        begin = known.begin
        if known.watcher.entries or watcher.entries:
            await self._copy_places(known, watcher)
            begin = await self._begin(watcher)  # of those that came into the file; the others have positions
        elif known.watcher.source.namespace != watcher.source.namespace:
            begin = await self._begin(watcher)
        else:
            await self._positions.copy(known, watcher)
        changed = replace(known, watcher=watcher, origin="file", begin=begin)
        await self._store.replace(changed, expected_revision=known.revision)

    async def _copy_places(self, known: StoredWatcher, watcher: Watcher) -> None:
        """Take each entry's position along where the file gives it another place."""
        before = {entry.source.namespace: entry for entry in known.watcher.entries}
        for entry in watcher.entries:
            if (old := before.get(entry.source.namespace)) is not None:
                # The watcher wrote both under its own name.
                named = StoredWatcher(replace(old, name=known.name), begin=known.begin)
                await self._positions.copy(named, entry)

    async def _begin(self, watcher: Watcher) -> str | None:
        """Fix the start as of now, as for a watcher that is added over HTTP: NATS may come much later.

        Returns None where the watcher cannot run at all as it is; its first opening says why. An error that says so is
        believed when it comes again, and raised until then."""
        if outside(watcher, self._allowed):
            return None
        try:
            shared = await self._shared_position(watcher)
            return shared or await self._positions.locate(watcher, watcher.start)
        except TransientError:
            self._second_looks.pop(watcher.name, None)
            raise
        except PermanentError as error:
            if not self._second_looks[watcher.name].believes(error, now=self._clock(), well_at=0.0):
                raise
            return None
        except ChangewireError:
            return None

    async def _shared_position(self, watcher: Watcher) -> str | None:
        """Return the position that mongodb-nats-connector keeps for this watcher and another one of its collection in
        one place, which is the other's here; None for a watcher that shares none."""
        if watcher.entries:
            return None
        for other in (each for one in self._watchers or () for each in one.entries or (one,)):
            theirs = other.checkpoint
            place = theirs and replace(theirs, collection=apart(theirs.collection, watcher.sink.stream))
            if other.source.namespace == watcher.source.namespace and place == watcher.checkpoint:
                return (await self._positions.view(other)).token
        return None
