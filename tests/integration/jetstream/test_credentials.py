"""Every way to sign in to NATS, and TLS, on servers that insist: the right one publishes, a wrong one says why."""

from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.domain.errors import SinkUnavailable
from app.domain.events import Change
from app.domain.watcher import from_document
from app.jetstream.account import JetStream
from app.jetstream.client import NatsOptions
from app.jetstream.connection import NatsConnection
from tests.conftest import MakeNats
from tests.credentials import Certificates, Key, Operator, credentials
from tests.fakes import event_token
from tests.integration.jetstream.conftest import Connect
from tests.live import until

PUBLIC_REASON = "refuses the credentials"
SECRET = "hunter2hunter2"


@pytest.fixture
def file(tmp_path: Path) -> Callable[[str, str], str]:
    """`file(name, text)`: the path of a file with that text."""

    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


async def publishes(connection: NatsConnection) -> None:
    """Publish to a stream that is created for it: some batches at once, over this one connection."""
    watcher = from_document({"name": "w", "source": {"database": "shop", "collection": "orders"}})
    await connection.ready(30)
    await JetStream(connection).ping()
    sink = JetStream(connection).sink(watcher)
    await sink.prepare(may_create=True)
    begin = fence = (await sink.tail()).last_sequence
    assert (sink.mode, sink.pipelined) == ("fast_ingest", True)
    sends = []
    for size in (1, 200, 300, 1):
        tokens = [event_token(fence + number) for number in range(1, 1 + size)]
        unit = [Change(token, "insert", b"x" * 2_000, 0.0, token) for token in tokens]
        await sink.ready(unit)
        sends.append(sink.send(unit, fence, more=True))
        fence += size
    sink.settle()
    assert [await one - begin for one in sends] == [1, 201, 501, 502]
    assert (await sink.tail()).last_sequence == fence
    await sink.close()


async def refused(connection: NatsConnection) -> str:
    """The reason for which there is no connection; told again and again, and never with a traceback or a secret."""
    with capture_logs() as logs:
        with pytest.raises(SinkUnavailable) as failure:
            await connection.ready(30)
    assert not any("exc_info" in entry for entry in logs), logs
    assert SECRET not in f"{logs} {failure.value}"
    return str(failure.value)


async def test_user_and_password(connect: Connect, make_nats: MakeNats) -> None:
    server = await make_nats(config="authorization { user: me, password: right }")
    await publishes(connect(server.url, user="me", password="right"))
    for wrong in ({"user": "me", "password": SECRET}, {"user": "you", "password": "right"}, {"token": SECRET}, {}):
        assert PUBLIC_REASON in await refused(connect(server.url, **wrong))


async def test_what_stands_in_a_url_is_decoded(connect: Connect, make_nats: MakeNats) -> None:
    server = await make_nats(config='authorization { user: "m@e", password: "p@ss/w%rd" }')
    address = server.url.removeprefix("nats://")
    await publishes(connect(f"nats://m%40e:p%40ss%2Fw%25rd@{address}"))
    assert PUBLIC_REASON in await refused(connect(f"nats://m%40e:{SECRET}@{address}"))
    by_token = await make_nats(config='authorization { token: "to/ken" }')
    await publishes(connect(f"nats://to%2Fken@{by_token.url.removeprefix('nats://')}"))


async def test_a_server_without_credentials_in_its_url_gets_those_of_another_url(
    connect: Connect, make_nats: MakeNats
) -> None:
    server = await make_nats(config="authorization { user: me, password: right }")
    connection = NatsConnection(NatsOptions(("nats://me:right@127.0.0.1:1", server.url)))
    connection.start()
    try:
        await publishes(connection)
    finally:
        await connection.close()


async def test_a_password_file_is_read_again(
    connect: Connect, make_nats: MakeNats, file: Callable[[str, str], str]
) -> None:
    server = await make_nats(config="authorization { user: me, password: right }")
    path = file("password", f"{SECRET}\n")
    connection = connect(server.url, user="me", password=SECRET, password_file=path)
    assert PUBLIC_REASON in await refused(connection)
    file("password", "right\n")
    await until(lambda: connected(connection))
    await publishes(connection)


async def test_answers_arrive_below_a_prefix_of_ones_own(connect: Connect, make_nats: MakeNats) -> None:
    may = '{ publish: [">"], subscribe: ["_MINE.a.>"] }'
    server = await make_nats(
        config=f"authorization {{ users: [ {{ user: me, password: right, permissions: {may} }} ] }}"
    )
    await publishes(connect(server.url, user="me", password="right", inbox_prefix="_MINE.a"))
    assert "may not subscribe to _INBOX.>" in await refused(connect(server.url, user="me", password="right"))


async def test_token(connect: Connect, make_nats: MakeNats) -> None:
    server = await make_nats(config="authorization { token: right }")
    await publishes(connect(server.url, token="right"))
    assert PUBLIC_REASON in await refused(connect(server.url, token=SECRET))


async def test_nkey(connect: Connect, make_nats: MakeNats, file: Callable[[str, str], str]) -> None:
    known, unknown, account = Key(), Key(), Key("account")
    server = await make_nats(config=f"authorization {{ users: [ {{ nkey: {known.public} }} ] }}")
    await publishes(connect(server.url, nkey_seed_file=file("known.nk", f"{known.seed}\n")))
    assert PUBLIC_REASON in await refused(connect(server.url, nkey_seed_file=file("unknown.nk", unknown.seed)))
    damaged = known.seed[:-8] + ("A" if known.seed[-8] != "A" else "B") + known.seed[-7:]
    for text, said in (
        (SECRET, "holds no seed"),
        ("", "holds no seed"),
        (damaged, "checksum"),
        (known.public, "public key"),
        (account.seed, "another kind (account)"),
    ):
        reason = await refused(connect(server.url, nkey_seed_file=file("bad.nk", text)))
        assert "CHANGEWIRE_NATS_NKEY_SEED_FILE names " in reason
        assert said in reason


async def test_credentials_file(connect: Connect, make_nats: MakeNats, file: Callable[[str, str], str]) -> None:
    operator = Operator()
    server = await make_nats(config=operator.config)
    right = operator.credentials()
    await publishes(connect(server.url, creds_file=file("right.creds", right)))
    assert PUBLIC_REASON in await refused(connect(server.url, creds_file=file("other.creds", Operator().credentials())))
    jwt = right.splitlines()[1]
    for text, said in (
        (SECRET, "BEGIN NATS USER JWT is missing"),
        ("", "BEGIN NATS USER JWT is missing"),
        (right.partition("-----BEGIN USER")[0], "BEGIN USER NKEY SEED is missing"),
        (credentials(jwt, SECRET), "holds no seed"),
        (right.replace("\n", "\r\n"), "CR LF"),
    ):
        reason = await refused(connect(server.url, creds_file=file("bad.creds", text)))
        assert "CHANGEWIRE_NATS_CREDS names " in reason
        assert said in reason
    assert "No such file" in await refused(connect(server.url, creds_file="absent.creds"))


async def test_a_file_that_is_corrected_later_is_read_again(
    connect: Connect, make_nats: MakeNats, file: Callable[[str, str], str]
) -> None:
    key = Key()
    server = await make_nats(config=f"authorization {{ users: [ {{ nkey: {key.public} }} ] }}")
    connection = connect(server.url, nkey_seed_file=file("late.nk", ""))
    assert "holds no seed" in await refused(connection)
    file("late.nk", key.seed)
    await until(lambda: connected(connection))
    await publishes(connection)


async def connected(connection: NatsConnection) -> bool:
    try:
        await connection.ready(30)
    except SinkUnavailable:
        return False
    return True


def nats_tls(certificates: Certificates, server: dict[str, str], *, verify: bool = False) -> str:
    """What makes a nats-server insist on TLS, and with `verify` on a client certificate."""
    client = f', ca_file: "{certificates.ca}", verify: true' if verify else ""
    return f'tls {{ cert_file: "{server["tls_cert"]}", key_file: "{server["tls_key"]}"{client} }}'


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


async def test_tls_with_an_authority_of_its_own(
    connect: Connect, make_nats: MakeNats, certificates: Certificates
) -> None:
    server = await make_nats(config=nats_tls(certificates, certificates.server))
    for url in (server.url, server.url.replace("nats:", "tls:")):
        await publishes(connect(url, tls_ca=certificates.ca))
        for ca in (certificates.other_ca, None):
            reason = await refused(connect(url, tls_ca=ca))
            assert "certificate" in reason
            assert "CHANGEWIRE_NATS_TLS_CA" in reason
    elsewhere = await make_nats(config=nats_tls(certificates, certificates.elsewhere))
    assert "not valid for '127.0.0.1'" in await refused(connect(elsewhere.url, tls_ca=certificates.ca))


async def test_tls_that_begins_before_the_server_introduces_itself(
    connect: Connect, make_nats: MakeNats, certificates: Certificates
) -> None:
    first = nats_tls(certificates, certificates.server).replace("tls {", "tls { handshake_first: true,")
    server = await make_nats(config=first)
    await publishes(connect(server.url, tls_ca=certificates.ca, tls_handshake_first=True))


async def test_a_client_certificate(connect: Connect, make_nats: MakeNats, certificates: Certificates) -> None:
    server = await make_nats(config=nats_tls(certificates, certificates.server, verify=True))
    await publishes(connect(server.url, tls_ca=certificates.ca, **certificates.client))
    for wrong in ({}, certificates.stranger):
        assert "CHANGEWIRE_NATS_TLS_CERT" in await refused(connect(server.url, tls_ca=certificates.ca, **wrong))


async def test_tls_files_that_cannot_be_used_are_named(
    connect: Connect, nats_url: str, certificates: Certificates, file: Callable[[str, str], str]
) -> None:
    nonsense, client = file("nonsense.pem", SECRET), certificates.client
    for options, variable, said in (
        ({"tls_ca": "absent.pem"}, "CHANGEWIRE_NATS_TLS_CA", "No such file"),
        ({"tls_ca": nonsense}, "CHANGEWIRE_NATS_TLS_CA", "no certificate in PEM form"),
        ({**client, "tls_cert": nonsense}, "CHANGEWIRE_NATS_TLS_CERT", "no certificate in PEM form"),
        ({**client, "tls_key": nonsense}, "CHANGEWIRE_NATS_TLS_KEY", "no private key"),
        ({**client, "tls_key": certificates.stranger["tls_key"]}, "CHANGEWIRE_NATS_TLS_KEY", "not the key of"),
    ):
        reason = await refused(connect(nats_url, **options))
        assert f"{variable} names " in reason
        assert said in reason


async def test_credentials_are_not_sent_to_a_server_without_the_tls_that_was_asked_for(
    connect: Connect, nats_url: str, certificates: Certificates
) -> None:
    for url, options in ((nats_url.replace("nats:", "tls:"), {}), (nats_url, {"tls_ca": certificates.ca})):
        reason = await refused(connect(url, user="me", password=SECRET, **options))
        assert "TLS is asked for" in reason
