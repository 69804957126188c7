"""A fourth form of what is broken: snapshots, again and again, of collections that are written all the while.

A watcher for each way to publish, two instances that share them, and in each collection documents from before, which a
writer of their own updates, replaces and deletes. Each watcher takes one snapshot after the other; some are cancelled.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from itertools import cycle
from typing import Any

import httpx
from pymongo.errors import PyMongoError

from tests.faults.testbed import DATABASE, FAST, KEPT, Load, Testbed
from tests.faults.writers import Change
from tests.service import is_stopped, until

BEFORE = 1_500
"""Documents of each collection that were there before its watcher."""
TEXT = "x" * 200
TOUCH_SECONDS = 0.02
"""Between two changes of documents from before."""
REST_SECONDS = (0.0, 2.0)
"""Between two snapshots of a watcher."""
CANCELLED = 0.15
"""How many of the snapshots are cancelled."""
ASK_SECONDS = 0.25
LOAD = Load(writers=4, pause=0.03, bulk=300, bulk_pause=2.0)


class Snapshots(Testbed):
    """Testbed of this form."""

    databases: Mapping[str, str] = dict.fromkeys(KEPT, DATABASE)
    names: Sequence[str] = KEPT
    recorded: Sequence[str] = ()
    replicated: Sequence[str] = tuple(name for name in KEPT if name != FAST)
    one_replica: Sequence[str] = (FAST,)

    def __init__(self, load: Load | None = None, **bounds: Any) -> None:
        super().__init__(load or LOAD, **bounds)
        self.before: dict[str, dict[str, str]] = {}
        """What each collection held before its watcher: the number of each document by its `_id`."""
        self.ended: dict[str, Counter[str]] = {name: Counter() for name in self.names}
        """How the snapshots of each watcher ended."""
        self._over = False
        self._taking: set[str] = set(self.names)

    def _beside(self) -> list[Coroutine[Any, Any, None]]:
        return [*super()._beside(), *(self._take(name) for name in self.names), self._touch()]

    async def _serve(self, stack: AsyncExitStack) -> None:
        for name in self.names:
            documents = [{"_id": f"old-{number:05}", "n": f"old-{number:05}", "text": TEXT} for number in range(BEFORE)]
            await self.client[DATABASE][name].insert_many(documents)
            self.before[name] = {str(each["_id"]): str(each["n"]) for each in documents}
        self.since = (await self.client.admin.command("hello"))["operationTime"]
        await super()._serve(stack)

    # What goes on all the time

    async def _touch(self) -> None:
        """Change documents from before: each by this task alone, and none again that a write ended in an error."""
        draw, number = random.Random("touch"), 0
        left = {name: list(there) for name, there in self.before.items()}
        while not self._over:
            name = draw.choice(self.names)
            kind = draw.choices(("update", "replace", "delete"), (8, 1, 1))[0]
            place = draw.randrange(len(left[name]))
            id_, number = left[name][place], number + 1
            change: Change = (name, kind, id_, None if kind == "delete" else f"touched-{number}")
            if not await self.writers.apply([change]) or kind == "delete":
                left[name][place] = left[name][-1]
                left[name].pop()
            await asyncio.sleep(TOUCH_SECONDS)

    async def _take(self, name: str) -> None:
        """Take one snapshot after the other, and a last one when all else is over."""
        draw, last = random.Random(name), False
        path = f"/watchers/{name}/snapshot"
        while not last:
            await asyncio.sleep(draw.uniform(*REST_SECONDS))
            last = self._over
            if await self._answered("POST", path) != 202:
                await asyncio.sleep(ASK_SECONDS)
                last = False
                continue
            run = await self._stored(name)
            if draw.random() < CANCELLED and not last:
                await asyncio.sleep(draw.uniform(0, 0.5))
                await self._answered("DELETE", path)
            while (stored := await self._stored(name)) is None or stored["state"] == "running":
                await asyncio.sleep(ASK_SECONDS)
            self.ended[name][stored["state"]] += 1
            if stored["state"] == "failed":
                self.problems.append(f"the snapshot {stored['run']} of {name} has failed: {stored['reason']}")
            assert run is None or stored["run"] >= run["run"], f"{stored['run']} after {run['run']}"
        self._taking.discard(name)

    async def _stored(self, name: str) -> dict[str, Any] | None:
        """What is stored of a watcher's run; None where MongoDB does not answer."""
        with suppress(PyMongoError):
            found = await self.client[self.state]["snapshots"].find_one({"_id": name}, {"chunks": 0})
            return None if found is None else dict(found)
        return None

    async def _answered(self, method: str, path: str) -> int:
        """Make a call of whichever service answers it, and return its status."""
        for service in cycle(self.services):
            with suppress(httpx.TransportError):
                if service.running and not is_stopped(service.pid):
                    answer = await service.call(method, path)
                    assert answer.status_code in (202, 404, 409, 503), f"{method} {path}: {answer.text}"
                    return answer.status_code
            await asyncio.sleep(ASK_SECONDS)
        raise AssertionError

    async def published(self) -> None:
        """Wait until every stream has a message of a change that was made after now."""
        now = time.time()
        await until(lambda: self.lag.reached > now, "changes are published", within=self.patience)

    # The end

    async def finish(self) -> None:
        """Let the snapshots that run come to their end."""
        self._over = True
        try:
            await until(lambda: not self._taking, "the last snapshots have ended", within=self.patience)
        except AssertionError as error:
            stored = {name: await self._stored(name) for name in self._taking}
            self.problems.append(f"{error}: {stored}; {await self.states()}")
        await super().finish()

    def _judge_modes(self) -> None:
        super()._judge_modes()
        for name, ended in self.ended.items():
            print(f"{name}: snapshots {dict(ended)}", flush=True)
            if not ended["done"]:
                self.problems.append(f"no snapshot of {name} was completed: {dict(ended)}")
