"""Instances ask each other over a real nats-server: what arrives, what is refused, and what is said of silence."""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import capture_logs

from app.devservers.servers import NatsServer
from app.domain.errors import InstanceSilent
from app.domain.peer_messages import Answer, Ask
from app.jetstream import peers as module
from app.jetstream.connection import NatsConnection
from app.jetstream.peers import JetStreamPeers, Member, token_of
from app.ports.peers import Circle
from tests.conftest import MakeNats
from tests.integration.jetstream.conftest import Connect
from tests.live import until

KEY = bytes(range(32))

Join = Callable[..., Awaitable[JetStreamPeers]]


async def echo(ask: Ask) -> Answer:
    return Answer(200, (("etag", '"7"'),), ask.path.encode() + b" " + ask.body)


@pytest_asyncio.fixture
async def join(connect: Connect, nats_url: str, unique: str) -> AsyncIterator[Join]:
    """`await join(name, url=..., handler=..., circle=...)`: an instance that listens; closed after the test."""
    made: list[JetStreamPeers] = []

    async def one(
        name: str, *, url: str = nats_url, handler: Any = echo, circle: Any = None, **user: Any
    ) -> JetStreamPeers:
        connection = connect(url, **user)
        peers = JetStreamPeers(
            connection, Member(name, "changewire", _soon(circle or (lambda: Circle(f"c{unique}", KEY))))
        )
        made.append(peers)
        peers.serve(handler)
        peers.start()
        await until(lambda: peers._listeners or circle is not None)
        await connection.ready(10)
        await connection.request("$JS.API.INFO")  # what was subscribed before is known to the server
        return peers

    yield one
    for peers in made:
        await peers.close()


def _soon(circle: Callable[[], Circle | None]) -> Callable[[], Awaitable[Circle | None]]:
    async def read() -> Circle | None:
        return circle()

    return read


def asking(path: str = "/watchers/orders", through: str = "a", **more: Any) -> Ask:
    return Ask("GET", path, through=through, **more)


async def test_an_instance_answers_another_one(join: Join) -> None:
    a, _ = await join("a"), await join("b")
    answer = await a.ask("b", asking(body=b"body"), seconds=5)
    assert answer == Answer(200, (("etag", '"7"'),), b"/watchers/orders body")


async def test_an_instance_may_have_any_name_and_no_two_share_a_subject(join: Join) -> None:
    names = ["plain-Name_1", "pod.shop.svc", "größe *>", "=706f64", "pod"]
    assert len({token_of(name) for name in names}) == len(names)
    a = await join("host a.b")
    for name in names:

        async def named(_: Ask, name: str = name) -> Answer:
            return Answer(200, (), name.encode())

        await join(name, handler=named)
    for name in names:
        answer = await a.ask(name, asking(through="host a.b"), seconds=5)
        assert answer.body.decode() == name


@pytest.mark.parametrize("size", [1, 100_000, 5_000_000])
@pytest.mark.parametrize("direction", ["asked", "answered"])
async def test_what_is_larger_than_nats_takes_arrives_in_parts(
    join: Join, make_nats: MakeNats, size: int, direction: str
) -> None:
    server = await make_nats(max_payload=64 * 1024)
    large = os.urandom(size)  # which no compression makes smaller

    async def answer(ask: Ask) -> Answer:
        return Answer(200, (), large if direction == "answered" else ask.body[::-1])

    a, _ = await join("a", url=server.url), await join("b", url=server.url, handler=answer)
    found = await a.ask("b", asking(body=large if direction == "asked" else b""), seconds=20)
    assert found.body == (large if direction == "answered" else large[::-1])


async def test_where_nobody_listens_it_is_said_at_once_and_nothing_has_begun(join: Join) -> None:
    a = await join("a")
    with pytest.raises(InstanceSilent, match="the instance b does not listen") as raised:
        await a.ask("b", asking(), seconds=600)  # longer than a test may take
    assert not raised.value.begun


async def test_one_that_has_closed_does_not_listen(join: Join) -> None:
    a, b = await join("a"), await join("b")
    await b.close()
    await b.close()
    await until(lambda: _silent(a, "does not listen"))


async def _silent(peers: JetStreamPeers, words: str) -> bool:
    try:
        await peers.ask("b", asking(), seconds=1)
    except InstanceSilent as error:
        return words in str(error)
    return False


async def test_one_that_is_slow_may_have_begun(join: Join) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(ask: Ask) -> Answer:
        if ask.path == "/slow":
            begun.set()
            await go_on.wait()
        return Answer(204)

    a, b = await join("a"), await join("b", handler=slow)
    with pytest.raises(InstanceSilent, match=r"did not answer within 0.2 s") as raised:
        await a.ask("b", asking("/slow"), seconds=0.2)
    assert raised.value.begun
    await until(lambda: begun.is_set())
    assert (await a.ask("b", asking("/other"), seconds=5)).status == 204, "the slow one holds nobody up"
    go_on.set()
    await until(lambda: not b._working)
    assert (await a.ask("b", asking("/other"), seconds=5)).status == 204, "an answer that comes too late is dropped"


async def test_only_so_many_are_answered_at_once(join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_AT_ONCE", 3)
    go_on = asyncio.Event()

    async def slow(_: Ask) -> Answer:
        await go_on.wait()
        return Answer(204)

    a, b = await join("a"), await join("b", handler=slow)
    first = [asyncio.create_task(a.ask("b", asking(), seconds=20)) for _ in range(3)]
    await until(lambda: len(b._working) == 3)
    with pytest.raises(InstanceSilent, match="answers 3 requests of others already") as raised:
        await a.ask("b", asking(), seconds=20)
    assert not raised.value.begun
    go_on.set()
    assert [answer.status for answer in await asyncio.gather(*first)] == [204] * 3


async def test_an_error_of_the_other_instance_is_told_at_once(join: Join) -> None:
    async def broken(_: Ask) -> Answer:
        raise KeyError("secret")

    a, _ = await join("a"), await join("b", handler=broken)
    with capture_logs() as logged, pytest.raises(InstanceSilent, match="its log has the details") as raised:
        await a.ask("b", asking(), seconds=600)
    assert raised.value.begun
    assert "secret" not in str(raised.value)
    assert "peer_request_failed" in [entry["event"] for entry in logged]


async def test_instances_of_another_state_database_do_not_hear_each_other(join: Join, unique: str) -> None:
    a = await join("a")
    await join("b", circle=lambda: Circle(f"other{unique}", KEY))
    with pytest.raises(InstanceSilent, match="does not listen"):
        await a.ask("b", asking(), seconds=600)


async def test_a_wrong_key_is_not_heard_and_logged_once_a_minute(join: Join, unique: str) -> None:
    heard: list[Ask] = []

    async def note(ask: Ask) -> Answer:
        heard.append(ask)
        return Answer(204)

    a = await join("a")
    await join("b", handler=note)
    stranger = await join("c", circle=lambda: Circle(f"c{unique}", secrets.token_bytes(32)))
    await until(lambda: stranger._listeners)
    with capture_logs() as logged:
        for _ in range(3):
            with pytest.raises(InstanceSilent, match="did not answer"):
                await stranger.ask("b", asking(through="c"), seconds=0.3)
        await until(lambda: any(entry["event"] == "peer_message_refused" for entry in logged))
    assert heard == []
    refused = [entry for entry in logged if entry["event"] == "peer_message_refused"]
    assert len(refused) == 1
    assert refused[0]["log_level"] == "warning"
    assert "signature" in refused[0]["reason"]
    assert (await a.ask("b", asking(), seconds=5)).status == 204


async def test_a_recorded_message_does_nothing_a_second_time(
    join: Join, connect: Connect, nats_url: str, unique: str
) -> None:
    heard: list[Ask] = []

    async def note(ask: Ask) -> Answer:
        heard.append(ask)
        return Answer(204)

    a, _ = await join("a"), await join("b", handler=note)
    recorded: list[tuple[str, bytes]] = []
    thief = connect(nats_url)
    await thief.ready(10)
    thief.listen(f"changewire.c{unique}.b", lambda subject, data, _: recorded.append((subject.decode(), data)))
    await thief.request("$JS.API.INFO")
    await a.ask("b", asking(), seconds=5)
    await until(lambda: recorded)
    with capture_logs() as logged:
        for subject, data in recorded * 2:
            thief.write([f"PUB {subject} {len(data)}\r\n".encode() + data + b"\r\n"])
        await until(lambda: [entry for entry in logged if entry.get("reason") == "it was heard before"])
    assert len(heard) == 1
    assert (await a.ask("b", asking(), seconds=5)).status == 204


async def test_it_starts_before_nats_and_before_the_state_database_is_known(
    connect: Connect, own_nats: NatsServer, join: Join
) -> None:
    await own_nats.stop()
    known: list[Circle] = []
    connection = connect(own_nats.url)
    b = JetStreamPeers(connection, Member("b", "changewire", _soon(lambda: known[0] if known else None)))
    b.serve(echo)
    b.start()
    try:
        with pytest.raises(InstanceSilent, match="before the state database was reached") as raised:
            await b.ask("a", asking(), seconds=5)
        assert not raised.value.begun
        known.append(Circle("late", KEY))
        await until(lambda: b._listeners)
        with pytest.raises(InstanceSilent, match="cannot be asked: ") as raised:
            await b.ask("a", asking(), seconds=5)
        assert not raised.value.begun
        await own_nats.start()
        a = await join("a", url=own_nats.url, circle=lambda: Circle("late", KEY))
        await until(lambda: _answers(a))
    finally:
        await b.close()


async def _answers(peers: JetStreamPeers) -> bool:
    try:
        return (await peers.ask("b", asking(), seconds=1)).status == 200
    except InstanceSilent:
        return False


async def test_after_a_lost_connection_it_works_again_and_what_was_asked_is_unknown(
    join: Join, own_nats: NatsServer
) -> None:
    begun = asyncio.Event()

    async def never(ask: Ask) -> Answer:
        if ask.path == "/never":
            begun.set()
            await asyncio.Event().wait()
        return Answer(200)

    a, _ = await join("a", url=own_nats.url), await join("b", url=own_nats.url, handler=never)
    asked = asyncio.create_task(a.ask("b", asking("/never"), seconds=600))
    await begun.wait()
    own_nats.kill()
    with pytest.raises(InstanceSilent, match="was lost") as raised:
        await asked
    assert raised.value.begun
    await own_nats.start()
    await until(lambda: _answers(a))


async def test_another_circle_is_followed_when_the_state_database_was_made_again(
    join: Join, unique: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.05)
    now = [Circle(f"one{unique}", KEY)]
    a, b = await join("a", circle=lambda: now[0]), await join("b", circle=lambda: now[0])
    await until(lambda: _answers(a))
    now[0] = Circle(f"two{unique}", KEY[::-1])
    await until(lambda: (a._circle, b._circle) == (now[0], now[0]))
    await until(lambda: _answers(a))


USERS = """
authorization {{ users: [
  {{user: free, password: secret}},
  {{user: limited, password: secret, permissions: {{ {} }}}}
] }}
"""


async def limited(make_nats: MakeNats, permissions: str) -> str:
    return (await make_nats(config=USERS.format(permissions))).url


async def test_an_account_that_may_not_publish_is_told_which_subject(
    join: Join, make_nats: MakeNats, unique: str
) -> None:
    url = await limited(make_nats, 'publish: {deny: "changewire.>"}')
    a = await join("a", url=url, user="limited", password="secret")
    await join("b", url=url, user="free", password="secret")
    with pytest.raises(InstanceSilent, match=rf"may not publish to changewire\.c{unique}\.b; add that") as raised:
        await a.ask("b", asking(), seconds=600)
    assert not raised.value.begun


async def test_an_account_that_may_not_subscribe_is_told_which_subject(
    join: Join, make_nats: MakeNats, unique: str
) -> None:
    url = await limited(make_nats, 'subscribe: {deny: "changewire.>"}')
    a = await join("a", url=url, user="limited", password="secret")
    await until(lambda: _silent(a, f"may not subscribe to changewire.c{unique}.a"))


async def test_the_connection_listens_until_it_is_told_not_to(connect: Connect, nats_url: str, unique: str) -> None:
    heard: list[bytes] = []
    connection: NatsConnection = connect(nats_url)
    await connection.ready(10)
    listener = connection.listen(f"peers.{unique}", lambda _, data, __: heard.append(data))
    connection.write([f"PUB peers.{unique} 1\r\nx\r\n".encode()])
    await until(lambda: heard == [b"x"])
    connection.unlisten(listener)
    connection.unlisten(listener)
    connection.write([f"PUB peers.{unique} 1\r\ny\r\n".encode()])
    await connection.request("$JS.API.INFO")
    assert heard == [b"x"]
