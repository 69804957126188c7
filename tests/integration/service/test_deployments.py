"""Another MongoDB deployment's messages on a watcher's stream: told by name, and never taken for one's own position."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from app.config.settings import load
from app.devservers.servers import MongoServer
from app.doctor.examination import examine
from app.domain.findings import Finding, Level
from tests.conftest import MakeMongo
from tests.live import Live, until

BETWEEN = "is not in MongoDB's history"
AHEAD = "lies in the future of this MongoDB deployment"


@pytest_asyncio.fixture
async def elsewhere(make_mongo: MakeMongo) -> MongoServer:
    """Another deployment, whose replica set has the same name."""
    return await make_mongo()


@pytest_asyncio.fixture
async def here(mongo_uri: str, nats_url: str, unique: str) -> AsyncIterator[Live]:
    async with Live(mongo_uri, nats_url, unique) as live:
        yield live


@pytest_asyncio.fixture
async def there(here: Live, elsewhere: MongoServer, nats_url: str, unique: str) -> AsyncIterator[Live]:
    """The same service, by all its names, on the other deployment."""
    async with Live(elsewhere.uri, nats_url, unique) as live:
        yield live


async def failed(live: Live) -> str:
    """Wait until the watcher is FAILED, and return why."""
    return str((await live.reaches("FAILED"))["status"]["reason"])


async def examined(live: Live) -> dict[str, Finding]:
    """What the doctor finds of the watcher, by check."""
    settings = load(None, environ=live.environ, dotenv=Path(os.devnull))
    return {each.check: each async for each in examine(settings) if each.about == "orders"}


def keys(live: Live) -> list[str]:
    return [str(document["_id"]) for document in live.orders.find().sort("_id", 1)]


async def test_a_deployment_that_comes_to_anothers_stream_is_failed_and_the_other_loses_nothing(
    here: Live, there: Live
) -> None:
    await here.add()
    here.insert(1, 2, 3)
    await here.seen("1", "2", "3")
    there.insert("b1")
    await there.call("POST", "/watchers", 201, json=there.definition())
    reason = await failed(there)
    assert BETWEEN in reason or AHEAD in reason
    assert here.stream in reason
    found = await examined(there)
    assert found["origin"].level is not Level.OK
    assert here.stream in found["origin"].found
    assert (await examined(here))["origin"].level is Level.OK
    here.insert(4, 5)
    await here.seen("1", "2", "3", "4", "5")
    await here.reaches("RUNNING")


async def test_of_two_deployments_at_once_none_takes_the_others_changes_for_its_own(here: Live, there: Live) -> None:
    await here.add()
    await there.add()
    for number in range(40):
        await asyncio.to_thread(here.insert, f"a{number:02}")
        await asyncio.to_thread(there.insert, f"b{number:02}")
    states = {}

    async def decided() -> bool:
        for live in (here, there):
            states[live] = (await live.get("/watchers/orders"))["status"]
        return all(
            status["state"] == "FAILED" or status["events"]["published"] == 40 for status in states.values()
        ) and any(status["state"] == "FAILED" for status in states.values())

    await until(decided, seconds=60)  # one that stands by is silent for ten of them first
    on_stream = [message.body["documentKey"]["_id"] for message in await here.messages()]
    for live, status in states.items():
        own = [key for key in on_stream if key[0] == ("a" if live is here else "b")]
        assert own == keys(live)[: len(own)], "lost, doubled or reordered"
        if status["state"] != "FAILED":
            assert own == keys(live)
        else:
            assert here.stream in status["reason"]


async def test_a_stream_that_takes_in_another_regions_is_told_and_nothing_is_skipped(here: Live, there: Live) -> None:
    other = f"WEST_{here.stream}"
    await there.add(sink={"stream": other})
    transform = {"src": f"{other}.*", "dest": f"{here.stream}.{{{{wildcard(1)}}}}"}
    await here.streams.create(here.stream, sources=[{"name": other, "subject_transforms": [transform]}])
    await here.add()
    for number in range(30):
        await asyncio.to_thread(here.insert, f"a{number:02}")
        await asyncio.to_thread(there.insert, f"b{number:02}")

    async def decided() -> bool:
        status = (await here.get("/watchers/orders"))["status"]
        return bool(status["state"] == "FAILED" or status["events"]["published"] == 30)

    await until(decided, seconds=60)  # one that stands by is silent for ten of them first
    own = [key for m in await here.messages() if (key := m.body["documentKey"]["_id"]).startswith("a")]
    assert own == keys(here)[: len(own)], "lost, doubled or reordered"
    if len(own) < 30:
        assert here.stream in await failed(here)


@pytest.mark.parametrize("checkpoint", ["gone", "kept"])
async def test_a_stream_whose_end_is_ahead_of_the_deployment_is_told_instead_of_waiting_to_be_met(
    here: Live, checkpoint: str
) -> None:
    """As after a copy of the data began on another deployment whose cluster time is behind."""
    await here.add()
    here.insert(1)
    (first,) = await here.seen("1")
    await here.pause()
    if checkpoint == "gone":
        here.positions.drop()
    ahead = f"{first.token[:2]}{int(first.token[2:10], 16) + 3600:08X}{first.token[10:]}"
    message = {"_id": {"_data": ahead}, "operationType": "insert", "ns": {"db": here.database, "coll": here.collection}}
    await publish(here, ahead, message)
    await here.call("PUT", "/watchers/orders/resume", 202)
    assert AHEAD in await failed(here)
    here.insert(2)
    moved = await here.call("PUT", "/watchers/orders/token", 200, json={"token": first.token})
    assert moved.json()["epoch"] == 1
    await here.resume()

    async def arrived() -> bool:
        return [m.short for m in await here.messages()][-1] == "insert 2"

    await until(arrived)


async def test_a_checkpoint_copied_from_another_deployment_is_proved_before_it_is_believed(
    here: Live, there: Live
) -> None:
    await there.add(sink={"stream": f"WEST_{there.stream}"})
    there.insert("b1")
    await there.seen("b1", stream=f"WEST_{there.stream}")
    await there.stop()
    here.orders.insert_many([{"_id": number} for number in range(3)])
    copied = there.checkpoint()
    assert copied
    here.positions.insert_many(copied)
    await here.call("POST", "/watchers", 201, json=here.definition(sink={"stream": f"WEST_{here.stream}"}))
    reason = await failed(here)
    assert any(words in reason for words in (BETWEEN, AHEAD, "copied here", "oplog no longer reaches back")), reason


async def test_a_crash_behind_the_checkpoint_is_still_gone_on_from(here: Live, tmp_path: Path) -> None:
    """The everyday case: the stream is ahead of the checkpoint, and what it ends with is in the history."""
    await here.add()
    here.insert(1, 2)
    await here.seen("1", "2")
    before = here.checkpoint()
    here.insert(3)
    await here.seen("1", "2", "3")
    await here.pause()
    for document in before:
        here.positions.replace_one({"_id": document["_id"]}, document)
    here.insert(4)
    await here.resume()
    await here.seen("1", "2", "3", "4")


async def publish(live: Live, token: str, body: dict[str, Any]) -> None:
    await live.streams.client.request(
        f"{live.stream}.insert", json.dumps(body).encode(), headers={"Nats-Msg-Id": token}, timeout=10
    )
