"""What is told of the instances, and asking one of them to give up its watchers.

The state database is asked each time, so that every instance tells the same. Where it cannot be reached, what was read
last (`share.py`) is told, with its age.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

import structlog

from app.control import audit
from app.control.fleet import Watched
from app.control.share import Share
from app.domain.errors import ChangewireError, Conflict, NotFound, Unavailable
from app.domain.instances import GONE_SECONDS, InstanceView, Member
from app.ports import Observer

log = structlog.get_logger(__name__)

RATE_SECONDS: Final = 5.0
"""How old an instance's rate may be, which is that of the last minute."""
HOMELESS_SECONDS: Final = 15.0
"""A watcher without an instance for longer than this is told of: a new owner is found much sooner."""
SHOWN: Final = 5
"""Watchers that a notice names."""


class Membership:
    """The instances on the state database, this one among them."""

    def __init__(self, share: Share, own: Mapping[str, Watched], clock: Callable[[], float]) -> None:
        """`own`: the watchers that this instance owns. `clock` gives seconds since 1970."""
        self._share = share
        self._own = own
        self._clock = clock
        self._since = clock()
        self._rated = float("-inf"), 0.0
        """When this instance's rate was worked out last, and what it was."""
        self._homeless: dict[str, float] = {}
        """Watchers that no live instance owns, and since when by the loop's clock."""

    # What is seen

    def rate(self) -> float:
        """Return how many changes per second this instance publishes. It is asked every second, and a thousand watchers
        are not gone through each time."""
        now = self._clock()
        if not 0 <= now - self._rated[0] < RATE_SECONDS:
            self._rated = now, sum(watched.statistics.rates.per_second(60, now) for watched in self._own.values())
        return self._rated[1]

    def look(self, watchers: Iterable[str]) -> None:
        """Note which of the stored watchers no live instance owns; to be called after each look at the others."""
        if self._share.store is None:
            self._homeless = {}
            return
        now, owners = asyncio.get_running_loop().time(), self._share.owners
        live = {member.name for member in self._share.members if not member.gone and not member.idle}
        found = [
            name
            for name in watchers
            if not self._share.has(name) and ((owner := owners.get(name)) is None or owner.by not in live)
        ]
        self._homeless = {name: self._homeless.get(name, now) for name in found}

    def homeless(self) -> list[str]:
        """Return the watchers that no live instance has owned for some time, by name."""
        before = asyncio.get_running_loop().time() - HOMELESS_SECONDS
        return sorted(name for name, since in self._homeless.items() if since <= before)

    def observe(self, observer: Observer) -> None:
        """Tell the observer of this instance's share, and of the others as they were seen last."""
        gone = sum(member.gone for member in self._share.members)
        live = max(1, len(self._share.members) - gone)  # this one is, whatever is stored
        observer.instances(
            self._share.name, watchers=len(self._own), live=live, gone=gone, homeless=len(self.homeless())
        )

    def notices(self) -> list[str]:
        """Return what a person should know of this instance's share, and of watchers that nobody has."""
        found = []
        name = self._share.name
        if any(member.name == name and member.drained for member in self._share.members):
            found.append(f"this instance is drained: it takes no watchers until `changewire instances undrain {name}`")
        if self._share.me.unfit is not None and self._share.outdated is None:
            found.append(f"other instances take this one's watchers: {self._share.me.unfit}")
        if homeless := self.homeless():
            named = ", ".join(homeless[:SHOWN]) + (", …" if len(homeless) > SHOWN else "")
            found.append(f"no instance runs {len(homeless)} of the watchers: {named}")
        return found

    # What is told, and asked for

    async def views(self) -> list[InstanceView]:
        """Return all instances by name, those that are gone for less than an hour too."""
        store = self._share.store
        if store is None:
            me = replace(self._share.me, since=self._since, seen=self._clock())
            return [InstanceView(me, len(self._own), itself=True)]
        count = self._owned()
        members, as_of = self._share.members, None
        ago = asyncio.get_running_loop().time() - self._share.looked_at
        try:
            if ago <= GONE_SECONDS:  # else it is not reached now, and nobody has to wait for that once more
                members, ago = await store.members(), 0.0
        except ChangewireError as error:
            log.info("instances_not_read", reason=str(error))
        if ago > 0.0:
            as_of = self._clock() - ago
        return [self._view(member, count[member.name], as_of) for member in members]

    def _owned(self) -> Counter[str]:
        """Count the watchers of each instance; of this one those too that were added and are not in the record yet."""
        owners = self._share.owners
        count = Counter(owner.by for owner in owners.values())
        count[self._share.name] += len(self._share.claimed - owners.keys())
        return count

    def _view(self, member: Member, watchers: int, as_of: float | None = None) -> InstanceView:
        itself = member.name == self._share.name
        if itself:
            me = self._share.me
            member = replace(member, unfit=me.unfit, stopping=me.stopping, rate=me.rate)
        return InstanceView(member, watchers, itself, as_of)

    async def drain(self, name: str, *, on: bool, force: bool = False) -> InstanceView:
        """Ask an instance to give up its watchers and to take no new ones, or take that back.

        Raises NotFound; Conflict where it is gone, or the only one that could run watchers unless `force` is set;
        Unavailable, StoreUnavailable."""
        store = self._share.store
        if store is None:
            raise Unavailable("this instance runs without the state database, so there is no other one to take over")
        if self._share.outdated is not None:
            raise Unavailable(f"{self._share.outdated}, or ask another instance")
        members = {member.name: member for member in await store.members()}
        if name not in members:
            raise NotFound(f"there is no instance {name}")
        if on:
            _refuse(members, name, force=force)
        if not await store.drain(name, on=on):
            raise NotFound(f"there is no instance {name} any more")
        audit.note(instance=name, draining=on)
        return self._view(replace(members[name], drained=on), self._owned()[name])


def _refuse(members: Mapping[str, Member], name: str, *, force: bool) -> None:
    """Raise Conflict where draining an instance would move nothing."""
    if members[name].gone:
        raise Conflict(
            f"the instance {name} was not heard of for {members[name].age:.0f} seconds, and its watchers are given to "
            "others: there is nothing to hand over"
        )
    if not force and not any(member.eligible for member in members.values() if member.name != name):
        raise Conflict(
            f"no other instance could run the watchers of {name} now; start one, or use ?force=true: {name} goes on "
            "running them until there is another one"
        )
