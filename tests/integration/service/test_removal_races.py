"""A watcher removed with its position while that is being stored: after 204 nothing of the watcher is left."""

import asyncio
import threading
from typing import Any

import pytest

from app.domain.checkpoint_place import CheckpointPlace
from app.domain.position import Checkpoint
from app.domain.watcher import Source, Watcher
from app.metrics.observer import PrometheusObserver
from app.mongodb.deployment import MongoDeployment
from tests.fakes import NullObserver, event_token
from tests.live import Live, until


class Gate:
    """Holds a command back in the driver's thread, after the driver took it and before the server sees it."""

    def __init__(self, command: str) -> None:
        self.command = command
        self.held, self.open = threading.Event(), threading.Event()

    def pass_by(self, database: str, command: str) -> None:
        if command == self.command and database in ("resume-tokens", "positions") and not self.open.is_set():
            self.held.set()
            assert self.open.wait(30)


async def grace(task: "asyncio.Task[Any]", gate: Gate) -> None:
    """Let a removal that waits for nobody go through before the write that it should have waited for; then open."""
    await asyncio.wait([task], timeout=0.3)
    gate.open.set()


async def test_a_first_position_that_is_under_way_when_its_watcher_is_removed_is_deleted_too(
    mongo_uri: str, nats_url: str, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate("insert")
    monkeypatch.setattr(PrometheusObserver, "command_started", lambda _, *names: gate.pass_by(*names))
    async with Live(mongo_uri, nats_url, unique) as live:
        await live.call("POST", "/watchers", 201, json=live.definition())
        await until(gate.held.is_set)
        removal = asyncio.create_task(live.call("DELETE", "/watchers/orders?checkpoint=delete", 204))
        await grace(removal, gate)
        await removal
        await live.add("witness", source={"collection": f"other_{unique}"}, checkpoint={"collection": f"o_{unique}"})
        assert live.checkpoint() == []


@pytest.mark.parametrize("capped", [False, True])
@pytest.mark.parametrize("write", ["create", "advance", "begin"])
async def test_a_write_of_a_position_that_is_cancelled_has_ended_when_the_cancelled_call_returns(
    mongo_uri: str, unique: str, write: str, capped: bool
) -> None:
    class Gated(NullObserver):
        def command_started(self, database: str, command: str) -> None:
            gate.pass_by(database, command)

    gate = Gate("insert")
    deployment = MongoDeployment(mongo_uri, state_database="changewire", observer=Gated())
    place = CheckpointPlace("positions", unique, capped=capped, size_in_bytes=4096 if capped else 0)
    store = deployment.checkpoints(Watcher("w", Source("shop", "orders"), checkpoint=place))
    work = asyncio.create_task(getattr(store, write)(Checkpoint(event_token(1), epoch=1)))
    await until(gate.held.is_set)

    async def cancel_and_delete() -> None:
        for _ in range(3):  # a stop that becomes impatient cancels again
            work.cancel()
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await work
        await store.delete()

    removal = asyncio.create_task(cancel_and_delete())
    await grace(removal, gate)
    await removal
    witness = deployment.checkpoints(Watcher("x", Source("shop", "x"), checkpoint=CheckpointPlace("positions", "x")))
    await witness.begin(Checkpoint(event_token(1), epoch=1))  # by then what was held back has come, too
    await witness.delete()
    assert await store.read() is None
    deployment.close()


async def test_many_watchers_removed_right_after_they_were_added_leave_no_position(
    mongo_uri: str, nats_url: str, unique: str
) -> None:
    async with Live(mongo_uri, nats_url, unique) as live:

        async def come_and_go(number: int) -> None:
            collection = {"collection": f"c{number}_{unique}"}
            body = live.definition(f"w{number}", source=collection, checkpoint=collection)
            await live.call("POST", "/watchers", 201, json=body)
            await live.call("DELETE", f"/watchers/w{number}?checkpoint=delete", 204)

        await asyncio.gather(*(come_and_go(number) for number in range(30)))
        tokens = live.mongo["resume-tokens"]
        left = [name for name in tokens.list_collection_names() if name.endswith(unique)]
        assert {name: tokens[name].count_documents({}) for name in left} == dict.fromkeys(left, 0)
