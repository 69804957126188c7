"""The record of who owns which watcher, as this instance knows it, and its changes of it.

All instances agree on one document. A change compares its revision, and one that another instance was faster than is
made again on what is there now. What is to change is said by a function of the owner as it is recorded, so that it can
be made again. Changes in quick succession are stored together, and one that cannot be stored now is tried again.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from typing import Final

import structlog

from app.domain.errors import ChangewireError
from app.domain.instances import Available, Member, Owner, Owners, available, planned
from app.ports.instance_store import InstanceStore

log = structlog.get_logger(__name__)

GATHER_SECONDS: Final = 0.02
"""For how long changes of the record are gathered, so that they are written together."""
AGAIN_SECONDS: Final = 1.0
"""After which a change is tried again that could not be stored."""
REFILLED_SECONDS: Final = 1.0
"""A restore of a backup drops a collection before it fills it again: what is gone may come back for so long, before it
is stored again."""
PLANS: Final = 3
"""How often a plan is made again at once where another instance was faster; the next look plans too."""

Change = Callable[[Owner | None], Owner | None]
"""Makes of a watcher's owner as it is recorded what it has to be; the same where nothing has to change."""


class OwnersRecord:
    """The record, for one instance. Every method that is awaited raises what the store raises."""

    def __init__(self, store: InstanceStore | None, silenced: Callable[[], bool]) -> None:
        """`store` is None where nothing is shared, and nobody asks. `silenced` tells whether this instance may change
        nothing."""
        self._store = store
        self._silenced = silenced
        self.known = Owners()
        """As it was read last, or changed by this instance since."""
        self.registry_revision = 0
        """The registry's, when the record was read last."""
        self.claimed: set[str] = set()
        """Watchers that were added here, and are not in the record yet."""
        self._in_order: tuple[Owners, Available] | None = None
        """What the last plan was made of that found nothing to change."""
        self._said = False
        """Whether the log has that a change cannot be stored now."""
        self._pending: dict[str, Change] = {}
        self._writing: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()

    async def read(self) -> None:
        """Read it where it has changed."""
        async with self._one_at_a_time:
            await self._read()

    async def _read(self) -> None:
        assert self._store is not None
        self.registry_revision, found = await self._store.owners(self.known.revision)
        if found is not None and found.revision == 0 and self.known.of:
            await asyncio.sleep(REFILLED_SECONDS)
            self.registry_revision, found = await self._store.owners(self.known.revision)
        if found is None:
            return
        if found.revision == 0 and not self._silenced():  # dropped by hand: what is known here is stored again
            known = self.known.of
            if not known or await self._store.change_owners(0, known, ()):
                self.known = Owners(1 if known else 0, known)
            return
        self.known = found

    async def plan(self, members: Callable[[], Sequence[Member]]) -> None:
        """Give away what gone members owned, and balance."""
        async with self._one_at_a_time:
            for _ in range(PLANS):
                # Asked every second: with a thousand watchers a plan costs more than the rest of a look.
                given = self.known, available(members())
                if self._in_order == given:
                    return
                changed = planned(self.known.of, members())
                if not changed:
                    self._in_order = given
                    return
                if await self._store_now(changed, ()):
                    log.info("watchers_placed", changed=len(changed), members=sum(not each.gone for each in members()))
                    return
                await self._read()

    async def place(self, groups: Mapping[str, str], known: Set[str], members: Callable[[], Sequence[Member]]) -> None:
        """Give an owner to stored watchers that have none, and forget those that are not stored any more; see
        `Share.place`."""
        async with self._one_at_a_time:
            while True:
                missing = {name: Owner("", group=group) for name, group in groups.items() if name not in self.known.of}
                placed = planned({**self.known.of, **missing}, members()) if missing else {}
                put = {name: placed[name] for name in missing if name in placed}
                drop = [name for name in known if name not in groups and name in self.known.of]
                if (not put and not drop) or await self._store_now(put, drop):
                    return
                await self._read()

    def changes(self, name: str) -> bool:
        """Whether a change of this watcher's owner is not stored yet."""
        return name in self._pending

    def change(self, name: str, change: Change) -> None:
        """Change a watcher's owner soon, after the changes of it that are not stored yet."""
        if self._silenced():  # what the record says of this name is the other one's, or another version's
            return
        self._pending[name] = _both(self._pending[name], change) if name in self._pending else change
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="owners")
            self._writing.add_done_callback(_report_end)

    async def written(self) -> None:
        """Wait until every change is stored, or was tried."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write(self) -> None:
        """Store what is pending, together, until nothing is."""
        while self._pending and not self._silenced():
            await asyncio.sleep(GATHER_SECONDS)
            pending, self._pending = self._pending, {}
            try:
                await self._write_changes(pending)
                self._said = False
            except ChangewireError as error:
                if not self._said:
                    log.info("owners_not_stored", reason=str(error))
                self._said = True
                self._pending |= {name: _both(change, self._pending.get(name)) for name, change in pending.items()}
                await asyncio.sleep(AGAIN_SECONDS)

    async def _write_changes(self, pending: Mapping[str, Change]) -> None:
        async with self._one_at_a_time:
            while True:
                known = self.known.of
                wanted = {name: change(known.get(name)) for name, change in pending.items()}
                put = {name: one for name, one in wanted.items() if one is not None and one != known.get(name)}
                drop = [name for name, one in wanted.items() if one is None and name in known]
                if (not put and not drop) or await self._store_now(put, drop):
                    break
                await self._read()
            self.claimed -= {name for name in pending if name not in self._pending}

    async def _store_now(self, put: Mapping[str, Owner], drop: Iterable[str]) -> bool:
        """Change the record; False where somebody else has changed it, which the next look reads."""
        assert self._store is not None
        known, drop = self.known, list(drop)
        if not await self._store.change_owners(known.revision, put, drop):
            return False
        if self.known is known:
            of = {name: one for name, one in known.of.items() if name not in drop}
            self.known = Owners(known.revision + 1, of | dict(put))
        return True


def _both(first: Change, then: Change | None) -> Change:
    """Return one change that makes these, in this order."""
    return first if then is None else lambda owner: then(first(owner))


def _report_end(task: "asyncio.Task[None]") -> None:
    with contextlib.suppress(asyncio.CancelledError):
        if (error := task.exception()) is not None:
            log.error("owners_task_ended", exc_info=error)
