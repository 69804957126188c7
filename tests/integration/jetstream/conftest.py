"""Accounts on the shared server and on servers with users of their own."""

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from app.domain.errors import SinkUnavailable
from app.domain.watcher import Watcher
from app.jetstream.client import NatsOptions
from app.jetstream.connection import NatsConnection
from tests.conftest import MakeNats
from tests.nats_account import Account, make_watcher

Connect = Callable[..., NatsConnection]
ConnectAccount = Callable[..., Awaitable[Account]]

USERS = """
authorization { users: [
  {user: admin, password: secret},
  {user: limited, password: secret, permissions: {publish: {deny: ["$JS.API.STREAM.UPDATE.>", "*.delete"]}}}
] }
"""
"""The user `limited` may not switch a stream to atomic batches, nor publish deletes."""


async def tried(connection: NatsConnection) -> NatsConnection:
    """Wait until its first attempt has ended, however slow the machine is: what asks it waits a second for that."""
    with suppress(SinkUnavailable):
        await connection.ready(30)
    return connection


@pytest_asyncio.fixture
async def connect() -> AsyncIterator[Connect]:
    """`connect(url, **options)`: a started connection that is closed after the test."""
    made: list[NatsConnection] = []

    def start(url: str, **options: Any) -> NatsConnection:
        connection = NatsConnection(NatsOptions((url,), **options))
        made.append(connection)
        connection.start()
        return connection

    yield start
    for connection in made:
        await connection.close()


@pytest_asyncio.fixture
async def connect_account() -> AsyncIterator[ConnectAccount]:
    """`await connect_account(url, **options)`: a connected account that is closed after the test."""
    made: list[Account] = []

    async def start(url: str, **options: Any) -> Account:
        account = Account(url, **options)
        made.append(account)
        await account.connection.ready(30)
        return account

    yield start
    for account in made:
        await account.close()


@pytest_asyncio.fixture
async def nats(nats_url: str, connect_account: ConnectAccount) -> Account:
    return await connect_account(nats_url)


@pytest_asyncio.fixture
async def admin_and_limited(make_nats: MakeNats, connect_account: ConnectAccount) -> tuple[Account, Account]:
    url = (await make_nats(config=USERS)).url
    admin, limited = [await connect_account(url, user=user, password="secret") for user in ("admin", "limited")]
    return admin, limited


@pytest.fixture
def watcher(stream: str) -> Watcher:
    return make_watcher(stream)


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of two are atomic ones."""
    monkeypatch.setattr("app.jetstream.publish.atomic.FEW", 1)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent server is given up after a second and a half instead of six; it is asked oftener for that."""
    monkeypatch.setattr("app.jetstream.connection.LOOK_SECONDS", 0.25)
    monkeypatch.setattr("app.jetstream.client.PING_SECONDS", 0.25)


@pytest.fixture
def older_server() -> Path:
    """The program of a nats-server of 2.11."""
    path = os.environ.get("CHANGEWIRE_TEST_NATS_211")
    if not path:
        pytest.skip("CHANGEWIRE_TEST_NATS_211 does not name a nats-server of 2.11")
    return Path(path)
