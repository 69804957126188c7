"""What settings protect, each on a service of its own: HTTPS, allowed collections, secrets that nothing repeats."""

import ssl
from base64 import b64encode
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from cryptography.hazmat.primitives import serialization

from app.api import openapi_document
from app.devservers.servers import free_port
from tests.conftest import MakeMongo, MakeNats
from tests.credentials import Certificates
from tests.integration.http.test_servers import TWO_ACCOUNTS, look_around, reason
from tests.live import Live

TOKEN = "write-0123456789abcdef"


async def test_https_with_a_client_that_checks_the_certificate(
    mongo_uri: str, nats_url: str, unique: str, tmp_path: Path
) -> None:
    certificates = Certificates(tmp_path)
    own = certificates.server
    trusting = ssl.create_default_context(cafile=certificates.ca)
    settings: dict[str, Any] = {
        "CHANGEWIRE_TLS_CERT": own["tls_cert"], "CHANGEWIRE_TLS_KEY": own["tls_key"], "CHANGEWIRE_API_TOKEN": TOKEN,
    }  # fmt: skip
    async with Live(mongo_uri, nats_url, unique, verify=trusting, **settings) as live:
        assert live.url.startswith("https://")
        await live.add()
        live.insert(1)
        await live.seen("1")
        other = ssl.create_default_context(cafile=certificates.other_ca)
        async with httpx.AsyncClient(base_url=live.url, verify=other, trust_env=False) as stranger:
            with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
                await stranger.get("/livez")
        async with httpx.AsyncClient(trust_env=False) as plain:
            with pytest.raises(httpx.RemoteProtocolError):
                await plain.get(live.url.replace("https", "http") + "/livez")
        await live.pause()


async def test_only_allowed_collections_are_watched_wherever_the_watcher_comes_from(
    mongo_uri: str, nats_url: str, unique: str, tmp_path: Path
) -> None:
    database = f"db_{unique}"
    config = tmp_path / "connector.yaml"
    config.write_text(
        f"connector: {{collections: [{{dbName: {database}, collName: a_{unique}}}, "
        f"{{dbName: {database}, collName: secret_{unique}}}]}}"
    )
    async with Live(mongo_uri, nats_url, unique) as live:
        await live.add("stored", source={"collection": f"old_{unique}"}, checkpoint={"collection": f"old_{unique}"})
        allowed = f"{database}.a_*,{database}.orders_{unique}"
        await live.restart(config, CHANGEWIRE_NAMESPACES=allowed)
        await live.reaches("RUNNING", f"{database}.a_{unique}")
        for name in ("stored", f"{database}.secret_{unique}"):
            reason = (await live.reaches("FAILED", name))["status"]["reason"]
            assert f"may be watched: {database}.a_*, {database}.orders_{unique}" in reason
        body = live.definition("new", source={"collection": f"secret_{unique}"})
        for method, path in (("POST", "/watchers"), ("PUT", "/watchers/new"), ("POST", "/watchers?dry_run=true")):
            answer = await live.call(method, path, 422, json=body)
            assert [each["field"] for each in answer.json()["errors"]] == ["source.collection"]
        await live.add()
        live.insert(1)
        await live.seen("1")


async def test_a_page_that_had_its_name_lead_to_a_loopback_address_reads_nothing(
    mongo_uri: str, nats_url: str, unique: str
) -> None:
    async with Live(mongo_uri, nats_url, unique) as live:
        await live.add()
        live.insert("secret-document")
        await live.seen("secret-document")
        port = httpx.URL(live.url).port
        paths = [path.format(name="orders", sequence=1, instance="one") for path in openapi_document()["paths"]]
        for path in [
            *paths,
            "/",
            "/assets/app.js",
            "/docs",
            "/openapi.json",
            "/nowhere",
            "/watchers/orders/messages?last=9",
        ]:
            for headers in ({"Host": f"rebound.example:{port}"}, {"Origin": "http://rebound.example"}):
                for method in ("GET", "OPTIONS"):
                    answer = await live.call(method, path, headers=headers)
                    assert answer.status_code == 403, f"{method} {path}"
                    assert "secret-document" not in answer.text
        assert (await live.call("GET", "/watchers", headers={"Host": f"localhost:{port}"})).status_code == 200
        await live.restart(CHANGEWIRE_ALLOWED_HOSTS="cw.example.com")
        proxied = {"Host": "cw.example.com", "Origin": "https://cw.example.com"}
        assert (await live.call("GET", "/watchers", headers=proxied)).status_code == 200
        await live.refused(403, "PUT", "/watchers/orders/pause", headers=proxied)


class Planted:
    """Secrets, each of its own, and where they are put."""

    def __init__(self) -> None:
        self.all: dict[str, str] = {}

    def __call__(self, name: str) -> str:
        return self.all.setdefault(name, f"pl4nted-{name}-{len(self.all)}-s3cret")

    def said(self, live: Live) -> list[str]:
        """Every answer, metric and log line that holds one of them, in any form that can be read back."""
        forms = {
            form: name
            for name, secret in self.all.items()
            for form in (secret, secret[::-1], b64encode(secret.encode()).decode().rstrip("="), secret.encode().hex())
        }
        texts = [*live.said, *live.log.getvalue().splitlines()]
        return [f"{name}: {text[:300]}" for text in texts for form, name in forms.items() if form in text]


async def look_everywhere(live: Live) -> None:
    """Make every call there is, some with secrets where they do not belong."""
    await look_around(live)
    for path in ("status", "health", "lag", "dead-letters", "dead-letters/1"):
        await live.call("GET", f"/watchers/orders/{path}")
    for method, path in (
        ("PUT", "/watchers/orders/pause"), ("PUT", "/watchers/orders/resume"), ("POST", "/watchers/orders/restart"),
        ("PUT", "/watchers/orders/token"), ("DELETE", "/watchers/orders/token"),
        ("POST", "/watchers/orders/dead-letters/1/replay"), ("DELETE", "/watchers/orders/dead-letters/1"),
    ):  # fmt: skip
        await live.call(method, path, json={"at": "latest"})
    await live.call("GET", "/nowhere")


@pytest.mark.long
async def test_no_secret_is_said_while_all_is_well_and_when_servers_die(
    make_mongo: MakeMongo, make_nats: MakeNats, unique: str
) -> None:
    planted = Planted()
    mongo = await make_mongo(auth=("service", planted("mongo")))
    nats = await make_nats(config=TWO_ACCOUNTS % (planted("nats"), ""))
    url = nats.url.replace("//", f"//service:{planted('nats')}@")
    settings: dict[str, Any] = {
        "CHANGEWIRE_API_TOKEN": planted("api"),
        "CHANGEWIRE_API_TOKENS": f"viewer:read:{planted('viewer')},deploy:write:{planted('deploy')}",
        "LOG_LEVEL": "debug",
    }
    async with Live(mongo.uri, url, unique, look_at=(mongo.uri, nats.url), **settings) as live:
        await live.add()
        live.insert(1)
        await live.seen("1")
        await look_everywhere(live)
        for scheme in ("Bearer", "Basic", "Token"):
            for name in ("viewer", "nats", "mongo"):
                given = {"Authorization": f"{scheme} {planted(name)}"}
                assert (await live.call("DELETE", "/watchers/orders", headers=given)).status_code in (401, 403)
        await live.refused(422, "POST", "/watchers", json={"name": "w", "password": planted("mongo")})
        await live.refused(422, "PUT", "/watchers/orders/token", json={"token": planted("api")})
        await live.call("PUT", f"/watchers/{planted('deploy')}/pause", headers={"X-Token": planted("deploy")})
        live.said = [text for text in live.said if "there is no watcher pl4nted" not in text]  # its own words
        nats.kill()
        live.insert(2)
        await live.reaches("RETRYING")
        mongo.kill()
        await reason(live, "MongoDB")
        await live.refused(503, "PUT", "/watchers/orders/pause")
        await live.call("GET", "/healthz", 503)
        for path in ("/watchers", "/watchers/orders/status", "/metrics"):
            await live.call("GET", path, 200)
    assert planted.said(live) == []
    assert planted("deploy") not in live.log.getvalue()


async def test_no_secret_is_said_of_what_goes_wrong(
    make_mongo: MakeMongo, make_nats: MakeNats, unique: str, tmp_path: Path
) -> None:
    planted, certificates = Planted(), Certificates(tmp_path)
    mongo = await make_mongo(auth=("root", "toor"))
    tls = f'tls {{ cert_file: "{certificates.server["tls_cert"]}", key_file: "{certificates.server["tls_key"]}" }}'
    nats, secure = await make_nats(config=TWO_ACCOUNTS % ("right", "")), await make_nats(config=tls)
    wrong_user = f"service:{planted('wrong')}@"
    address = f"{wrong_user}127.0.0.1:{mongo.port}/?replicaSet=rs0"
    nowhere = f"{wrong_user}127.0.0.1:{free_port()}"
    locked = quote(_locked(certificates.client["tls_key"], certificates.client["tls_cert"], planted("key")))
    unlocking = f"tls=true&tlsCertificateKeyFile={locked}&tlsCertificateKeyFilePassword={planted('key')}"
    good = mongo.uri, nats.url
    ways = {
        "wrong passwords": (f"mongodb://{address}", nats.url.replace("//", f"//{wrong_user}"), "uthenti"),
        "nobody there": (f"mongodb://{nowhere}/?replicaSet=rs0", f"nats://{nowhere}", "reached"),
        "no such host": (
            f"mongodb://{wrong_user}nowhere.invalid/?replicaSet=rs0", f"nats://{planted('token')}@nowhere.invalid",
            "reached",
        ),
        "not that TLS": (f"mongodb://{address}&{unlocking}", secure.url.replace("//", f"//{wrong_user}"), "reached"),
        "wrong mechanism": (f"mongodb://{address}&authMechanism=PLAIN&authSource=$external", nats.url, "MongoDB"),
    }  # fmt: skip
    first, *others = ways
    settings: dict[str, Any] = {"CHANGEWIRE_API_TOKEN": planted("api"), "LOG_LEVEL": "debug"}
    async with Live(*ways[first][:2], unique, look_at=good, ready=False, **settings) as live:
        await reason(live, ways[first][2])
        await look_everywhere(live)
        for way in others:
            mongo_uri, nats_url, word = ways[way]
            await live.restart(MONGO_URI=mongo_uri, NATS_URL=nats_url)
            await reason(live, word)
            await look_everywhere(live)
        assert live.stored() == []
    assert planted.said(live) == []
    assert "Traceback" not in live.log.getvalue()


def _locked(key: str, certificate: str, password: str) -> str:
    """A file with a certificate and its key, which needs a password."""
    private = serialization.load_pem_private_key(Path(key).read_bytes(), None)
    encrypted = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password.encode()),
    )
    path = Path(key).with_suffix(".locked.pem")
    path.write_bytes(Path(certificate).read_bytes() + encrypted)
    return str(path)
