"""What `ports.Peers` promises, of the adapter on a real nats-server and of the fake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from app.domain.errors import InstanceSilent
from app.domain.peer_messages import Answer, Ask
from app.jetstream.client import NatsOptions
from app.jetstream.connection import NatsConnection
from app.jetstream.peers import JetStreamPeers, Member
from app.ports.peers import Circle, Handler, Peers
from tests.fakes.peers import FakePeers, Network
from tests.live import until

Join = Callable[[str, Handler], Awaitable[Peers]]


@pytest_asyncio.fixture(params=["fake", "nats"])
async def join(request: pytest.FixtureRequest, nats_url: str, unique: str) -> AsyncIterator[Join]:
    """`await join(name, handler)`: an instance that the others can ask."""
    network = Network()

    async def circle() -> Circle:
        return Circle(unique, b"k" * 32)

    async with AsyncExitStack() as stack:

        async def one(name: str, handler: Handler) -> Peers:
            peers: Peers
            if request.param == "fake":
                peers = FakePeers(name, network)
                peers.serve(handler)
                return peers
            connection = NatsConnection(NatsOptions((nats_url,)))
            stack.push_async_callback(connection.close)
            connection.start()
            peers = listening = JetStreamPeers(connection, Member(name, "changewire", circle))
            stack.push_async_callback(peers.close)
            peers.serve(handler)
            peers.start()
            await connection.ready(10)
            await until(lambda: listening._listeners)
            await connection.request("$JS.API.INFO")
            return peers

        yield one


async def echo(ask: Ask) -> Answer:
    return Answer(200, (("etag", ask.path),), ask.body)


ASK = Ask("PUT", "/watchers/größe", "dry_run=true", (("if-match", '"7"'),), b"\0body", "deploy", "write", "::1", "a")


async def test_an_instance_hears_what_it_is_asked_and_its_answer_comes_back(join: Join) -> None:
    heard: list[Ask] = []

    async def note(ask: Ask) -> Answer:
        heard.append(ask)
        return await echo(ask)

    a, _ = await join("a", echo), await join("b", note)
    assert await a.ask("b", ASK, seconds=10) == Answer(200, (("etag", "/watchers/größe"),), b"\0body")
    assert heard == [ASK]


async def test_many_are_asked_at_once(join: Join) -> None:
    a, *_ = await join("a", echo), await join("b", echo), await join("c", echo)
    asked = [(name, str(number)) for name in "bc" for number in range(20)]
    answers = await asyncio.gather(*(a.ask(name, Ask("GET", path, through="a"), seconds=10) for name, path in asked))
    assert [answer.headers[0][1] for answer in answers] == [path for _, path in asked]


async def test_an_instance_that_is_not_there_has_begun_nothing(join: Join) -> None:
    a = await join("a", echo)
    with pytest.raises(InstanceSilent, match="the instance b ") as raised:
        await a.ask("b", ASK, seconds=600)
    assert not raised.value.begun


async def test_an_instance_that_has_closed_has_begun_nothing(join: Join) -> None:
    a, b = await join("a", echo), await join("b", echo)
    await b.close()
    await b.close()

    async def silent() -> bool:
        try:
            await a.ask("b", ASK, seconds=1)
        except InstanceSilent as error:
            return not error.begun
        return False

    await until(silent)


async def test_an_instance_that_meets_an_error_may_have_begun(join: Join) -> None:
    async def broken(_: Ask) -> Answer:
        raise KeyError("secret")

    a, _ = await join("a", echo), await join("b", broken)
    with pytest.raises(InstanceSilent) as raised:
        await a.ask("b", ASK, seconds=600)
    assert raised.value.begun
    assert "secret" not in str(raised.value)


async def test_an_instance_that_is_too_slow_may_have_begun(join: Join) -> None:
    async def slow(_: Ask) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError

    a, _ = await join("a", echo), await join("b", slow)
    with pytest.raises(InstanceSilent, match=r"did not answer within 0.2 s") as raised:
        await a.ask("b", ASK, seconds=0.2)
    assert raised.value.begun
