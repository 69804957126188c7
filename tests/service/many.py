"""Several watchers at once on one stage, each with a collection and a stream of its own, two to a database."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.service.messages import Change, assert_same
from tests.service.process import Service
from tests.service.stage import Stage
from tests.service.waiting import until

TOGETHER = 2
"""Watchers of one database, which could share a change stream."""


class Many:
    """`count` watchers. Every document is an insert with the next number of its collection."""

    def __init__(self, stage: Stage, count: int = 8) -> None:
        self.stage = stage
        self.names = [f"w{number}" for number in range(count)]
        self.written = dict.fromkeys(self.names, 0)
        """How many documents were inserted for each."""

    def place(self, name: str) -> tuple[str, str]:
        """Database and collection of a watcher."""
        return f"{self.stage.database}_{self.names.index(name) // TOGETHER}", name

    def stream(self, name: str) -> str:
        return f"{self.stage.stream}_{name.upper()}"

    def described(self, name: str) -> dict[str, Any]:
        database, collection = self.place(name)
        source = {"database": database, "collection": collection}
        return {"name": name, "source": source, "sink": {"stream": self.stream(name)}}

    async def add(self, service: Service) -> None:
        """Add all through one service, and wait until each has an owner and its stream is there."""
        await until(lambda: self.stage.takes(service), f"{service.name} is ready")
        for name in self.names:
            await service.call("POST", "/watchers", self.described(name), status=201)
        await self.all_run()

    async def all_run(self) -> None:
        """Wait until each runs at the one that owns it."""
        for name in self.names:
            await (await self.stage.owner(name)).until_state(name, "RUNNING")

    async def shares(self) -> dict[str, int]:
        """How many watchers each instance owns; those that are being handed over count for nobody."""
        return dict(Counter((await self.stage.owners()).values()))

    async def until_shares(self, within: float = 30, **expected: int) -> None:
        """Wait until each instance owns as many as expected."""
        found: dict[str, int] = {}

        async def so() -> bool:
            found.clear()
            found.update(await self.shares())
            return found == expected

        try:
            await until(so, "", within=within)
        except AssertionError:
            raise AssertionError(f"the shares are not {expected} but {found}") from None

    async def write(self) -> None:
        """Insert one document for each."""

        async def one(name: str) -> None:
            database, collection = self.place(name)
            number = self.written[name] + 1
            await self.stage.mongo[database][collection].insert_one({"_id": number, "n": number})
            self.written[name] = number

        await asyncio.gather(*(one(name) for name in self.names))

    @asynccontextmanager
    async def load(self, pause: float = 0.05) -> AsyncIterator[None]:
        """Let documents be inserted beside what the test does within the block."""
        over = False

        async def write() -> None:
            while not over:
                await self.write()
                await asyncio.sleep(pause)

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(write())
            yield
            over = True

    async def until_published(self, more: int = 5, within: float = 40) -> None:
        """Wait until each stream has come to what is written now, and so much more."""
        wanted = {name: count + more for name, count in self.written.items()}
        for name in self.names:
            await self.stage.until_length(wanted[name], stream=self.stream(name), within=within)

    async def check(self, *services: Service) -> None:
        """Wait until everything has arrived, end the services, and compare: each change once, in order."""
        await self.until_published(more=0)
        for service in services:
            if service.running:
                service.thaw()
                assert await service.terminate() == 0, service.log_tail()
        for name in self.names:
            arrived = [message.change for message in await self.stage.messages(self.stream(name))]
            assert_same([Change("insert", n, n) for n in range(1, self.written[name] + 1)], arrived)
