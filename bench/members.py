"""Several instances on one state database: started, killed, stopped, and which watchers each owns by the record."""

import asyncio
import time
import urllib.error
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from bench.contenders import Changewire
from bench.procfs import Moment
from bench.program import Program
from bench.stage import Incomplete, Place, Stage

UNEVEN = 0.2
"""How far from its fair share an instance may be, and one watcher further: one cannot be divided."""
LOOK_SECONDS = 0.02

Owners = Mapping[str, Mapping[str, Any]]


class Instance(Changewire):
    """One of several, with a name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def environment(self, stage: Stage, database: str) -> dict[str, str]:
        return super().environment(stage, database) | {"CHANGEWIRE_INSTANCE": self.name}

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One call; the answer's JSON. Raises Incomplete where it is refused."""
        try:
            return await asyncio.to_thread(self._call, method, path, body, timeout=60)
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")
            raise Incomplete(f"{method} {path}: {error.code} {said}") from error


class Members:
    """The instances, and the watchers that they share. Use `shared` to have them ended and removed."""

    def __init__(self, stage: Stage, places: Sequence[Place], patience: float) -> None:
        """`patience`: seconds that nothing may take longer than."""
        self.places = places
        self.running: dict[str, Program] = {}
        """The processes that run, by their instance's name."""
        self._instances: dict[str, Instance] = {}
        self._stage, self._patience = stage, patience
        self._record = stage.client[f"{places[0].database}_state"]["registry"]

    def moment(self) -> Moment:
        """The processor time used so far by all instances together, mongod and nats-server."""
        return Moment.now({"service": [each.pid for each in self.running.values()], **self._stage.pids})

    def instance(self, name: str) -> Instance:
        return self._instances.setdefault(name, Instance(name))

    # Life

    def start(self, name: str) -> None:
        """Start one."""
        self.running[name] = self.instance(name).start(self._stage, self.places)

    async def ready(self, name: str) -> None:
        """Wait until one says that it is ready."""
        await self.instance(name).up(self.running[name])

    async def kill(self, name: str) -> float:
        """End one as a crash does; the moment before that (`time.perf_counter`)."""
        program, began = self.running.pop(name), time.perf_counter()
        await asyncio.to_thread(program.kill)
        return began

    async def stop(self, name: str) -> None:
        """Ask one to end, and wait for it."""
        await self.running.pop(name).stop()

    def freeze(self) -> None:
        """Have none of them do anything until they are thawed."""
        for program in self.running.values():
            program.freeze()

    def thaw(self) -> None:
        for program in self.running.values():
            program.thaw()

    # Watchers

    async def add(self, name: str) -> None:
        """Add a watcher for each place to one instance in one call, and wait until they are RUNNING."""
        await self.ready(name)
        bodies = [
            {
                "name": place.stream,
                "source": {"database": place.database, "collection": place.collection},
                "sink": {"stream": place.stream, "replicas": self._stage.replicas},
            }
            for place in self.places
        ]
        await self.instance(name).ask("POST", "/watchers", bodies)

        async def asked() -> bool:
            answer = await self.instance(name).answer(self.running[name], "/watchers?state=RUNNING")
            return answer is not None and len(answer) == len(self.places)

        await self.until(asked, lambda: "not all watchers are RUNNING", pause=0.1)

    # The record

    async def owners(self) -> Owners:
        """The owners by watcher, as the instances have recorded them."""
        found = await asyncio.to_thread(self._record.find_one, {"_id": "owners"})
        return found["owners"] if found is not None else {}

    async def owned(self, name: str) -> list[int]:
        """The indices of the places whose watchers an instance owns."""
        owners = await self.owners()
        return [index for index, place in enumerate(self.places) if owners[place.stream]["by"] == name]

    async def without(self, name: str) -> None:
        """Wait until the record names others for all watchers of one instance."""

        async def left() -> bool:
            return all(owner["by"] != name for owner in (await self.owners()).values())

        await self.until(left, lambda: f"{name} still owns watchers")

    async def balanced(self) -> None:
        """Wait until each watcher has an owner that runs, none is on its way to another, and all have fair shares."""
        owners: Owners = {}

        async def even() -> bool:
            nonlocal owners
            owners = await self.owners()
            for program in self.running.values():
                program.check()
            return len(owners) == len(self.places) and balanced(owners, [*self.running])

        await self.until(even, lambda: f"not in balance: {Counter(each['by'] for each in owners.values())}")

    async def until(
        self, good: Callable[[], Awaitable[bool]], what: Callable[[], str], *, pause: float = LOOK_SECONDS
    ) -> None:
        """Wait for something. Raises Incomplete after the patience."""
        deadline = time.monotonic() + self._patience
        while not await good():
            if time.monotonic() > deadline:
                raise Incomplete(f"{what()} after {self._patience:g} s")
            await asyncio.sleep(pause)


def balanced(owners: Owners, running: Sequence[str]) -> bool:
    """Whether these instances own the watchers in fair shares, by weight, and none is to be handed over."""
    shares = dict.fromkeys(running, 0.0)
    heaviest = 0.0
    for owner in owners.values():
        if owner["by"] not in shares or owner["to"] not in (None, owner["by"]):
            return False
        weight = max(1.0, float(owner["weight"]))
        shares[owner["by"]] += weight
        heaviest = max(heaviest, weight)
    fair = sum(shares.values()) / len(shares)
    return all(share > 0 and abs(share - fair) <= UNEVEN * fair + heaviest for share in shares.values())


@asynccontextmanager
async def shared(stage: Stage, name: str, number: int, patience: float) -> AsyncIterator[Members]:
    """So many collections of one database, and no instance yet; all ended and removed at the end of the block."""
    places = stage.spread(name, number)
    members = Members(stage, places, patience)
    try:
        for place in places:
            await asyncio.to_thread(stage.client[place.database].create_collection, place.collection)
        await stage.settle()
        yield members
    except BaseException as error:
        for program in members.running.values():
            with suppress(OSError):
                error.add_note(program.words())
        raise
    finally:
        await asyncio.gather(*(program.stop() for program in members.running.values()))
        await stage.clear(places)
