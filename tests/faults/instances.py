"""A third form of what is broken: three instances that share some twenty watchers of two databases.

Most watchers share change streams, some have one of their own by a pipeline, and one watches a whole database. A fourth
instance joins now and then. After each fault every watcher has to run in exactly one instance, and at the end the
instances have to be in balance.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pymongo.errors import PyMongoError

from tests.faults.crowd import APART, DEPOT, HOT, SHOP, STRANGERS, Crowd
from tests.faults.testbed import Load
from tests.service import Service, Stage, until

PLAIN = ("s16", "s17")
SHARED = (*SHOP[:6], *DEPOT[:6], *PLAIN)
BATCHES_ONE, FAST_ONE = HOT[:2]
"""Of the hot ones: one with three replicas, and one with one."""
UNEVEN = 1.2
"""How much more than its fair share an instance may have, and one watcher more than that: one cannot be divided."""


class Instances(Crowd):
    """Testbed of this form."""

    instances: Sequence[str] = ("one", "two", "three")
    guests: Sequence[str] = ("four",)
    shared_ones: Sequence[str] = SHARED
    watched: Sequence[str] = (*SHARED, *APART)
    strangers: Sequence[str] = STRANGERS[::3]

    def __init__(self, load: Load | None = None, **bounds: Any) -> None:
        super().__init__(load, **bounds)
        self.resting: set[str] = set()
        """The watchers that are paused."""
        self._weights: dict[str, float] = {}

    @property
    def wanted(self) -> set[str]:
        """The watchers that are to run."""
        removed = {visit.name for visit in self.visits if visit.removed}
        return {watcher["name"] for watcher in self.watchers} | {visit.name for visit in self.visits} - removed

    async def all_run(self) -> bool:
        return self.wanted - self.resting <= set().union(*(await self.running()).values())

    async def spread(self) -> str | None:
        """Why not every watcher runs in exactly one instance; None where each does."""
        running = await self.running()
        runs = Counter(name for names in running.values() for name in names)
        nowhere = sorted(self.wanted - self.resting - set(runs))
        twice = sorted(name for name, count in runs.items() if count > 1)
        if nowhere:
            return f"{', '.join(nowhere)}: run by no instance; {await self._recorded(nowhere)}"
        return f"{', '.join(twice)}: run by more than one instance" if twice else None

    async def settled(self, what: str) -> None:
        """Wait until every watcher runs in exactly one instance; a problem where that does not come."""
        found: list[str | None] = []

        async def each_once() -> bool:
            found.append(await self.spread())
            return found[-1] is None

        try:
            await until(each_once, f"every watcher runs once {what}", within=self.patience)
        except AssertionError as error:
            self.problems.append(f"{error}: {found[-1]}")

    async def replaced(self, gone: Service) -> None:
        """Wait until other instances run everything; `gone` is killed, frozen, or has left."""
        await until(self.all_run, f"the others run everything without {gone.name}", within=self.patience)

    async def taken_over(self) -> None:
        """Wait until every stream has a message of a change that was made after now."""
        now = time.time()
        await until(lambda: self.lag.reached > now, "the others publish", within=self.patience)

    async def takes(self, service: Service) -> None:
        """Wait until a service that was started is ready."""
        await until(lambda: Stage.takes(service), f"{service.name} is ready", within=self.patience)

    async def balanced(self) -> None:
        """Wait until no instance that runs has much more than its share."""
        found: dict[str, float] = {}

        async def even() -> bool:
            found.clear()
            found.update(await self._shares())
            live = [service.name for service in (*self.services, *self.visiting) if service.running]
            fair = sum(found.values()) / len(live)
            most = UNEVEN * fair + max(self._weights.values(), default=0)
            return set(found) <= set(live) and all(0 < found.get(name, 0) <= most for name in live)

        try:
            await until(even, "the instances are in balance", within=self.patience)
        except AssertionError as error:
            self.problems.append(f"{error}: {found}")

    async def finish(self) -> None:
        await self.balanced()
        await super().finish()

    async def _owners(self) -> Mapping[str, Mapping[str, Any]]:
        """The record of the owners, as the instances keep it."""
        try:
            found = await self.client[self.state]["registry"].find_one({"_id": "owners"})
        except PyMongoError:
            return {}
        return {} if found is None else dict(found["owners"])

    async def _shares(self) -> Mapping[str, float]:
        """What each instance owns, by weight."""
        owners = await self._owners()
        self._weights = {name: max(1.0, float(owner.get("weight", 1.0))) for name, owner in owners.items()}
        shares: dict[str, float] = {}
        for name, owner in owners.items():
            by = owner["by"]
            shares[by] = shares.get(by, 0.0) + self._weights[name]
        return shares

    async def _recorded(self, names: Sequence[str]) -> str:
        owners = await self._owners()
        return ", ".join(f"{name} is recorded as {owners.get(name)}" for name in names[:3])
