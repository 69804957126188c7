"""What an operator's hand does while changes flow: to streams, to watched collections, to what the service keeps.

Where the product leaves the next step to a person, by design, the fault takes it: over the HTTP interface, as a person
would: a stream that was there is not recreated by the service, and where it was, `on_history_lost` decides.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import cycle
from typing import Any

import httpx
from pymongo.errors import PyMongoError

from tests.faults.recorder import Recorder
from tests.faults.testbed import ANEW_BY_HAND, ANEW_WITH_GAP, RECORDED, Testbed, stream_of
from tests.service import is_stopped, until

FULL_SECONDS = 3.0
"""A stream is full once nothing has come for so long."""
ROOM_MESSAGES = 60
"""What still fits when a limit is set: less would throw away the oldest messages."""
ROOM_BYTES = 60_000
KEPT = 20
"""The limit that makes a stream throw away its oldest messages."""


async def bounded(testbed: Testbed, stream: str, **limits: Any) -> dict[str, Any]:
    """Change a stream's limits; what they were."""
    config = (await testbed.nats.change(f"STREAM.INFO.{stream}"))["config"]
    await testbed.nats.change(f"STREAM.UPDATE.{stream}", {**config, **limits})
    return {name: config.get(name, -1) for name in limits}


async def stuck(testbed: Testbed, stream: str) -> None:
    await until(lambda: testbed.lag.of(stream) > FULL_SECONDS, f"{stream} takes nothing any more", within=60)


@asynccontextmanager
async def stream_full(testbed: Testbed, draw: random.Random) -> AsyncIterator[str]:
    """A stream that refuses what is more than its limit, in messages or in bytes."""
    stream = stream_of(draw.choice(testbed.names))
    state = (await testbed.nats.change(f"STREAM.INFO.{stream}"))["state"]
    limit = draw.choice((("max_msgs", state["messages"] + ROOM_MESSAGES), ("max_bytes", state["bytes"] + ROOM_BYTES)))
    before = await bounded(testbed, stream, discard="new", **dict([limit]))
    await stuck(testbed, stream)
    yield f"{stream}, {limit[0]}"
    await bounded(testbed, stream, **before)


@asynccontextmanager
async def stream_short(testbed: Testbed, draw: random.Random) -> AsyncIterator[str]:
    """A stream that keeps a few messages alone, and throws away the rest."""
    stream = stream_of(draw.choice(RECORDED))
    before = await bounded(testbed, stream, discard="old", max_msgs=KEPT)
    yield stream
    await bounded(testbed, stream, **before)


@asynccontextmanager
async def stream_purged(testbed: Testbed, draw: random.Random) -> AsyncIterator[str]:
    """All messages of a stream are thrown away, several times."""
    stream = stream_of(draw.choice(RECORDED))
    for _ in range(3):
        await testbed.nats.change(f"STREAM.PURGE.{stream}", {})
        await asyncio.sleep(draw.uniform(0.0, 0.5))
    yield stream


@asynccontextmanager
async def store_full(testbed: Testbed, _: random.Random) -> AsyncIterator[str]:
    """The account may not store anything more."""
    testbed.nats.bound_store(1)
    await stuck(testbed, stream_of(testbed.names[0]))
    yield "all streams"
    testbed.nats.bound_store()


@asynccontextmanager
async def stream_recreated_with_gap(testbed: Testbed, _: random.Random) -> AsyncIterator[str]:
    """A stream is deleted, and recreated for a watcher that goes on from now behind a gap's marker."""
    stream, recorder = stream_of(ANEW_WITH_GAP), testbed.recorders[ANEW_WITH_GAP]
    make = await _deleted(testbed, stream, recorder)
    yield stream
    await make()
    # Until the marker is there changes fall into the gap, the last ones of a run too.
    await until(
        lambda: recorder.records[-1].incarnation == recorder.incarnations - 1,
        f"the gap of {stream} is marked",
        within=60,
    )


@asynccontextmanager
async def stream_recreated_by_hand(testbed: Testbed, _: random.Random) -> AsyncIterator[str]:
    """A stream is deleted and recreated for a watcher that fails then; somebody says where it goes on."""
    name, stream, recorder = ANEW_BY_HAND, stream_of(ANEW_BY_HAND), testbed.recorders[ANEW_BY_HAND]
    make = await _deleted(testbed, stream, recorder)
    yield stream
    await make()

    await until(partial(_says, testbed, name, "FAILED"), f"{name} has failed", within=60)
    token = recorder.records[-1].token
    recorder.resets[recorder.records[-1].incarnation + 1] = token
    await asked(testbed, "PUT", f"/watchers/{name}/pause", None, 202)
    await until(partial(_says, testbed, name, "PAUSED"), f"{name} is paused", within=60)
    await asked(testbed, "PUT", f"/watchers/{name}/token", {"token": token}, 200)
    await asked(testbed, "PUT", f"/watchers/{name}/resume", None, 202)


async def _says(testbed: Testbed, name: str, state: str) -> bool:
    """Whether a service says that a watcher is in this state."""
    return any([await service.state(name) == state for service in testbed.services])


async def _deleted(testbed: Testbed, stream: str, recorder: Recorder) -> Callable[[], Any]:
    """Delete a stream once something of it was recorded, and wait until the recorder knows; what recreates it, and
    waits until the recorder knows that too: what it says of the last stream says nothing of the new one."""
    await until(
        lambda: recorder.records and recorder.records[-1].incarnation == recorder.incarnations - 1,
        f"{stream} holds something",
    )
    config = (await testbed.nats.change(f"STREAM.INFO.{stream}"))["config"]
    config.pop("metadata", None)

    async def gone() -> bool:
        answer = await testbed.nats.ask(f"STREAM.DELETE.{stream}")
        return bool(answer.get("success")) or answer.get("error", {}).get("code") == 404

    await until(gone, f"{stream} is deleted", within=60)
    await until(lambda: recorder.gone, f"the recorder sees that {stream} is gone", within=60)

    async def make() -> None:
        before = recorder.incarnations
        await testbed.nats.change(f"STREAM.CREATE.{stream}", config)
        await until(lambda: recorder.incarnations > before, f"the recorder has found the new {stream}", within=60)

    return make


async def asked(testbed: Testbed, method: str, path: str, body: object, *statuses: int) -> None:
    """Make a call, of one service after the other, again while it says that a server is not there or that another
    instance runs the watcher."""
    turns = cycle(testbed.services)

    async def answered() -> bool:
        service = next(turns)
        if not service.running or is_stopped(service.pid):
            return False
        try:
            answer = await service.call(method, path, body)
        except httpx.TransportError:
            return False
        assert answer.status_code in (*statuses, 503), f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.status_code != 503

    await until(answered, f"{method} {path} is answered", within=60)


async def _done(action: Callable[[], Any], what: str) -> None:
    """Do something to MongoDB until it is done."""

    async def tried() -> bool:
        try:
            await action()
        except PyMongoError:
            return False
        return True

    await until(tried, what, within=60)


@asynccontextmanager
async def collection_dropped(testbed: Testbed, draw: random.Random) -> AsyncIterator[str]:
    """A watched collection is dropped, and made again by hand or by the next insert."""
    name, by_hand = draw.choice(tuple(testbed.databases)), draw.random() < 0.5
    database = testbed.client[testbed.databases[name]]
    await _done(lambda: database.drop_collection(name), f"{name} is dropped")
    if by_hand:
        await _done(lambda: _created(testbed, name), f"{name} is there")
    yield name


async def _created(testbed: Testbed, name: str) -> None:
    database = testbed.client[testbed.databases[name]]
    if name not in await database.list_collection_names():
        try:
            await database.create_collection(name)
        except PyMongoError as error:
            if getattr(error, "code", None) != 48:  # an insert was faster
                raise


@asynccontextmanager
async def collection_renamed(testbed: Testbed, draw: random.Random) -> AsyncIterator[str]:
    """A watched collection gets another name, and a new one takes its place."""
    name = draw.choice(tuple(testbed.databases))
    namespace = f"{testbed.databases[name]}.{name}"
    renamed = {"renameCollection": namespace, "to": f"{namespace}_before", "dropTarget": True}
    await _done(lambda: testbed.client.admin.command(renamed), f"{name} is renamed")
    yield name


@asynccontextmanager
async def database_dropped(testbed: Testbed, draw: random.Random) -> AsyncIterator[str]:
    """All watched collections are dropped with their database."""
    name = draw.choice(sorted(set(testbed.databases.values())))
    await _done(lambda: testbed.client.drop_database(name), f"{name} is dropped")
    yield name


@asynccontextmanager
async def images_switched(testbed: Testbed, draw: random.Random) -> AsyncIterator[str]:
    """Images before and after a change are switched on for a collection, and off again."""
    name = draw.choice(tuple(testbed.databases))

    def switched(on: bool) -> Callable[[], Any]:
        command = {"collMod": name, "changeStreamPreAndPostImages": {"enabled": on}}
        return lambda: testbed.client[testbed.databases[name]].command(command)

    await _done(switched(True), f"{name} has images")
    yield name
    await _done(switched(False), f"{name} has no images")


@asynccontextmanager
async def checkpoints_dropped(testbed: Testbed, _: random.Random) -> AsyncIterator[str]:
    """The collections with the positions are dropped under the running services."""
    await _drop_checkpoints(testbed)
    yield "all positions"


@asynccontextmanager
async def checkpoints_dropped_while_away(testbed: Testbed, _: random.Random) -> AsyncIterator[str]:
    """Nothing but the streams says how far the watchers came."""
    for service in testbed.services:
        service.kill()
    await _drop_checkpoints(testbed)
    yield "all positions, all services"
    await asyncio.gather(*(service.start() for service in testbed.services))


async def _drop_checkpoints(testbed: Testbed) -> None:
    for name in testbed.databases:
        await _done(partial(testbed.client["resume-tokens"].drop_collection, name), "positions are dropped")
    await _done(partial(testbed.client[testbed.state].drop_collection, "checkpoints"), "positions are dropped")


@asynccontextmanager
async def registry_dropped(testbed: Testbed, _: random.Random) -> AsyncIterator[str]:
    """The registry's collections are dropped under the running services, which store their watchers again."""
    state = testbed.client[testbed.state]
    for name in ("watchers", "registry", "instances", "members"):
        await _done(partial(state.drop_collection, name), "the registry is dropped")
    yield "all watchers"

    async def restored() -> bool:
        try:
            stored = await state["watchers"].distinct("_id")
        except PyMongoError:
            return False
        return set(stored) >= {watcher["name"] for watcher in testbed.watchers}

    await until(restored, "all watchers are stored again", within=60)
