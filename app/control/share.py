"""This instance's share: which watchers it owns, and how it takes them over from others and hands them over.

One task looks a few times per second at the members and at the record of the owners. What it finds it carries out
through the reconciler, which alone starts and stops watchers:

    the record says          and here it
    owned by this one        does not run ────► it is started
    to be handed over        runs ────────────► it drains and stores its position, and then the record names the next
    owned by another         runs ────────────► it is stopped: this instance was silent for too long, and was replaced

The first member by name plans for all (`domain/instances.py`), and each change of the record compares its revision. So
there is no election, and two that plan at the same time do no harm. A member that is not heard of for five seconds is
gone; but after trouble with MongoDB nobody is believed to be gone until this instance has been able to look for as long
itself: the others may have had the same trouble.
"""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Final

import structlog

from app.control import process
from app.domain.errors import ChangewireError, Conflict
from app.domain.instances import GONE_SECONDS, Member, Owner, Owners, planned, speaker
from app.ports.instance_store import InstanceStore

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 0.25
EXPECTED_SECONDS: Final = 0.05
"""While a watcher is on its way to this instance: its changes wait."""
ALONE_SECONDS: Final = 1.0
"""How often an instance looks that has no other one beside it."""
BEAT_SECONDS: Final = 1.0
GATHER_SECONDS: Final = 0.02
"""For how long changes of the record are gathered, so that they are written together."""
UNFIT_SECONDS: Final = 5.0
"""Without NATS for so long, an instance gives up its watchers where another one can publish."""

Change = Callable[[Owner | None], Owner | None]
"""Makes of a watcher's owner as it is recorded what it has to be; the same where nothing has to change."""


class Share:
    """What this instance owns. Everything here is asked on the event loop."""

    def __init__(self, store: InstanceStore | None, member: Member) -> None:
        """`store` is None for an instance that shares nothing: it owns every watcher."""
        self._store = store
        self._me = replace(member, process=process.this_process())
        self.unfit: Callable[[], str | None] = lambda: None
        """Tells why it cannot publish now."""
        self.rate: Callable[[], float] = lambda: 0.0
        """Tells how many changes it publishes per second."""
        self._unfit_since: float | None = None
        self.alone = store is None
        """Whether every watcher is this one's: there is no state database that others could use."""
        self.members: Sequence[Member] = ()
        """As they were read last, this one too, and those that are gone."""
        self.looked_at = float("-inf")
        """When that was, by the loop's clock."""
        self.registry_revision = 0
        """The registry's, when it was looked at last."""
        self._owners = Owners()
        self._claimed: set[str] = set()
        """Watchers that were added here, and are not in the record yet."""
        self._joined = asyncio.Event()
        self.name_taken = asyncio.Event()
        """Set once another live instance has this one's name. This one owns nothing then, and has to end."""
        self._beaten_at = float("-inf")
        self._steady_since = float("-inf")
        self._pending: dict[str, Change] = {}
        self._writing: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    def of_everything(cls) -> "Share":
        """Return that of an instance that owns every watcher."""
        return cls(None, Member("alone", ""))

    def within_reach(self, there: bool) -> None:
        """Say whether there is a state database; without one, every watcher is this instance's."""
        self.alone = self._store is None or not there

    # What there is to say

    @property
    def name(self) -> str:
        return self._me.name

    @property
    def me(self) -> Member:
        """This instance as it is now, whatever was stored of it last."""
        return replace(self._me, rate=self.rate())

    @property
    def store(self) -> InstanceStore | None:
        """Where the instances report; None where there is nothing to share."""
        return None if self.alone else self._store

    def has(self, watcher: str) -> bool:
        """Whether this instance is to run a watcher."""
        if self.name_taken.is_set() and not self.alone:
            return False
        if self.alone or watcher in self._claimed:
            return True
        owner = self._owners.of.get(watcher)
        return owner is not None and owner.by == self.name and not owner.leaving

    def owner(self, watcher: str) -> str | None:
        """Return the other live instance that owns a watcher; None where it is this one, or none."""
        if self.alone or watcher in self._claimed:
            return None
        owner = self._owners.of.get(watcher)
        return owner.by if owner is not None and owner.by != self.name and owner.by in self.others() else None

    def lacks_owner(self, watchers: Iterable[str]) -> bool:
        """Whether one of these has no owner in the record, though there is an instance that could own it."""
        if self.alone or not any(member.eligible for member in self.members):
            return False
        return any(name not in self._owners.of and name not in self._claimed for name in watchers)

    def leaving(self) -> list[str]:
        """Return the watchers that this instance is to hand over."""
        mine = self._owners.of.items()
        return [name for name, one in mine if one.by == self.name and one.leaving and name not in self._claimed]

    def others(self) -> list[str]:
        """Return the other live instances, by name."""
        return [member.name for member in self.members if member.name != self.name and not member.gone]

    @property
    def owners(self) -> Mapping[str, Owner]:
        return self._owners.of

    # Life

    async def join(self) -> None:
        """Report for the first time. Raises Conflict where another live instance has the name, and what the store
        raises."""
        if self._store is None or self.alone or self._joined.is_set():
            return
        over = await self._predecessor()
        if not await self._store.join(self._me, over):
            raise self._twin()
        await self.look()
        self._joined.set()
        log.info("instance_joined", instance=self.name, others=self.others())

    async def _predecessor(self) -> str | None:
        """Return the session of a member of this name that is gone; wait until that is certain."""
        assert self._store is not None
        seen: float | None = None
        while True:
            for member in await self._store.members():
                if process.has_ended(member.process):
                    await self._store.leave(member.name, member.session)
                    log.info("instance_has_ended", instance=member.name)
                elif member.name == self.name and member.session != self._me.session:
                    if member.gone:
                        return member.session
                    if seen is not None and member.seen > seen:
                        raise self._twin()
                    seen = member.seen
                    break
            else:
                return None
            await asyncio.sleep(LOOK_SECONDS)

    def _twin(self) -> Conflict:
        self.name_taken.set()
        return Conflict(self.taken())

    def taken(self) -> str:
        """Return what to say where another one has the name."""
        return (
            f"another live instance has the name {self.name}: give each a name of its own with CHANGEWIRE_INSTANCE, or "
            "leave it out; this one runs no watcher"
        )

    async def run(self, carry_out: Callable[[int], None]) -> None:
        """Look until cancelled. `carry_out` makes what runs here what the record says, and returns at once; it gets the
        registry's revision."""
        while True:
            await self._joined.wait()
            try:
                await self.look()
            except ChangewireError as error:
                if self._steady_since < float("inf"):
                    log.warning("instances_unreachable", error=str(error))
                self._steady_since = float("inf")
                if self.name_taken.is_set():
                    carry_out(self.registry_revision)
            else:
                carry_out(self.registry_revision)
            await asyncio.sleep(self._pace)

    @property
    def _pace(self) -> float:
        if any(owner.to == self.name and owner.by != self.name for owner in self._owners.of.values()):
            return EXPECTED_SECONDS
        return LOOK_SECONDS if self.others() else ALONE_SECONDS

    async def look(self) -> None:
        """Report, read the members and the owners, and plan where that is this one's to do."""
        if self._store is None:
            return
        now = asyncio.get_running_loop().time()
        await self._report(now)
        found = await self._store.members()
        if self._steady_since == float("inf"):
            self._steady_since = now
        if now - self._steady_since < GONE_SECONDS:  # the others may have had the same trouble
            found = [replace(member, age=min(member.age, GONE_SECONDS)) for member in found]
        self.members, self.looked_at = found, now
        async with self._one_at_a_time:
            await self._read_owners()
        if speaker(found) == self.name:
            await self._plan()

    async def _report(self, now: float) -> None:
        assert self._store is not None
        me = replace(self._me, unfit=self._why_unfit(now))
        if me.unfit == self._me.unfit and now - self._beaten_at < BEAT_SECONDS:
            return
        me = replace(me, rate=self.rate())
        if not await self._store.beat(me) and not await self._store.join(me, None):
            raise self._twin()
        self._me, self._beaten_at = me, now

    def _why_unfit(self, now: float) -> str | None:
        why = self.unfit()
        if why is None:
            self._unfit_since = None
            return None
        if self._unfit_since is None:
            self._unfit_since = now
        return why if now - self._unfit_since >= UNFIT_SECONDS else None

    async def _read_owners(self) -> None:
        assert self._store is not None
        self.registry_revision, found = await self._store.owners(self._owners.revision)
        if found is None:
            return
        if found.revision == 0:  # the record was dropped by hand: what is known here is stored again
            known = self._owners.of
            if not known or await self._store.change_owners(0, known, ()):
                self._owners = Owners(1 if known else 0, known)
            return
        self._owners = found

    async def _plan(self) -> None:
        """Give away what gone members owned, and balance."""
        assert self._store is not None
        async with self._one_at_a_time:
            while changed := planned(self._owners.of, self.members):
                if await self._store_owners(changed, ()):
                    log.info("watchers_placed", changed=len(changed), members=len(self.others()) + 1)
                    return
                await self._read_owners()

    async def stop(self) -> None:
        """Say that this instance stops, and plan without it, so that each watcher can be handed over once it has
        drained. Raises what the store raises."""
        if self._store is None or self.alone or not self._joined.is_set():
            return
        self._me = replace(self._me, stopping=True)
        await self._store.beat(self._me)
        await self.look()
        await self._plan()

    async def leave(self) -> None:
        """Take back the report. Raises what the store raises."""
        await self.written()
        if self._store is not None and self._joined.is_set():
            await self._store.leave(self.name, self._me.session)

    # Changes of the record

    def claim(self, groups: Mapping[str, str]) -> None:
        """Own watchers that were added here; `groups` has what could share a change stream. They are recorded soon."""
        if self.alone:
            return
        for name, group in groups.items():
            self._claimed.add(name)
            self._change(name, self._claiming(group))

    async def place(self, groups: Mapping[str, str], known: Set[str]) -> None:
        """Give an owner to stored watchers that have none, and forget those that are not stored any more.

        `groups` has all that are stored, and what could share a change stream; `known` are the watchers that had an
        owner before they were read. Raises what the store raises."""
        if self._store is None or self.alone:
            return
        async with self._one_at_a_time:
            while True:
                missing = {
                    name: Owner("", group=group) for name, group in groups.items() if name not in self._owners.of
                }
                placed = planned({**self._owners.of, **missing}, self.members) if missing else {}
                put = {name: placed[name] for name in missing if name in placed}
                drop = [name for name in known if name not in groups and name in self._owners.of]
                if (not put and not drop) or await self._store_owners(put, drop):
                    return
                await self._read_owners()

    def forget(self, name: str) -> None:
        """A watcher was removed."""
        if self.alone:
            return
        self._claimed.discard(name)
        self._change(name, lambda _: None)

    def let_go(self, name: str) -> None:
        """A watcher that is to be handed over has stopped here, and its position is stored."""
        self._change(name, self._handed_over)

    def _claiming(self, group: str) -> Change:
        def claim(owner: Owner | None) -> Owner:
            if owner is not None and owner.by != self.name and owner.by in self.others():
                return owner
            return Owner(self.name, group=group)

        return claim

    def _handed_over(self, owner: Owner | None) -> Owner | None:
        if owner is None or owner.by != self.name or owner.to is None:
            return owner
        return replace(owner, by=owner.to, to=None)

    def _change(self, name: str, change: Change) -> None:
        if self.name_taken.is_set():  # what the record says of this name is the other one's
            return
        self._pending[name] = change
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write(), name="owners")
            self._writing.add_done_callback(_report_end)

    async def written(self) -> None:
        """Wait until every change of the record is stored, or was tried."""
        if self._writing is not None:
            await asyncio.wait([self._writing])

    async def _write(self) -> None:
        """Store what is pending, together, until nothing is. What cannot be stored now is tried again."""
        while self._pending:
            await asyncio.sleep(GATHER_SECONDS)
            pending, self._pending = self._pending, {}
            try:
                await self._write_changes(pending)
            except ChangewireError as error:
                log.info("owners_not_stored", error=str(error))
                self._pending = pending | self._pending
                await asyncio.sleep(BEAT_SECONDS)

    async def _write_changes(self, pending: Mapping[str, Change]) -> None:
        async with self._one_at_a_time:
            while True:
                known = self._owners.of
                wanted = {name: change(known.get(name)) for name, change in pending.items()}
                put = {name: one for name, one in wanted.items() if one is not None and one != known.get(name)}
                drop = [name for name, one in wanted.items() if one is None and name in known]
                if (not put and not drop) or await self._store_owners(put, drop):
                    break
                await self._read_owners()
            self._claimed -= {name for name in pending if name not in self._pending}

    async def _store_owners(self, put: Mapping[str, Owner], drop: Iterable[str]) -> bool:
        """Change the record; False where somebody else has changed it, which the next look reads."""
        assert self._store is not None
        known, drop = self._owners, list(drop)
        if not await self._store.change_owners(known.revision, put, drop):
            return False
        if self._owners is known:
            of = {name: one for name, one in known.of.items() if name not in drop}
            self._owners = Owners(known.revision + 1, of | dict(put))
        return True


def _report_end(task: "asyncio.Task[None]") -> None:
    with contextlib.suppress(asyncio.CancelledError):
        if (error := task.exception()) is not None:
            log.error("owners_task_ended", exc_info=error)
