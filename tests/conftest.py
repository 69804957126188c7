"""Fixtures that every kind of test may use: real servers, and names that no other test has.

`mongo_server` and `nats_server` are shared by the whole session: never kill, freeze or fill them, and keep to databases
and streams of your own (`database`, `stream`, or anything with `unique` in it). A test that breaks a server takes
`own_mongo` or `own_nats`; one that needs it set up in a special way calls `make_mongo(...)` or `make_nats(...)`.

`newer_mongo_server` is a mongod that splits large events (6.0.27), shared as well; `make test` provides it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
import structlog
from hypothesis import settings
from pytest_timeout import Settings as Timeout

from app.devservers.servers import Launch, MongoServer, NatsServer
from tests.service import ROOT, Stage, staged

# Children compile each module once in a checkout, whatever the shell says: compiling is most of what a start costs.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ["PYTHONPYCACHEPREFIX"] = str(ROOT / ".pytest_cache" / "bytecode")

# Where rich is installed a traceback takes a second of processor time to be drawn, which is what some tests wait.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper("%H:%M:%S", utc=False),
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)

# `make properties` takes the thorough profile. No profile has a deadline: it would measure the machine.
settings.register_profile("suite", max_examples=40, deadline=None)
settings.register_profile("thorough", max_examples=3000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))

ORDER = (
    "tests/faults",
    "tests/integration/http/test_openapi_conformance.py",
    "tests/integration/service",
    "tests/integration",
    "tests/browser",
    "tests/contract",
    "tests/properties",
    "tests/unit",
)
"""The tests that take longest come first: several processes then end together."""

MakeMongo = Callable[..., Awaitable[MongoServer]]
MakeNats = Callable[..., Awaitable[NatsServer]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests in `ORDER`; those of one folder stay together, as they were."""

    def rank(item: pytest.Item) -> int:
        return next((at for at, start in enumerate(ORDER) if item.nodeid.startswith(start)), len(ORDER))

    items.sort(key=rank)


@pytest.hookimpl(wrapper=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Timeout) -> Generator[None, object, object]:
    """End an asynchronous test shortly before pytest-timeout does: the traceback then names the line that waits."""
    if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj) and settings.timeout:
        item.obj = _bounded(item.obj, 0.95 * settings.timeout)
    return (yield)


def _bounded(test: Callable[..., Awaitable[None]], seconds: float) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def bounded(*args: object, **named: object) -> None:
        async with asyncio.timeout(seconds):
            await test(*args, **named)

    return bounded


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mongo_server() -> AsyncIterator[MongoServer]:
    """The session's mongod: a replica set of one member."""
    async with MongoServer() as server:
        yield server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nats_server() -> AsyncIterator[NatsServer]:
    """The session's nats-server, with JetStream."""
    async with NatsServer() as server:
        yield server


@pytest.fixture(scope="session")
def newer_mongod() -> Path:
    """The program of a mongod that splits large events; the test is skipped where there is none."""
    path = os.environ.get("CHANGEWIRE_TEST_MONGOD_NEWER")
    if not path or not Path(path).exists():
        pytest.skip("CHANGEWIRE_TEST_MONGOD_NEWER does not name a mongod of 6.0.9 or later")
    return Path(path)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def newer_mongo_server(newer_mongod: Path) -> AsyncIterator[MongoServer]:
    """A mongod of the session that splits large events."""
    async with MongoServer(launch=Launch(binary=newer_mongod)) as server:
        yield server


@pytest.fixture
def newer_mongo_uri(newer_mongo_server: MongoServer) -> str:
    return newer_mongo_server.uri


@pytest.fixture
def mongo_uri(mongo_server: MongoServer) -> str:
    return mongo_server.uri


@pytest.fixture
def nats_url(nats_server: NatsServer) -> str:
    return nats_server.url


@pytest.fixture
def unique() -> str:
    """A suffix of eight lower-case hexadecimal digits that no other test has."""
    return uuid.uuid4().hex[:8]


@pytest.fixture
def database(unique: str) -> str:
    """The name of a database that does not exist yet."""
    return f"db_{unique}"


@pytest.fixture
def stream(unique: str) -> str:
    """The name of a stream that does not exist yet."""
    return f"S_{unique}".upper()


@pytest_asyncio.fixture
async def make_mongo() -> AsyncIterator[MakeMongo]:
    """`await make_mongo(**options of MongoServer)`: a started server of this test's own, closed after it."""
    async with AsyncExitStack() as servers:

        async def make(**options: object) -> MongoServer:
            return await servers.enter_async_context(MongoServer(**options))  # type: ignore[arg-type]

        yield make


@pytest_asyncio.fixture
async def make_nats() -> AsyncIterator[MakeNats]:
    """`await make_nats(**options of NatsServer)`: a started server of this test's own, closed after it."""
    async with AsyncExitStack() as servers:

        async def make(**options: object) -> NatsServer:
            return await servers.enter_async_context(NatsServer(**options))  # type: ignore[arg-type]

        yield make


@pytest_asyncio.fixture
async def own_mongo(make_mongo: MakeMongo) -> MongoServer:
    """A replica set of one member that this test may kill, freeze and restart."""
    return await make_mongo()


@pytest_asyncio.fixture
async def own_nats(make_nats: MakeNats) -> NatsServer:
    """A nats-server that this test may kill, freeze and restart."""
    return await make_nats()


@pytest_asyncio.fixture
async def stage(mongo_uri: str, nats_url: str, tmp_path: Path, unique: str) -> AsyncIterator[Stage]:
    """A stage for real services, on the servers that all tests share."""
    async with staged(mongo_uri, nats_url, tmp_path, unique) as stage:
        yield stage
