"""Two instances answer for each other over a real nats-server: single watchers, long lists, and a lost server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
import pytest_asyncio

from app.api import create_api, forwarding, others
from app.config.settings import Settings
from app.devservers.servers import NatsServer
from app.domain.lifecycle import State
from app.domain.watcher import from_document
from app.jetstream.client import NatsOptions
from app.jetstream.connection import NatsConnection
from app.jetstream.peers import JetStreamPeers, Member
from app.ports.peers import Circle
from tests.conftest import MakeNats
from tests.fakes.peers import FakeOwners, Network
from tests.live import until
from tests.unit.api.calls import client_of, problem, render_metrics
from tests.unit.api.fake_registry import FakeRegistry


@dataclass
class Instance:
    registry: FakeRegistry
    owners: FakeOwners
    peers: JetStreamPeers
    connection: NatsConnection
    client: httpx.AsyncClient

    async def get(self, path: str) -> Any:
        answer = await self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()


Two = Callable[[str], Awaitable[tuple[Instance, Instance]]]


@pytest_asyncio.fixture
async def two(unique: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Two]:
    """`await two(url of a nats-server)`: instances a and b, whose registries know nothing yet, and which have more
    patience with each other than two seconds."""
    for module in (others, forwarding):
        monkeypatch.setattr(module, "READ_SECONDS", 15.0)
    network = Network(handlers={"a": _never, "b": _never})

    async def circle() -> Circle:
        return Circle(f"c{unique}", b"k" * 32)

    async with AsyncExitStack() as stack:

        async def one(name: str, url: str) -> Instance:
            connection = NatsConnection(NatsOptions((url,)))
            stack.push_async_callback(connection.close)
            connection.start()
            peers = JetStreamPeers(connection, Member(name, "changewire", circle))
            stack.push_async_callback(peers.close)
            peers.start()
            registry, owners = FakeRegistry(), FakeOwners(name, network)
            app = create_api(
                registry=registry,  # type: ignore[arg-type]
                settings=Settings(),
                render_metrics=render_metrics,
                owners=owners,
                peers=peers,
            )
            client = await stack.enter_async_context(client_of(app))
            await until(lambda: peers._listeners)
            await connection.ready(10)
            await connection.request("$JS.API.INFO")
            return Instance(registry, owners, peers, connection, client)

        async def both(url: str) -> tuple[Instance, Instance]:
            return await one("a", url), await one("b", url)

        both.network = network  # type: ignore[attr-defined]
        yield both


async def _never(_: Any) -> Any:
    raise AssertionError("everything goes over NATS")


def share(two: Two, a: Instance, b: Instance, owners: dict[str, str]) -> None:
    two.network.owners.update(owners)  # type: ignore[attr-defined]
    for name, owner in owners.items():
        watcher = from_document({"name": name, "source": {"database": "shop", "collection": name}})
        for each in (a, b):
            state = State.RUNNING if each.owners.name == owner else State.STARTING
            each.registry.views[name] = each.registry.show(watcher, state, instance=owner)
            if each.owners.name != owner:
                each.registry.elsewhere.add(name)


async def test_each_of_two_instances_answers_for_the_other(two: Two, nats_url: str) -> None:
    a, b = await two(nats_url)
    share(two, a, b, {"orders": "b", "größe": "a"})
    for one in (a, b):
        assert (await one.get("/watchers/orders"))["status"]["instance"] == "b"
        assert (await one.get("/watchers/größe"))["status"]["instance"] == "a"
        listed = await one.get("/watchers")
        assert [(each["name"], each["status"]["state"]) for each in listed] == [
            ("größe", "RUNNING"), ("orders", "RUNNING"),
        ]  # fmt: skip
    answer = await a.client.put("/watchers/orders/pause")
    assert (answer.status_code, answer.json()["status"]["state"]) == (202, "PAUSED")
    assert b.registry.views["orders"].status.state is State.PAUSED
    assert problem(await a.client.put("/watchers/orders", json={}), 422)


@pytest.mark.parametrize("max_payload", [1024 * 1024, 16 * 1024])
async def test_a_list_of_a_thousand_watchers_is_longer_than_a_message_may_be(
    two: Two, make_nats: MakeNats, max_payload: int
) -> None:
    server = await make_nats(max_payload=max_payload)
    a, b = await two(server.url)
    share(two, a, b, {f"w{number:04}": "b" if number % 10 else "a" for number in range(1000)})
    listed = await a.get("/watchers")
    assert [each["name"] for each in listed] == [f"w{number:04}" for number in range(1000)]
    assert {(each["status"]["state"], each["status"]["as_of"]) for each in listed} == {("RUNNING", None)}
    assert len(await b.get("/lag")) == 1000


async def test_without_nats_reads_say_as_of_when_and_changes_say_why_not(two: Two, own_nats: NatsServer) -> None:
    a, b = await two(own_nats.url)
    share(two, a, b, {"orders": "b", "x": "a"})
    assert (await a.get("/watchers/orders"))["status"]["as_of"] is None
    own_nats.kill()
    await until(lambda: a.connection.server_version == "")
    status = (await a.get("/watchers/orders"))["status"]
    assert (status["state"], status["instance"]) == ("RUNNING", "b")
    assert status["as_of"] is not None
    assert "cannot be asked" in status["notes"][-1]
    assert (await a.get("/watchers/x"))["status"]["as_of"] is None
    detail = problem(await a.client.put("/watchers/orders/pause"), 503)["detail"]
    assert "nothing was changed" in detail
    assert b.registry.views["orders"].status.state is State.RUNNING
    await own_nats.start()

    async def answered() -> bool:
        return (await a.get("/watchers/orders"))["status"]["as_of"] is None

    await until(answered)


async def test_many_requests_at_once_are_each_answered_with_their_own(two: Two, nats_url: str) -> None:
    a, b = await two(nats_url)
    names = [f"w{number}" for number in range(60)]
    share(two, a, b, dict.fromkeys(names, "b"))
    found = await asyncio.gather(*(a.get(f"/watchers/{name}") for name in names))
    assert [each["name"] for each in found] == names
