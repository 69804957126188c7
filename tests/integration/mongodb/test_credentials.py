"""Every way to sign in to MongoDB, over TLS, on a server that insists: the right one relays, a wrong one says why."""

from pathlib import Path
from urllib.parse import quote

import pytest
from pymongo import MongoClient

from app.devservers.servers import MongoServer
from tests.conftest import MakeMongo
from tests.credentials import Certificates
from tests.integration.http.test_servers import reason
from tests.live import Live, until

SECRET = "pl4nted-s3cret"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


async def insisting(make_mongo: MakeMongo, certificates: Certificates) -> tuple[MongoServer, str]:
    """A mongod that speaks TLS alone and knows three users, and root's URI."""
    tls = ["--tlsMode", "preferTLS", "--tlsCAFile", certificates.ca, "--tlsAllowConnectionsWithoutCertificates"]
    pair = certificates.together(certificates.server)
    server = await make_mongo(auth=("root", "toor"), args=[*tls, "--tlsCertificateKeyFile", pair])
    roles = ["readWriteAnyDatabase", "clusterMonitor"]
    everywhere = [{"role": role, "db": "admin"} for role in roles]
    with MongoClient(f"{server.uri}&tls=true&tlsCAFile={certificates.ca}") as client:
        for mechanism in ("SCRAM-SHA-1", "SCRAM-SHA-256"):
            client.admin.command("createUser", mechanism, pwd=SECRET, mechanisms=[mechanism], roles=everywhere)
        client["$external"].command("createUser", certificates.subject(certificates.client), roles=everywhere)
        client.admin.command("setParameter", 1, tlsMode="requireTLS")
    return server, f"{server.uri}&tls=true&tlsCAFile={certificates.ca}"


async def test_scram_and_x509_over_tls(
    make_mongo: MakeMongo, nats_url: str, unique: str, certificates: Certificates
) -> None:
    server, root = await insisting(make_mongo, certificates)
    address = f"127.0.0.1:{server.port}/?replicaSet=rs0&tls=true&tlsCAFile={quote(certificates.ca)}"
    client = quote(certificates.together(certificates.client))
    x509 = f"mongodb://{address}&authMechanism=MONGODB-X509&authSource=$external&tlsCertificateKeyFile={client}"
    ways = [f"mongodb://SCRAM-SHA-1:{SECRET}@{address}", f"mongodb://SCRAM-SHA-256:{SECRET}@{address}", x509]
    async with Live(ways[0], nats_url, unique, look_at=(root, nats_url)) as live:
        await live.add()
        for place, uri in enumerate(ways):
            if place:
                await live.restart(MONGO_URI=uri)
            await live.reaches("RUNNING")
            live.insert(place)
            await live.seen(*map(str, range(place + 1)))
        users = {
            each["effectiveUsers"][0]["user"]
            for each in live.mongo.admin.aggregate([{"$currentOp": {"allUsers": True, "idleConnections": True}}])
            if each.get("effectiveUsers")
        }
        assert certificates.subject(certificates.client) in users, users
    said = "\n".join([*live.said, live.log.getvalue()])
    assert SECRET not in said


async def test_a_wrong_authority_certificate_or_mechanism_says_so(
    make_mongo: MakeMongo, nats_url: str, unique: str, certificates: Certificates, tmp_path: Path
) -> None:
    server, root = await insisting(make_mongo, certificates)
    plain = f"127.0.0.1:{server.port}/?replicaSet=rs0"
    address = f"{plain}&tls=true&tlsCAFile={quote(certificates.ca)}"
    stranger = quote(certificates.together(certificates.stranger))
    unknown = quote(certificates.together(certificates.elsewhere))
    x509 = f"mongodb://{address}&authMechanism=MONGODB-X509&authSource=$external&tlsCertificateKeyFile"
    wrong = {
        f"mongodb://SCRAM-SHA-256:{SECRET}@{plain}": "reset|closed",
        f"mongodb://SCRAM-SHA-256:{SECRET}@{plain}&tls=true": "certificate verify failed",
        f"mongodb://SCRAM-SHA-256:{SECRET}@{plain}&tls=true&tlsCAFile={quote(certificates.other_ca)}": "certificate",
        f"mongodb://SCRAM-SHA-1:{SECRET}@{address}&authMechanism=SCRAM-SHA-256": "uthentication failed|not find user",
        f"mongodb://SCRAM-SHA-256:{SECRET}-not@{address}": "uthentication failed|not find user",
        f"{x509}={unknown}": "uthentication failed|not find user",
        f"{x509}={stranger}": "unknown ca|closed|reset|alert",
    }
    first = next(iter(wrong))

    async def refuses() -> bool:
        said_by_probe = (await live.call("GET", "/healthz", 503)).json()["components"]["mongo"]["reason"]
        return "refuses the account in MONGO_URI" in said_by_probe

    async with Live(first, nats_url, unique, look_at=(root, nats_url), ready=False, LOG_LEVEL="debug") as live:
        for uri, words in wrong.items():
            if uri != first:
                await live.restart(MONGO_URI=uri)
            await reason(live, *words.split("|"))
            if "find user" in words:  # it was reached, and is not said to be out of reach
                await until(refuses)
            await live.refused(503, "POST", "/watchers", json=live.definition())
    said = "\n".join([*live.said, live.log.getvalue()])
    assert SECRET not in said
    assert "Traceback" not in said
