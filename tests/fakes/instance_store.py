"""The members and the owners' record in memory, with a server's clock that the test moves."""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from app.domain.errors import StoreUnavailable
from app.domain.instances import Member, Owner, Owners

FORGOTTEN_SECONDS = 3600


@dataclass
class FakeInstanceState:
    """What the state database holds; shared by the stores of all instances on it."""

    now: float = 1_000_000.0
    """The server's clock, in seconds since 1970."""
    members: dict[str, Member] = field(default_factory=dict)
    owners: Owners = field(default_factory=Owners)
    registry: int = 0
    """The registry's revision."""
    secret: tuple[str, bytes] | None = None
    format: int | None = None


class FakeInstances:
    """`InstanceStore`. `reachable` false: every call raises StoreUnavailable. `before_change` is called once, right
    before the next change of the record: another instance may be faster there."""

    def __init__(self, state: FakeInstanceState | None = None) -> None:
        self.state = state or FakeInstanceState()
        self.reachable = True
        self.before_change: Callable[[], None] | None = None

    async def _reach(self) -> None:
        await asyncio.sleep(0)
        if not self.reachable:
            raise StoreUnavailable("connection refused")

    async def members(self) -> list[Member]:
        await self._reach()
        found = [replace(one, age=self.state.now - one.seen) for _, one in sorted(self.state.members.items())]
        return [one for one in found if one.age < FORGOTTEN_SECONDS]

    async def join(self, member: Member, over: str | None) -> bool:
        await self._reach()
        there = self.state.members.get(member.name)
        if there is not None and there.session not in (member.session, over):
            return False
        now = self.state.now
        self.state.members[member.name] = replace(member, since=now, seen=now, age=0.0)
        for name, one in list(self.state.members.items()):
            if now - one.seen >= FORGOTTEN_SECONDS:
                del self.state.members[name]
        return True

    async def beat(self, member: Member) -> bool:
        await self._reach()
        there = self.state.members.get(member.name)
        if there is None or there.session != member.session:
            return False
        self.state.members[member.name] = replace(
            member, drained=there.drained, since=there.since, seen=self.state.now, age=0.0
        )
        return True

    async def leave(self, name: str, session: str) -> None:
        await self._reach()
        there = self.state.members.get(name)
        if there is not None and there.session == session:
            del self.state.members[name]

    async def drain(self, name: str, *, on: bool) -> bool:
        await self._reach()
        if name not in self.state.members:
            return False
        self.state.members[name] = replace(self.state.members[name], drained=on)
        return True

    async def owners(self, known: int) -> tuple[int, Owners | None]:
        await self._reach()
        found = self.state.owners
        return self.state.registry, None if found.revision == known else found

    async def change_owners(self, revision: int, put: Mapping[str, Owner], drop: Iterable[str]) -> bool:
        await self._reach()
        if self.before_change is not None:
            meanwhile, self.before_change = self.before_change, None
            meanwhile()
        found, drop = self.state.owners, set(drop) - set(put)
        if found.revision != revision:
            return False
        kept = {name: one for name, one in found.of.items() if name not in drop}
        self.state.owners = Owners(revision + 1, kept | dict(put))
        return True

    async def format(self, known: int) -> int:
        await self._reach()
        if self.state.format is None:
            self.state.format = known
        return self.state.format

    async def secret(self) -> tuple[str, bytes]:
        await self._reach()
        if self.state.secret is None:
            self.state.secret = ("group", bytes(range(32)))
        return self.state.secret
