"""Each test of the contract runs on every place."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from app.devservers.servers import NatsServer
from app.domain.watcher import Watcher, from_document
from app.ports import EventSink
from tests.contract.sink.places import USERS, FakePlace, Place, RealPlace, ScriptedPlace


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def restricted_nats() -> AsyncIterator[NatsServer]:
    """A server with an account that may do anything, and one that may not update streams."""
    async with NatsServer(config=USERS) as server:
        yield server


PIPELINED = ["created", "fast_ingest", "atomic", "few", "scripted", "fake", "fake-atomic"]
PLACES = [*PIPELINED, "shared-atomic", "window", "single"]


@pytest.fixture(params=PLACES)
def unbegun(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Place:
    """One of the implementations; the fakes and `scripted` need no server. `few` is `atomic` with batches so small that
    they go one by one; elsewhere each batch of two is an atomic one."""
    if request.param.startswith("fake"):
        return FakePlace("fast_ingest" if request.param == "fake" else "atomic")
    if request.param == "scripted":
        return ScriptedPlace()
    if request.param != "few":
        monkeypatch.setattr("app.jetstream.publish.atomic.FEW", 1)
    return RealPlace(request.getfixturevalue("restricted_nats"), request.param.replace("few", "atomic"))


@pytest_asyncio.fixture
async def place(unbegun: Place, stream: str) -> AsyncIterator[Place]:
    await unbegun.begin(stream)
    yield unbegun
    await unbegun.close()


@pytest.fixture
def watcher(stream: str) -> Watcher:
    return from_document(
        {"name": "orders", "source": {"database": "shop", "collection": "orders"}, "sink": {"stream": stream}}
    )


@pytest_asyncio.fixture
async def sink(place: Place, watcher: Watcher) -> AsyncIterator[EventSink]:
    made = place.sink(watcher)
    await made.prepare(may_create=True)
    yield made
    await made.close()
