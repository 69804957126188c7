"""MongoDB dies, hangs or steps down in the middle of a command that writes many positions: what each watcher then has
is what it was told, or a later one that it asked for, and never less."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pymongo
import pytest

from app.devservers.servers import MongoServer
from app.domain.errors import StoreUnavailable
from app.domain.position import Checkpoint
from app.domain.watcher import Source, Watcher
from app.mongodb.deployment import MongoDeployment
from app.ports import CheckpointStore
from tests.conftest import MakeMongo
from tests.fakes import NullObserver, event_token
from tests.live import until

WATCHERS = 60


def at(moment: int) -> Checkpoint:
    return Checkpoint(event_token(moment), epoch=0, scope="rs0/shop.orders")


class Fault(NullObserver):
    """Strikes a moment after a command that moves positions was sent."""

    def __init__(self, strike: Callable[[], None], seconds: float) -> None:
        self._timer = threading.Timer(seconds, strike)
        self.armed = False

    def command_started(self, database: str, command: str) -> None:
        if self.armed and command == "update":
            self.armed = False
            self._timer.start()


class Writers:
    """Many watchers that move their positions on without a pause, each until its first error."""

    def __init__(self, deployment: MongoDeployment) -> None:
        self.stores: dict[str, CheckpointStore] = {
            name: deployment.checkpoints(Watcher(name, Source("shop", "orders")))
            for name in (f"w{number}" for number in range(WATCHERS))
        }
        self.asked = dict.fromkeys(self.stores, 0)
        self.told = dict.fromkeys(self.stores, 0)

    async def move(self, name: str) -> None:
        self.asked[name] += 1
        if await self.stores[name].advance(at(self.asked[name])):
            self.told[name] = self.asked[name]

    async def move_until_trouble(self, name: str) -> None:
        with contextlib.suppress(StoreUnavailable):
            while True:
                await self.move(name)

    async def move_at_last(self, name: str) -> None:
        while True:
            try:
                return await self.move(name)
            except StoreUnavailable:
                await asyncio.sleep(0.1)


async def stored(uri: str, database: str) -> dict[str, str]:
    """What another process finds, once there is a primary."""
    deployment = MongoDeployment(uri, state_database=database)
    found: dict[str, str] = {}

    async def read() -> bool:
        stores = Writers(deployment).stores
        try:
            positions = await asyncio.gather(*(store.read() for store in stores.values()))
        except StoreUnavailable:
            return False
        found.update({name: one.token for name, one in zip(stores, positions, strict=True) if one is not None})
        return True

    await until(read, seconds=40)
    deployment.close()
    return found


def step_down(server: MongoServer) -> None:
    with pymongo.MongoClient[dict[str, Any]](server.uri) as client, contextlib.suppress(pymongo.errors.AutoReconnect):
        client.admin.command({"replSetStepDown": 1, "force": True})


@pytest.mark.long
@pytest.mark.parametrize("seconds", [0.0, 0.003])
@pytest.mark.parametrize("how", ["killed", "frozen", "stepped down"])
async def test_of_positions_that_are_being_written_none_goes_back_and_none_is_made_up(
    make_mongo: MakeMongo, unique: str, how: str, seconds: float
) -> None:
    server = await make_mongo()
    strike = {"killed": server.kill, "frozen": server.freeze, "stepped down": lambda: step_down(server)}[how]
    fault, database = Fault(strike, seconds), f"state_{unique}"
    deployment = MongoDeployment(server.uri, state_database=database, observer=fault)
    writers = Writers(deployment)
    moving = [asyncio.create_task(writers.move_until_trouble(name)) for name in writers.stores]
    await until(lambda: min(writers.told.values()) >= 3)
    fault.armed = True
    if how == "stepped down":  # the driver may carry a command over to the next primary: then nobody sees an error
        await until(lambda: not fault.armed)
        await until(lambda: all(task.done() for task in moving) or min(writers.told.values()) >= 20, seconds=40)
        for task in moving:
            task.cancel()
    await asyncio.wait(moving)
    if how == "killed":
        await server.start()
    elif how == "frozen":
        server.thaw()
    found = await stored(server.uri, database)
    assert all(
        event_token(writers.told[name]) <= token <= event_token(writers.asked[name]) for name, token in found.items()
    )
    assert len(found) == WATCHERS
    await asyncio.gather(*(writers.move_at_last(name) for name in writers.stores))
    assert await stored(server.uri, database) == {name: event_token(moment) for name, moment in writers.told.items()}
    deployment.close()
