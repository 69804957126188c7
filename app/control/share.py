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
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from dataclasses import replace
from typing import Final

import structlog

from app.control import process
from app.control.owners_record import Change, OwnersRecord
from app.domain.errors import ChangewireError, Conflict
from app.domain.instances import FORMAT, GONE_SECONDS, Member, Owner, speaker
from app.domain.measured import worth_telling
from app.ports.instance_store import InstanceStore

log = structlog.get_logger(__name__)

LOOK_SECONDS: Final = 0.25
EXPECTED_SECONDS: Final = 0.05
"""While a watcher is on its way to this instance: its changes wait."""
ALONE_SECONDS: Final = 1.0
"""How often an instance looks that has no other one beside it."""
BEAT_SECONDS: Final = 1.0
UNFIT_SECONDS: Final = 5.0
"""Without NATS for so long, an instance gives up its watchers where another one can publish."""


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
        self.server_up: Callable[[], bool] = lambda: True
        """Tells whether MongoDB answers at all; an outage is logged elsewhere."""
        self.ended: Callable[[str], Awaitable[None]] = _nothing
        """Is told the session of a process that is known to have ended. It may raise what the store raises."""
        self._unfit_since: float | None = None
        self.alone = store is None
        """Whether every watcher is this one's: there is no state database that others could use."""
        self.members: Sequence[Member] = ()
        """As they were read last, this one too, and those that are gone."""
        self.looked_at = float("-inf")
        """When that was, by the loop's clock."""
        self._record = OwnersRecord(store, lambda: self._silenced)
        self.outdated: str | None = None
        """Why this instance runs and changes nothing: the registry is of a later version. None where it is not."""
        self._joined = asyncio.Event()
        self.name_taken = asyncio.Event()
        """Set once another live instance has this one's name. This one owns nothing then, and has to end."""
        self._beaten_at = float("-inf")
        self._steady_since = float("-inf")
        self._blind_since: float | None = None
        """Since when the others cannot be looked at."""
        self._said = ""
        """The error that was logged of that."""
        self._reporting = asyncio.Lock()

    @classmethod
    def of_everything(cls) -> "Share":
        """Return that of an instance that owns every watcher."""
        return cls(None, Member("alone", secrets.token_hex(8)))

    def within_reach(self, there: bool) -> None:
        """Say whether there is a state database; without one, every watcher is this instance's."""
        self.alone = self._store is None or not there

    # What there is to say

    @property
    def name(self) -> str:
        return self._me.name

    @property
    def session(self) -> str:
        return self._me.session

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
        if self._silenced and not self.alone:
            return False
        if self.alone or watcher in self._record.claimed:
            return True
        owner = self._record.known.of.get(watcher)
        return owner is not None and owner.by == self.name and not owner.leaving

    @property
    def _silenced(self) -> bool:
        """Whether this instance may neither own nor say anything."""
        return self.name_taken.is_set() or self.outdated is not None

    def owner(self, watcher: str) -> str | None:
        """Return the other live instance that owns a watcher; None where it is this one, or none."""
        if self.alone or watcher in self._record.claimed:
            return None
        owner = self._record.known.of.get(watcher)
        return owner.by if owner is not None and owner.by != self.name and owner.by in self.others() else None

    def lacks_owner(self, watchers: Iterable[str]) -> bool:
        """Whether one of these has no owner in the record, though there is an instance that could own it."""
        if self.alone or self._silenced or not any(member.eligible for member in self.members):
            return False
        return any(name not in self._record.known.of and name not in self._record.claimed for name in watchers)

    def leaving(self) -> list[str]:
        """Return the watchers that this instance is to hand over."""
        mine = self._record.known.of.items()
        return [name for name, one in mine if one.by == self.name and one.leaving and name not in self._record.claimed]

    def others(self) -> list[str]:
        """Return the other live instances, by name."""
        return [member.name for member in self.members if member.name != self.name and not member.gone]

    @property
    def owners(self) -> Mapping[str, Owner]:
        return self._record.known.of

    @property
    def claimed(self) -> Set[str]:
        """Watchers that were added here, and may not be in the record yet."""
        return self._record.claimed

    # Life

    async def check_format(self) -> None:
        """Look whether the registry is one that this version knows. Raises what the store raises."""
        found = None if self._store is None or self.alone else _of_a_later_version(await self._store.format(FORMAT))
        if found is not None and found != self.outdated:
            log.error("registry_of_a_later_version", reason=found)
        self.outdated = found

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
                    await self.ended(member.session)
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
                carry_out(self._record.registry_revision)
                self._blind_since, self._said = None, ""
            except Exception as error:  # noqa: BLE001 - whatever it is, it is told and the next look is made
                self._note_trouble(error)
                if self.name_taken.is_set():
                    carry_out(self._record.registry_revision)
            await asyncio.sleep(self._pace)

    def _note_trouble(self, error: Exception) -> None:
        """Log once that the others cannot be seen, where MongoDB answers otherwise, and an error of ours."""
        self._steady_since = float("inf")
        now = asyncio.get_running_loop().time()
        self._blind_since = now if self._blind_since is None else self._blind_since
        if not isinstance(error, ChangewireError):
            if self._said != repr(error):
                log.error("instances_error", exc_info=error)
            self._said = repr(error)
        elif not self._said and now - self._blind_since >= UNFIT_SECONDS and self.server_up():
            log.warning("instances_unreachable", reason=str(error))
            self._said = str(error)

    @property
    def _pace(self) -> float:
        if any(owner.to == self.name and owner.by != self.name for owner in self._record.known.of.values()):
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
        gone = self._newly_gone(found)
        for member in gone:
            if process.has_ended(member.process):
                await self.ended(member.session)
        self.members, self.looked_at = found, now
        await self._record.read()
        if speaker(found) == self.name and self.outdated is None:
            for member in gone:  # one instance says it for all of them
                log.warning("instance_gone", instance=member.name, silent_seconds=round(member.age, 1))
            await self._record.plan(lambda: self.members)

    def _newly_gone(self, found: Sequence[Member]) -> list[Member]:
        """Return the members that have fallen silent since the look before; at the first look nothing is new."""
        if self.looked_at == float("-inf"):
            return []
        before = {member.name for member in self.members if member.gone}
        return [member for member in found if member.gone and member.name not in before]

    async def _report(self, now: float) -> None:
        async with self._reporting:
            await self._report_in_turn(now)

    async def _report_in_turn(self, now: float) -> None:
        assert self._store is not None
        me = replace(self._me, unfit=self._why_unfit(now), idle=self.outdated is not None)
        if me.unfit == self._me.unfit and now - self._beaten_at < BEAT_SECONDS:
            return
        me = replace(me, rate=self.rate())
        if not await self._store.beat(me) and not await self._store.join(me, None):
            raise self._twin()
        self._me, self._beaten_at = me, now

    def _why_unfit(self, now: float) -> str | None:
        if self.outdated is not None:
            return self.outdated
        why = self.unfit()
        if why is None:
            self._unfit_since = None
            return None
        if self._unfit_since is None:
            self._unfit_since = now
        return why if now - self._unfit_since >= UNFIT_SECONDS else None

    async def stop(self) -> None:
        """Say that this instance stops, and plan without it, so that each watcher can be handed over once it has
        drained. Raises what the store raises."""
        if self._store is None or self.alone or not self._joined.is_set():
            return
        async with self._reporting:  # else a report that is under way would take it back
            self._me = replace(self._me, stopping=True)
            await self._store.beat(self._me)
        await self.look()
        if self.outdated is None:
            await self._record.plan(lambda: self.members)

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
            self._record.claimed.add(name)
            self._record.change(name, self._claiming(group))

    async def place(self, groups: Mapping[str, str], known: Set[str]) -> None:
        """Give an owner to stored watchers that have none, and forget those that are not stored any more.

        `groups` has all that are stored, and what could share a change stream; `known` are the watchers that had an
        owner before they were read. Raises what the store raises."""
        if self._store is None or self.alone or self.outdated is not None:
            return
        await self._record.place(groups, known, lambda: self.members)

    def forget(self, name: str) -> None:
        """A watcher was removed."""
        if self.alone:
            return
        self._record.claimed.discard(name)
        self._record.change(name, lambda _: None)

    def let_go(self, name: str) -> None:
        """A watcher that is to be handed over has stopped here, and its position is stored."""
        self._record.change(name, self._handed_over)

    def _claiming(self, group: str) -> Change:
        def claim(owner: Owner | None) -> Owner:
            if owner is None:
                return Owner(self.name, group=group)
            # Another owner's that is gone is given away by the next plan. One of its own may have been planned away.
            return replace(owner, group=group) if owner.by == self.name else owner

        return claim

    def _handed_over(self, owner: Owner | None) -> Owner | None:
        if owner is None or owner.by != self.name or owner.to is None:
            return owner
        return replace(owner, by=owner.to, to=None)

    async def written(self) -> None:
        """Wait until every change of the record is stored, or was tried."""
        await self._record.written()

    def weigh(self, weights: Mapping[str, float]) -> None:
        """Say what this instance's watchers weigh, in changes per second. What has not changed much is not stored."""
        for name, weight in weights.items():
            owner = self.owners.get(name)
            if owner is None or owner.by != self.name or self._record.changes(name):
                continue
            if worth_telling(owner.weight, weight):
                self._record.change(name, self._weighing(weight))

    def _weighing(self, weight: float) -> Change:
        def weigh(owner: Owner | None) -> Owner | None:
            return owner if owner is None or owner.by != self.name else replace(owner, weight=weight)

        return weigh


async def _nothing(_session: str) -> None:
    pass


def _of_a_later_version(found: int) -> str | None:
    """Return why a registry of this format is left alone; None for one that this version knows."""
    if found <= FORMAT:
        return None
    known = f"this version of Changewire knows formats up to {FORMAT}"
    return f"the registry has format {found}, and {known}: it serves reads and runs nothing; start a newer version"
