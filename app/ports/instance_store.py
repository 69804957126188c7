"""How the instances on one state database learn of each other, and agree on who owns which watcher."""

from collections.abc import Iterable, Mapping
from typing import Protocol

from app.domain.instances import Member, Owner, Owners


class InstanceStore(Protocol):
    """Members and owners. Every method raises StoreUnavailable, and StateOutOfReach where the account has no right."""

    async def members(self) -> list[Member]:
        """Return all that have reported and not left, by name; those that are gone too, for an hour."""

    async def join(self, member: Member, over: str | None) -> bool:
        """Begin to report. `over` is the session of a gone member of that name, whose place it takes.

        Returns False where somebody else has the name."""

    async def beat(self, member: Member) -> bool:
        """Report again. Returns False where this session's report is not there."""

    async def leave(self, name: str, session: str) -> None:
        """Remove a report."""

    async def drain(self, name: str, *, on: bool) -> bool:
        """Ask a member to give up its watchers, or to take some again. Returns False where there is none."""

    async def owners(self, known: int) -> tuple[int, Owners | None]:
        """Return the registry's revision, and the record of the owners; None where its revision is the known one."""

    async def change_owners(self, revision: int, put: Mapping[str, Owner], drop: Iterable[str]) -> bool:
        """Change the record where its revision is still this one, which adds one to it. Returns False where it is
        not."""

    async def format(self, known: int) -> int:
        """Return the registry's format, which is the known one where none was stored before."""

    async def secret(self) -> tuple[str, bytes]:
        """Return what the instances on this state database share: an id, and a key of 32 bytes."""
