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

    def __init__(self, command: str, *databases: str) -> None:
        self.command, self.databases = command, databases
        self.held, self.open = threading.Event(), threading.Event()

    def pass_by(self, database: str, command: str) -> None:
        if command == self.command and database in self.databases and not self.open.is_set():
            self.held.set()
            assert self.open.wait(30)


async def grace(task: "asyncio.Task[Any]", gate: Gate) -> None:
    """Let a removal that waits for nobody go through before the write that it should have waited for; then open."""
    await asyncio.wait([task], timeout=0.3)
    gate.open.set()


@pytest.mark.parametrize("place", [None, "its own"])
async def test_a_first_position_that_is_under_way_when_its_watcher_is_removed_is_deleted_too(
    mongo_uri: str, nats_url: str, unique: str, place: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Live(mongo_uri, nats_url, unique) as live:
        other = {"collection": f"other_{unique}"}
        await live.add("other", source=other, checkpoint=other, sink={"stream": f"OTHER_{live.stream}"})
        # The first position in the one place makes the collection.
        gate = Gate("create", live.state_db) if place is None else Gate("insert", "resume-tokens")
        monkeypatch.setattr(PrometheusObserver, "command_started", lambda _, *names: gate.pass_by(*names))
        await live.call("POST", "/watchers", 201, json=live.definition(checkpoint=place and {"collection": unique}))
        await until(gate.held.is_set)
        removal = asyncio.create_task(live.call("DELETE", "/watchers/orders?checkpoint=delete", 204))
        await grace(removal, gate)
        await removal
        await live.add("witness", source={"collection": f"other_{unique}"}, checkpoint={"collection": f"o_{unique}"})
        assert live.checkpoint() == []
        assert live.checkpoint(unique, "resume-tokens") == []


@pytest.mark.parametrize("kept", ["in one place", "in its own", "in its own, capped"])
@pytest.mark.parametrize("write", ["create", "advance", "begin"])
async def test_a_write_of_a_position_that_is_cancelled_has_ended_when_the_cancelled_call_returns(
    mongo_uri: str, unique: str, write: str, kept: str
) -> None:
    class Gated(NullObserver):
        def command_started(self, database: str, command: str) -> None:
            gate.pass_by(database, command)

    gate = Gate("insert", "positions", f"state_{unique}")
    deployment = MongoDeployment(mongo_uri, state_database=f"state_{unique}", observer=Gated())
    capped = kept.endswith("capped")
    place = CheckpointPlace("positions", unique, capped=capped, size_in_bytes=4096 if capped else 0)
    watcher = Watcher("w", Source("shop", "orders"), checkpoint=None if kept == "in one place" else place)
    store = deployment.checkpoints(watcher)
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
            place = {"checkpoint": collection} if number % 2 else {}
            body = live.definition(f"w{number}", source=collection, **place)
            await live.call("POST", "/watchers", 201, json=body)
            await live.call("DELETE", f"/watchers/w{number}?checkpoint=delete", 204)

        await asyncio.gather(*(come_and_go(number) for number in range(30)))
        tokens = live.mongo["resume-tokens"]
        left = [name for name in tokens.list_collection_names() if name.endswith(unique)]
        assert {name: tokens[name].count_documents({}) for name in left} == dict.fromkeys(left, 0)
        assert live.positions.count_documents({}) == 0
