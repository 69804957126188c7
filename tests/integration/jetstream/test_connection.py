"""The connection to NATS under everything that happens to connections, and what it uses of nats-py's private parts."""

import asyncio
import inspect
from contextlib import suppress
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.transport import TcpTransport, Transport
from structlog.testing import capture_logs

from app.devservers.servers import NatsServer
from app.domain.errors import SinkUnavailable
from app.jetstream.account import JetStream
from app.jetstream.client import NatsOptions, OneConnection
from app.jetstream.connection import NatsConnection
from app.jetstream.errors import ConnectionLost, without_secrets
from app.jetstream.exchange import Answer
from tests.conftest import MakeNats
from tests.integration.jetstream.conftest import Connect, tried
from tests.live import until


async def until_up(connection: NatsConnection, seconds: float = 15) -> None:
    async with asyncio.timeout(seconds):
        while True:
            try:
                return await JetStream(connection).ping()
            except SinkUnavailable:
                await asyncio.sleep(0.05)


async def until_down(connection: NatsConnection, seconds: float) -> str:
    async with asyncio.timeout(seconds):
        while True:
            try:
                connection.client()
            except SinkUnavailable as error:
                return str(error)
            await asyncio.sleep(0.05)


def test_nats_py_still_has_the_private_parts_that_are_used() -> None:
    parameters = {
        name: list(inspect.signature(getattr(Client, name)).parameters)
        for name in ("_process_info", "_process_msg", "_process_pong", "_process_err", "_process_op_err")
    }
    assert parameters == {
        "_process_info": ["self", "info", "initial_connection"],
        "_process_msg": ["self", "sid", "subject", "reply", "data", "headers"],
        "_process_pong": ["self"],
        "_process_err": ["self", "err_msg"],
        "_process_op_err": ["self", "e"],
    }
    for name in parameters:
        assert inspect.iscoroutinefunction(getattr(Client, name))
        assert name in vars(OneConnection)
    client = Client()
    assert client._transport is None
    assert client._server_info == {}
    assert (client._pending, client._pending_data_size) == ([], 0)
    assert TcpTransport()._io_writer is None
    assert list(inspect.signature(Transport.write).parameters) == ["self", "payload"]


async def test_replies_take_the_short_cut_and_other_subscriptions_still_work(connect: Connect, nats_url: str) -> None:
    connection = connect(nats_url)
    await connection.ready(5)
    client = connection.client()
    assert isinstance(client, OneConnection)
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    async def echo(message: Any) -> None:
        heard.put_nowait(message.data)
        await message.respond(b"back")

    await client.subscribe("echo.here", cb=echo)
    await client.flush()
    assert await connection.request("echo.here", b"there") == b"back"
    assert heard.get_nowait() == b"there"
    assert await connection.request("nobody.listens") is None
    before = client.progress()
    await client.flush()
    assert client.progress() != before


async def test_an_absent_server_is_waited_for_in_the_background(connect: Connect, own_nats: NatsServer) -> None:
    await own_nats.stop()
    connection = await tried(connect(own_nats.url))
    with pytest.raises(SinkUnavailable, match=f"127.0.0.1:{own_nats.port}: connection refused"):
        await JetStream(connection).ping()
    await own_nats.start()
    await until_up(connection)


async def test_before_the_start_the_reason_says_so(nats_url: str) -> None:
    with pytest.raises(SinkUnavailable, match="not been started"):
        await NatsConnection(NatsOptions((nats_url,))).ready()


async def test_a_killed_server_fails_what_is_awaited_at_once_and_is_found_again(
    connect: Connect, own_nats: NatsServer
) -> None:
    connection = connect(own_nats.url)
    await until_up(connection)
    client = connection.client()
    await client.subscribe("silence")
    waiting = asyncio.create_task(
        connection.converse(
            Answer(("silence",)), lambda reply: [f"PUB silence {reply}0 0\r\n\r\n".encode()], seconds=60
        )
    )
    await asyncio.sleep(0)
    own_nats.kill()
    with pytest.raises(ConnectionLost):  # else a TimeoutError, a minute later
        await waiting
    with pytest.raises(SinkUnavailable, match=r"lost|refused"):
        connection.client()
    await own_nats.start()
    await until_up(connection)
    assert connection.client() is not client


@pytest.mark.parametrize("unsent", [0, 32 * 1024 * 1024])
async def test_a_frozen_server_is_noticed_even_with_bytes_that_it_does_not_take(
    connect: Connect, own_nats: NatsServer, unsent: int, impatient: None
) -> None:
    connection = connect(own_nats.url)
    await until_up(connection)
    own_nats.freeze()
    try:
        client = connection.client()
        assert isinstance(client, OneConnection)
        for _ in range(unsent // 1024**2):
            client.send(b"PUB x 1048000\r\n" + b"x" * 1048000 + b"\r\n")
        reason = await until_down(connection, 12)
        assert "silent" in reason
    finally:
        own_nats.thaw()
    await until_up(connection)


async def test_a_frozen_server_is_noticed_while_it_is_asked_again_and_again(
    connect: Connect, own_nats: NatsServer, impatient: None
) -> None:
    """Its kernel goes on taking small requests, for hours."""
    connection = connect(own_nats.url)
    await until_up(connection)

    async def ask() -> None:
        while True:
            with suppress(SinkUnavailable):
                await connection.request("$JS.API.INFO", seconds=0.5)
            await asyncio.sleep(0.1)

    asking = asyncio.create_task(ask())
    own_nats.freeze()
    try:
        assert "silent" in await until_down(connection, 12)
    finally:
        asking.cancel()
        own_nats.thaw()
    await until_up(connection)


async def test_an_error_after_which_nats_py_would_close_for_good_is_survived(
    connect: Connect, own_nats: NatsServer
) -> None:
    connection = connect(own_nats.url)

    async def told() -> bool:
        await until_up(connection)
        with pytest.raises(ConnectionLost) as lost:  # the server's words may be lost with the connection
            await connection.converse(
                Answer(("x",)), lambda _: [b"PUB x 2000000\r\n" + b"x" * 2_000_000 + b"\r\n"], seconds=10
            )
        return "maximum payload" in str(lost.value)

    await until(told)
    await until_up(connection)


async def test_wrong_credentials_are_told_without_telling_them(connect: Connect, make_nats: MakeNats) -> None:
    server = await make_nats(config="authorization { user: me, password: right }")

    refusals = 0

    def refused_again() -> bool:
        return server.log.read_text().count("authentication error") > refusals

    with capture_logs() as logs:
        for connection in (
            connect(server.url.replace("//", "//me:hunter2@")),
            connect(server.url, user="me", password="hunter2"),
            connect(server.url, token="hunter2"),
        ):
            for _ in range(2):  # nats-py closes for good on the second refusal
                await until(refused_again)
                refusals = server.log.read_text().count("authentication error")
                await tried(connection)
                with pytest.raises(SinkUnavailable, match="refuses the credentials") as refused:
                    await JetStream(connection).ping()
                assert "hunter2" not in str(refused.value)
            await connection.close()
    assert "hunter2" not in str(logs)
    assert any(entry["event"] == "nats_unreachable" for entry in logs)
    await until_up(connect(server.url.replace("//", "//me:right@")))
    await until_up(connect(server.url, user="me", password="right"))


async def test_options_never_show_a_secret() -> None:
    options = NatsOptions(("nats://u:p4ss@h",), password="p4ss", token="p4ss")
    assert "p4ss" not in repr(options).replace("nats://u:p4ss@h", "")
    assert without_secrets("nats://u:p4ss@h:4222") == "nats://h:4222"
    assert without_secrets("tls://t0ken@h") == "tls://h"


async def test_a_missing_credentials_file_is_named(connect: Connect, nats_url: str) -> None:
    connection = await tried(connect(nats_url, creds_file="/does/not/exist.creds"))
    with pytest.raises(SinkUnavailable, match=r"exist\.creds"):
        await JetStream(connection).ping()


async def test_one_dead_server_of_two_does_no_harm(own_nats: NatsServer, nats_url: str) -> None:
    own_nats.kill()
    connection = NatsConnection(NatsOptions((own_nats.url, nats_url)))
    connection.start()
    await until_up(connection)
    await connection.close()
    with pytest.raises(SinkUnavailable, match="closed"):
        await connection.ready()
    await connection.close()


async def test_an_account_without_an_inbox_is_told_so(connect: Connect, make_nats: MakeNats) -> None:
    server = await make_nats(
        config='authorization { users: [{user: a, password: b, permissions: {subscribe: {deny: ["_INBOX.>"]}}}] }'
    )
    with pytest.raises(SinkUnavailable, match="_INBOX"):
        await JetStream(await tried(connect(server.url, user="a", password="b"))).ping()


async def test_without_jetstream_the_reason_says_how_to_start_it(connect: Connect, make_nats: MakeNats) -> None:
    server = await make_nats(jetstream=False)
    with pytest.raises(SinkUnavailable, match="start it with -js"):
        await JetStream(await tried(connect(server.url))).ping()


async def test_closing_at_any_moment_of_a_broken_connection_ends_at_once(
    own_nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nats-py swallows a cancellation that meets it while it connects or closes."""
    monkeypatch.setattr("app.jetstream.client.CONNECT_SECONDS", 600)  # longer than a test may take
    for turn in range(60):
        connection = NatsConnection(NatsOptions((own_nats.url,)))
        connection.start()
        if turn % 2:
            await connection.ready(30)
            client = connection.client()
            assert isinstance(client, OneConnection)
            client.lose("on purpose")
        for _ in range(turn // 2):  # give way so many times: another step of the way each turn
            await asyncio.sleep(0)
        async with asyncio.timeout(30):
            await connection.close()
