"""What the tests of one instance's share have in common: a state database in memory, and the instances on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from app.control.share import Share
from app.domain.instances import Member, Owner, Owners
from tests.fakes import FakeInstances, FakeInstanceState

SOON = 0.05
TWO = {"w1": "shop", "w2": "stock"}
"""Watchers, and what could share a change stream."""


class Deployment:
    """One state database, and the instances on it."""

    def __init__(self) -> None:
        self.state = FakeInstanceState()
        self.stores: dict[str, FakeInstances] = {}
        self.sessions = 0

    def share(self, name: str, **member: Any) -> Share:
        """An instance that has not joined."""
        self.sessions += 1
        self.stores[name] = FakeInstances(self.state)
        return Share(self.stores[name], Member(name, f"session{self.sessions}", **member))

    async def joined(self, *names: str) -> list[Share]:
        shares = [self.share(name) for name in names]
        for share in shares:
            await share.join()
        for share in shares:
            await share.look()
        return shares

    def have(self, **owners: Owner) -> None:
        """Have these owners in the record, as another instance would have stored them."""
        self.state.owners = Owners(self.state.owners.revision + 1, {**self.state.owners.of, **owners})

    @property
    def owners(self) -> dict[str, tuple[str, str | None]]:
        return {name: (one.by, one.to) for name, one in self.state.owners.of.items()}


@asynccontextmanager
async def running(share: Share) -> AsyncIterator[list[int]]:
    """Let it look, and note with which revision of the registry it asks to carry out what it has found."""
    asked: list[int] = []
    task = asyncio.create_task(share.run(asked.append))
    try:
        yield asked
    finally:
        task.cancel()
        await asyncio.wait([task])
