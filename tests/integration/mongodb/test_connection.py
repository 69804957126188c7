"""The client: its options, and what the observer is told of its commands."""

import pytest

from app.domain.errors import (
    Invalid,
)
from app.domain.watcher import Start
from app.mongodb import pool
from app.mongodb.connection import connect
from app.mongodb.deployment import MongoDeployment
from tests.integration.mongodb.bench import fields, watcher


class Counter:
    """An observer of commands alone."""

    def __init__(self) -> None:
        self.started: list[tuple[str, str]] = []
        self.succeeded: list[tuple[str, str]] = []
        self.failed: list[tuple[str, str]] = []

    def command_started(self, database: str, command: str) -> None:
        self.started.append((database, command))

    def command_succeeded(self, database: str, command: str, seconds: float) -> None:
        assert 0 <= seconds < 60
        self.succeeded.append((database, command))

    def command_failed(self, database: str, command: str, seconds: float) -> None:
        self.failed.append((database, command))


async def test_commands_are_counted_and_probes_are_not(mongo_uri: str, database: str) -> None:
    counter = Counter()
    mongo = MongoDeployment(mongo_uri, state_database="changewire", observer=counter)  # type: ignore[arg-type]
    await mongo.ping()
    assert counter.started == []
    source = mongo.source(watcher(database))
    await source.open(await source.locate(Start("latest")))
    await source.read()
    await source.read()
    await source.close()
    with pytest.raises(Invalid):
        await mongo.check_source(watcher(database, {"$nonsense": 1}))
    assert (database, "getMore") in counter.succeeded
    assert (database, "killCursors") in counter.succeeded
    assert (database, "aggregate") in counter.failed
    assert len(counter.started) == len(counter.succeeded) + len(counter.failed)
    mongo.close()


async def test_a_bad_uri_is_named_without_its_password() -> None:
    with pytest.raises(Invalid) as refused:
        MongoDeployment("mongodb://me:hunter2@:x:99999999", state_database="changewire")
    assert fields(refused) == ["MONGO_URI"]
    assert "hunter2" not in str(refused.value)
    with pytest.raises(Invalid, match="percent-encoded") as refused:
        MongoDeployment("mongodb://me:hunter2@home@host", state_database="changewire")
    assert "hunter2" not in str(refused.value)


async def test_a_pool_that_is_too_small_for_many_change_streams_is_not_taken(mongo_uri: str) -> None:
    for asked in ("7", "0", "511"):
        client = connect(f"{mongo_uri}&maxPoolSize={asked}")
        assert client.delegate.options.pool_options.max_pool_size == pool.MOST, asked
        client.close()


async def test_the_uris_own_options_win(mongo_uri: str) -> None:
    client = connect(f"{mongo_uri}&maxPoolSize=1000&SOCKETTIMEOUTMS=1234")
    options = client.delegate.options.pool_options
    assert (options.max_pool_size, options.socket_timeout, options.connect_timeout) == (1000, 1.234, 2.0)
    client.close()
    insisting = connect(f"{mongo_uri}&SOCKETTIMEOUTMS=1234", insist={"socketTimeoutMS": 5_000})
    assert insisting.delegate.options.pool_options.socket_timeout == 5.0
    insisting.close()
